"""A training as it runs: the loop, its folder, its devices, and what it leaves for people."""
