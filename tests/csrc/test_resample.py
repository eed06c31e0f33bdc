"""The rescaling kernel against a plain NumPy sum."""

import numpy as np
import pytest

from cellseg.runtime.resample import resample


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_equals_a_plain_sum(dtype, channels):
    rng = np.random.default_rng(0)
    source = (rng.random((20, 30, channels)) * (250 if dtype == "uint8" else 60000)).astype(dtype)
    rows, columns = rng.random((7, 4)).astype(np.float32), rng.random((9, 5)).astype(np.float32)
    rows /= rows.sum(1, keepdims=True)
    columns /= columns.sum(1, keepdims=True)
    row_first, column_first = rng.integers(0, 17, 7), rng.integers(0, 26, 9)
    out = np.empty((7, 9, channels), dtype)
    resample(source, row_first, rows, column_first, columns, out)
    for i in range(7):
        for j in range(9):
            part = source[row_first[i] : row_first[i] + 4, column_first[j] : column_first[j] + 5]
            wanted = np.einsum("klc,k,l->c", part.astype(np.float64), rows[i], columns[j])
            assert np.allclose(out[i, j], wanted, rtol=1e-5, atol=0 if dtype == "float32" else 0.501)


def test_full_scale_stays_in_range():
    for dtype, value in (("uint8", 255), ("uint16", 65535)):
        weights = np.full((1, 3), np.float32(1 / 3)) * np.float32(1.0001)
        out = np.empty((1, 1, 1), dtype)
        at = np.zeros(1, np.int64)
        resample(np.full((3, 3, 1), value, dtype), at, weights, at, weights, out)
        assert out[0, 0, 0] == value
