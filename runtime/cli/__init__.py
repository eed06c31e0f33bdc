"""Command lines of the runtime: each module parses its options and calls one function."""
