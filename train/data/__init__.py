"""Data sets read into memory, annotations, and the crops and targets that are cut from them."""
