"""The stages that a slide runs through, and the buffers between them."""
