"""Nuclei grown into cells: each pixel about them belongs to the nearest, as far as a limit allows.

Distances are between centres of pixels, squared, in whole numbers, so nothing is rounded; of two nuclei that
are equally near the lower number wins. A pixel depends on the labels within the limit about it and on nothing
else, so the result does not depend on where an image is cut, if as many rows are known beyond the cut.

The cells are then measured one by one, with the code that measures nuclei.
"""

import numpy as np
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cells cimport (
    NO_IMAGE, Results, Sources, add_intensity, add_stains, columns_of, finish_values, free_results,
    look_at_stains, measure_crop,
)
from landscape cimport Span
from vector cimport copied

from .measure import CELL_DTYPE

cdef enum:
    FAR = 65535  # no label in this direction


def expand(
    const int32_t[:, ::1] labels,
    Py_ssize_t begin,
    Py_ssize_t end,
    Py_ssize_t x0,
    Py_ssize_t x1,
    int limit,
    int32_t[:, ::1] out,
):
    """Grow the labels of a window of rows, in a part of it.

    Source: the two passes of T. Hirata, *A unified linear-time algorithm for computing distance maps*, 1996: the
    nearest label of each column, then the nearest of these. The second pass looks no farther than what it has
    found, which for short distances is faster than his envelope, and keeps ties exact.

    Parameters
    ----------
    labels
        Shape (rows, W): 0 is background. What lies outside is background too.
    begin, end, x0, x1
        The part that is computed; only its own pixels of ``out`` are written.
    limit
        Largest squared distance, below 2^31 and of less than 65,535 pixels.
    out
        Shape (rows, W): the labels, and about them those of the nearest pixel with one, the lower of two that
        are equally near; 0 beyond the limit.
    """
    cdef Py_ssize_t rows = labels.shape[0], width = labels.shape[1]
    cdef int32_t reach = 0
    cdef Py_ssize_t left, n
    cdef uint16_t* below
    cdef int32_t* row
    while <int64_t>(reach + 1) * (reach + 1) <= limit:
        reach += 1
    left = max(0, x0 - reach)
    n = min(width, x1 + reach) - left
    if end <= begin or x1 <= x0:
        return
    below = <uint16_t*>malloc((end - begin) * n * sizeof(uint16_t))
    row = <int32_t*>malloc(4 * n * sizeof(int32_t))
    try:
        if below == NULL or row == NULL:
            raise MemoryError(f"no memory to grow {end - begin} rows of cells")
        with nogil:
            _expand(
                &labels[0, 0], rows, width, begin, end, left, n, x0, x1, reach, limit, below, row, &out[0, 0]
            )
    finally:
        free(below)
        free(row)


cdef void _expand(
    const int32_t* labels, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t left, Py_ssize_t n, Py_ssize_t x0, Py_ssize_t x1, int32_t reach, int32_t limit,
    uint16_t* below, int32_t* row, int32_t* out,
) noexcept nogil:
    cdef int32_t* above = row  # rows up to the last label, by column
    cdef int32_t* height = row + n  # squared distance to the nearest label of the column, or limit + 1
    cdef int32_t* near = row + 2 * n  # that label
    cdef int32_t* gap = row + 3 * n  # columns to the nearest one with a label
    cdef const int32_t* at
    cdef uint16_t* down
    cdef Py_ssize_t y, x
    cdef int32_t up, low, other, last
    # Distances to the label below, from the bottom up; rows behind the end only begin them.
    for x in range(n):
        above[x] = FAR
    for y in range(min(rows, end + reach) - 1, begin - 1, -1):
        at = labels + y * width + left
        down = below + (y - begin) * n
        for x in range(n):
            above[x] = 0 if at[x] else min(above[x] + 1, FAR)
        if y < end:
            for x in range(n):
                down[x] = <uint16_t>above[x]
    for x in range(n):
        above[x] = FAR
    for y in range(max(0, begin - reach), end):
        at = labels + y * width + left
        for x in range(n):
            above[x] = 0 if at[x] else min(above[x] + 1, FAR)
        if y < begin:
            continue
        down = below + (y - begin) * n
        last = reach + 1
        for x in range(n):
            up, low = above[x], down[x]
            height[x] = limit + 1
            near[x] = 0
            last = min(last + 1, reach + 1)
            if min(up, low) <= reach:
                height[x] = min(up, low) * min(up, low)
                near[x] = at[x - up * width] if up <= low else at[x + low * width]
                if up == low and up:
                    other = at[x + low * width]
                    near[x] = min(near[x], other)
                last = 0
            gap[x] = last
        last = reach + 1
        for x in range(n - 1, -1, -1):
            last = 0 if gap[x] == 0 else min(last + 1, reach + 1)
            gap[x] = min(gap[x], last)
        _nearest(height, near, gap, n, x0 - left, x1 - left, reach, limit, out + y * width + left)


cdef inline void _nearest(
    const int32_t* height, const int32_t* near, const int32_t* gap, Py_ssize_t n, Py_ssize_t x0, Py_ssize_t x1,
    int32_t reach, int32_t limit, int32_t* out,
) noexcept nogil:
    """Of the columns' nearest labels, take the nearest of each pixel of a row."""
    cdef Py_ssize_t x
    cdef int32_t best, label, d, square, found
    for x in range(x0, x1):
        if gap[x] > reach or height[x] == 0:
            out[x] = near[x]
            continue
        best, label = height[x], near[x]
        for d in range(max(gap[x], 1), reach + 1):
            square = d * d
            if square > best:
                break
            if x >= d:
                found = square + height[x - d]
                if found < best or (found == best and near[x - d] < label):
                    best, label = found, near[x - d]
            if x + d < n:
                found = square + height[x + d]
                if found < best or (found == best and near[x + d] < label):
                    best, label = found, near[x + d]
        out[x] = label if best <= limit else 0


def measure_cells(
    const int32_t[:, ::1] nuclei,
    int32_t[:, ::1] cells,
    Py_ssize_t row0,
    const int32_t[::1] labels,
    const int32_t[:, ::1] boxes,
    const uintptr_t[::1] image_rows,
    int image_kind,
    int channels,
    const int32_t[:, :, ::1] stain_table=None,
    int stains=0,
):
    """Measure and outline cells, and take out of them what does not hang together with the nucleus.

    Three nuclei about one pixel can leave it with the one that it touches by a corner only; an outline could
    not enclose it. Such pixels become background.

    Parameters
    ----------
    nuclei, cells
        Shape (rows, W): windows of both label images. The strays of the cells given are written to ``cells``.
    row0
        Row of the image that they, and the first address, belong to.
    labels, boxes
        Shapes (n,) and (n, 4): numbers, and y0, x0, y1, x1 in the image, which hold all pixels of the cells
        and lie in the window.
    image_rows, image_kind, channels, stain_table, stains
        As for ``split.Splitter.process``.

    Returns
    -------
    found : ndarray of CELL_DTYPE, shape (n,)
    values : ndarray of float64, shape (n, columns)
        Of the whole cells, as from ``split.Splitter.process``.
    outline : ndarray of int32, shape (P, 2)
    ring_area : ndarray of int64, shape (n,)
        Pixels of a cell that are not its nucleus.
    ring_values : ndarray of float64, shape (n, columns)
        Of these pixels; not a number where there are none.
    """
    cdef Results results
    cdef Sources sources
    cdef Py_ssize_t i, n = labels.shape[0]
    cdef int64_t largest = 0
    cdef int columns
    cdef int32_t* crop = NULL
    for i in range(n):
        largest = max(
            largest, <int64_t>(boxes[i, 2] - boxes[i, 0] + 2) * (boxes[i, 3] - boxes[i, 1] + 2) + 1
        )
    memset(&results, 0, sizeof(Results))
    sources.mask = sources.boundary = sources.density = NULL
    sources.image = &image_rows[0] if image_kind != NO_IMAGE else NULL
    sources.probability = NULL
    sources.row0 = row0
    sources.kind = image_kind
    sources.channels = channels if image_kind != NO_IMAGE else 0
    look_at_stains(&sources, stain_table, stains)
    columns = columns_of(&sources)
    ring_area = np.zeros(n, np.int64)
    ring_values = np.zeros((n, columns), np.float64)
    cdef int64_t[::1] areas = ring_area
    cdef double[:, ::1] rings = ring_values
    try:
        crop = <int32_t*>malloc((2 * largest + 1) * sizeof(int32_t) + largest)
        if crop == NULL:
            raise MemoryError(f"no memory to measure cells of {largest} pixels")
        with nogil:
            for i in range(n):
                _measure_one(
                    &nuclei[0, 0], &cells[0, 0], nuclei.shape[1], row0, labels[i], &boxes[i, 0], crop,
                    crop + largest, <uint8_t*>(crop + 2 * largest + 1), &sources, &results,
                    &areas[i], &rings[i, 0] if columns else NULL,
                )
        found = copied(results.cells, np.empty(results.size, CELL_DTYPE))
        values = copied(results.intensity, np.empty((results.size, columns), np.float64))
        outline = copied(results.outline.data, np.empty((results.outline.size // 2, 2), np.int32))
    finally:
        free(crop)
        free_results(&results)
    ring_values[ring_area == 0] = np.nan
    return found, values, outline, ring_area, ring_values


cdef int _measure_one(
    const int32_t* nuclei, int32_t* cells, Py_ssize_t width, Py_ssize_t row0, int32_t label,
    const int32_t* box, int32_t* crop, int32_t* stack, uint8_t* border, const Sources* sources,
    Results* results, int64_t* ring_area, double* ring,
) except -1 nogil:
    cdef int32_t y0 = box[0], x0 = box[1], height = box[2] - box[0], w = box[3] - box[1], y, x, start
    cdef int64_t stride = w + 1, begin = stride + 1, at, size = 0, side, next
    cdef const int32_t* nucleus
    cdef int32_t* cell
    cdef bint first = True
    cdef Span whole
    # 2: a pixel of the cell; 1: one that was reached from the nucleus.
    memset(crop, 0, ((height + 2) * stride + 1) * sizeof(int32_t))
    for y in range(height):
        nucleus = nuclei + (y0 + y - row0) * width + x0
        cell = cells + (y0 + y - row0) * width + x0
        at = begin + y * stride
        for x in range(w):
            if nucleus[x] == label:
                crop[at + x] = 1
                stack[size] = <int32_t>(at + x)
                size += 1
            elif cell[x] == label:
                crop[at + x] = 2
    while size:
        size -= 1
        at = stack[size]
        for side in range(4):
            next = at + (1 if side == 0 else -1 if side == 1 else stride if side == 2 else -stride)
            if crop[next] == 2:
                crop[next] = 1
                stack[size] = <int32_t>next
                size += 1
    for y in range(height):
        nucleus = nuclei + (y0 + y - row0) * width + x0
        cell = cells + (y0 + y - row0) * width + x0
        at = begin + y * stride
        x = 0
        while x < w:
            if crop[at + x] == 2:
                crop[at + x] = 0
                cell[x] = 0
            if crop[at + x] == 0 or nucleus[x] == label:
                x += 1
                continue
            start = x
            while x < w and crop[at + x] == 1 and nucleus[x] != label:
                x += 1
            ring_area[0] += x - start
            if sources.kind != NO_IMAGE:
                add_intensity(sources, y0 + y, x0 + start, x0 + x, ring)
                if sources.stains:
                    add_stains(sources, y0 + y, x0 + start, x0 + x, ring + sources.channels, first)
            first = False
    if ring_area[0] and sources.kind != NO_IMAGE:
        finish_values(sources, ring, ring_area[0])
    whole.begin = begin
    whole.end = height * stride + w + 1
    measure_crop(crop, border, stride, begin, &whole, 1, y0, x0, height, 1, 0, sources, results)
    return 0
