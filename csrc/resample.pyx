# cython: language_level=3
"""Kernels that bring pixels to another scale: a weighted sum of rows, then of columns.

Every output pixel is summed in the same order whatever region is asked for, so a picture read in
pieces equals the picture read whole, bit for bit. This module knows weights, not where they come from.
"""

from libc.float cimport FLT_MAX
from libc.math cimport fabsf, floorf, rintf
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


cdef inline float usable(Pixel value) noexcept nogil:
    """A value as a float. NaN and infinities are 0: they would spread over all they are averaged with."""
    if Pixel is float:
        return value if fabsf(value) <= FLT_MAX else <float>0
    else:
        return <float>value


cdef inline void add_line(float* line, const Pixel* values, float weight, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        line[i] += weight * usable(values[i])


cdef inline void pack(
    const Pixel* pixels, Pixel* out, Py_ssize_t width, Py_ssize_t channels, Py_ssize_t step, Py_ssize_t apart
) noexcept nogil:
    """Lay pixels ``step`` values from one to the next, whose channels lie ``apart`` values, side by side."""
    cdef Py_ssize_t i, c
    if channels == 3 and apart == 1:
        for i in range(width):
            out[3 * i] = pixels[i * step]
            out[3 * i + 1] = pixels[i * step + 1]
            out[3 * i + 2] = pixels[i * step + 2]
        return
    for i in range(width):
        for c in range(channels):
            out[i * channels + c] = pixels[i * step + c * apart]


cdef inline Pixel rounded(float value, Pixel like) noexcept nogil:
    """A mean of values as one of them."""
    # Sums of many rows may end a little above the largest value.
    if Pixel is float:
        return value
    elif Pixel is uint8_t:
        return <uint8_t>min(rintf(value), <float>255)
    else:
        return <uint16_t>min(rintf(value), <float>65535)


cdef inline void shrink_line(
    const float* line, Pixel* out, Py_ssize_t width, Py_ssize_t out_width, Py_ssize_t channels
) noexcept nogil:
    """Average along a row. In units of ``1 / out_width`` of a source pixel all edges are whole."""
    cdef Py_ssize_t j, c, x, first, last, left, right
    cdef float total, unit = <float>1 / width
    if out_width == width:  # without rounding on the way
        for x in range(width * channels):
            out[x] = rounded(line[x], out[0])
        return
    for j in range(out_width):
        first, last = j * width // out_width, (j + 1) * width // out_width
        left = (first + 1) * out_width - j * width
        right = (j + 1) * width - last * out_width
        for c in range(channels):
            total = left * line[first * channels + c]
            for x in range(first + 1, last):
                total += out_width * line[x * channels + c]
            if right:
                total += right * line[last * channels + c]
            out[j * channels + c] = rounded(total * unit, out[0])


def shrink_rows(
    const Pixel[:, :, :] rows, Py_ssize_t top, Py_ssize_t height, float[::1] line, Pixel[:, :, ::1] out
):
    """Average a picture that comes in rows down to a smaller size, by area.

    Parameters
    ----------
    rows
        The next rows, shape (n, W, channels), of any strides.
    top
        Row of the picture that ``rows[0]`` is.
    height
        Rows of the picture.
    line
        (W · channels,): the row of ``out`` in progress, kept between calls; zeros at first.
    out
        Shape (h, w, channels), neither more rows nor more columns than the picture; filled as far as
        the rows go. Integers are rounded, halves to even.

    Raises
    ------
    MemoryError
        There is no memory for one row.
    """
    cdef Py_ssize_t channels = rows.shape[2], width = rows.shape[1], length = width * channels
    cdef Py_ssize_t r, t, begin, end, edge, i
    cdef Py_ssize_t step = rows.strides[1] // sizeof(Pixel), apart = rows.strides[2] // sizeof(Pixel)
    cdef bint packed = apart == 1 and step == channels
    cdef const Pixel* values
    cdef Pixel* row = <Pixel*>malloc(length * sizeof(Pixel))
    if row == NULL:
        raise MemoryError("no memory to reduce a row")
    with nogil:
        for r in range(rows.shape[0]):
            values = &rows[r, 0, 0]
            if not packed:
                pack(values, row, width, channels, step, apart)
                values = row
            begin = (top + r) * out.shape[0]  # in units of 1 / out.shape[0] of a row
            end = begin + out.shape[0]
            t = begin // height
            edge = (t + 1) * height
            add_line(&line[0], values, <float>(min(end, edge) - begin) / height, length)
            if end < edge:
                continue
            shrink_line(&line[0], &out[t, 0, 0], width, out.shape[1], channels)
            for i in range(length):
                line[i] = 0
            if end > edge:
                add_line(&line[0], values, <float>(end - edge) / height, length)
        free(row)
