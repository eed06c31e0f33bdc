# cython: language_level=3
"""Kernel that brings pixels to another scale: a weighted sum of rows, then of columns.

Every output pixel is summed in the same order whatever region is asked for, so a picture read in
pieces equals the picture read whole, bit for bit. This module knows weights, not where they come from.
"""

from libc.math cimport floorf
from libc.stdint cimport int64_t, uint8_t, uint16_t
from libc.stdlib cimport free, malloc

ctypedef fused Pixel:
    uint8_t
    uint16_t
    float


def resample(
    const Pixel[:, :, ::1] source,
    const int64_t[::1] row_first,
    const float[:, ::1] row_weights,
    const int64_t[::1] column_first,
    const float[:, ::1] column_weights,
    Pixel[:, :, ::1] out,
):
    """Compute ``out[i, j] = Σ_k Σ_l row_weights[i, k] · column_weights[j, l] · source[…]``.

    Parameters
    ----------
    source
        Shape (h, w, channels).
    row_first, row_weights
        Shapes (H,) and (H, taps): output row i is made of the source rows ``row_first[i] + k``, all of
        them inside the source.
    column_first, column_weights
        The same for columns, shapes (W,) and (W, taps).
    out
        Shape (H, W, channels); integers are rounded.

    Raises
    ------
    MemoryError
        There is no memory for one row of the source as float32.
    """
    cdef Py_ssize_t i, j, k, x, c, first
    cdef Py_ssize_t channels = source.shape[2], length = source.shape[1] * source.shape[2]
    cdef float weight, total
    cdef const Pixel* line
    cdef float* row = <float*>malloc(length * sizeof(float))
    if row == NULL:
        raise MemoryError("no memory to rescale a row")
    with nogil:
        for i in range(out.shape[0]):
            for x in range(length):
                row[x] = 0
            for k in range(row_weights.shape[1]):
                weight = row_weights[i, k]
                line = &source[row_first[i] + k, 0, 0]
                for x in range(length):
                    row[x] += weight * <float>line[x]
            for j in range(out.shape[1]):
                first = column_first[j] * channels
                for c in range(channels):
                    total = 0
                    for k in range(column_weights.shape[1]):
                        total += column_weights[j, k] * row[first + k * channels + c]
                    if Pixel is float:
                        out[i, j, c] = total
                    else:
                        # Weights are positive and sum to one up to rounding.
                        total = floorf(total + 0.5)
                        if Pixel is uint8_t:
                            out[i, j, c] = <uint8_t>(255 if total > 255 else total)
                        else:
                            out[i, j, c] = <uint16_t>(65535 if total > 65535 else total)
        free(row)
