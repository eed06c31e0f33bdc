"""Many images: what is to be done with each, what became of it, and a page about all of them."""
