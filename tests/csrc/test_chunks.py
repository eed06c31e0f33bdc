"""Blocks cut out of rows of labels, against NumPy."""

import google_crc32c
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.runtime.kernels.chunks import crc32c, cut, thin


@settings(deadline=None)
@given(st.data())
def test_a_block_is_a_part_of_the_rows(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 30))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    labels = rng.integers(-5, 2**31 - 1, (2 * height, width)).astype(np.int32)
    labels *= rng.random(labels.shape) < data.draw(st.sampled_from([0.0, 0.01, 0.5]))
    rows = labels[::2]
    block = np.full((height + data.draw(st.integers(0, 3)), data.draw(st.integers(1, 16))), 7, np.int32)
    x, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, len(block) - height))
    wanted = block.copy()
    part = rows[:, x : x + block.shape[1]]
    wanted[top : top + height] = 0
    wanted[top : top + height, : part.shape[1]] = part
    assert cut(rows, x, block, top) == bool(part.any())
    assert np.array_equal(block, wanted)


@given(st.integers(0, 5), st.integers(0, 4))
def test_every_second_row_and_column(rows: int, columns: int) -> None:
    block = np.arange(80, dtype=np.int32).reshape(10, 8)
    out = np.full((rows + 2, columns + 2), -1, np.int32)
    thin(block, out[1 : rows + 1, 1 : columns + 1])
    wanted = np.full_like(out, -1)
    wanted[1 : rows + 1, 1 : columns + 1] = block[: 2 * rows : 2, : 2 * columns : 2]
    assert np.array_equal(out, wanted)


@given(st.binary(max_size=300))
def test_checksum(data: bytes) -> None:
    assert crc32c(data) == google_crc32c.value(data)
