"""Blocks cut out of rows of labels, against NumPy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.runtime.kernels.chunks import cut


@settings(deadline=None)
@given(st.data())
def test_a_block_is_a_part_of_the_rows(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 30))
    step = data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    labels = rng.integers(-5, 2**31 - 1, (2 * height, step * width)).astype(np.int32)
    labels *= rng.random(labels.shape) < data.draw(st.sampled_from([0.0, 0.01, 0.5]))
    rows = labels[::2, ::step]
    block = np.full((height + data.draw(st.integers(0, 3)), data.draw(st.integers(1, 16))), 7, np.int32)
    x = data.draw(st.integers(0, width - 1))
    wanted = np.zeros_like(block)
    part = rows[:, x : x + block.shape[1]]
    wanted[:height, : part.shape[1]] = part
    assert cut(rows, x, block) == bool(wanted.any())
    assert np.array_equal(block, wanted)
