"""The splitter fitted to pictures whose cells are known."""
