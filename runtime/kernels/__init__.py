"""The compiled kernels: each stub here is a source in ``csrc/``."""
