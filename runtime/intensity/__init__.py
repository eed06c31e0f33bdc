"""How raw values become the bytes that a model takes, and of which channels."""
