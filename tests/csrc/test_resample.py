"""The rescaling kernel against a plain NumPy sum."""

import numpy as np
import pytest

from cellseg.runtime.kernels.resample import resample, shrink_rows


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


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_rows_shrink_the_same_whatever_their_strides(dtype):
    rng = np.random.default_rng(0)
    large = (rng.random((40, 60, 4)) * 250).astype(dtype)
    large[3, 5, 1] = 0
    thin = large[1::2, ::2, 3:0:-1]
    sums = []
    for rows in (thin, np.ascontiguousarray(thin)):
        out, line = np.zeros((7, 11, 3), dtype), np.zeros(90, np.float32)
        shrink_rows(rows[:9], 0, 20, line, out)
        shrink_rows(rows[9:], 9, 20, line, out)
        sums.append(out)
    assert np.array_equal(*sums)
    exact = np.repeat(np.repeat(thin.astype(np.float64), 7, axis=0), 11, axis=1)
    wanted = exact.reshape(7, 20, 11, 30, 3).mean((1, 3))
    assert np.allclose(sums[0], wanted, rtol=1e-5, atol=0 if dtype == "float32" else 0.501)


def test_what_is_no_number_counts_as_nothing():
    rows = np.array([[[np.nan], [2.0], [np.inf], [6.0]]], np.float32)
    out, line = np.zeros((1, 2, 1), np.float32), np.zeros(4, np.float32)
    shrink_rows(rows, 0, 1, line, out)
    assert out.ravel().tolist() == [1.0, 3.0]
