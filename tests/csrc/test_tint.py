"""The tint kernel against plain NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.runtime.kernels.tint import tint


def reference(labels, colour_of, palette, inside):
    """Return the tile, pixel by pixel as the kernel's documentation says."""
    height, width = labels.shape[0] - 2, labels.shape[1] - 2
    out = np.zeros((height, width, 4), np.uint8)
    for y in range(height):
        for x in range(width):
            here = labels[y + 1, x + 1]
            colour = colour_of[here] if 0 < here < len(colour_of) else 0
            if not colour:
                continue
            around = labels[y, x + 1], labels[y + 2, x + 1], labels[y + 1, x], labels[y + 1, x + 2]
            opacity = int(palette[colour, 3])
            if all(other == here for other in around):
                opacity = (opacity * inside + 127) // 255
            out[y, x] = (*palette[colour, :3], opacity)
    return out


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.integers(0, 255))
def test_equals_the_reference(seed, height, width, inside):
    random = np.random.default_rng(seed)
    small = random.integers(-1, 6, (height // 2 + 2, width // 2 + 2))
    labels = np.kron(small, np.ones((2, 2), np.int64))[: height + 2, : width + 2].astype(np.int32)
    colour_of = random.integers(0, 3, 5).astype(np.uint8)
    palette = random.integers(0, 256, (256, 4)).astype(np.uint8)
    out = np.full((height, width, 4), 77, np.uint8)
    tint(labels, colour_of, palette, inside, out)
    assert np.array_equal(out, reference(labels, colour_of, palette, inside))


def test_sizes_that_do_not_fit():
    out = np.empty((4, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="one pixel larger"):
        tint(np.zeros((4, 4), np.int32), np.zeros(1, np.uint8), np.zeros((256, 4), np.uint8), 0, out)
    with pytest.raises(ValueError, match="256 colours"):
        tint(np.zeros((6, 6), np.int32), np.zeros(1, np.uint8), np.zeros((255, 4), np.uint8), 0, out)
