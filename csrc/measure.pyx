"""Measurements and outlines of a label image.

The same code that measures cells as they are split, for label images made elsewhere.
"""

import numpy as np
from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cells cimport NO_IMAGE, Results, Sources, columns_of, free_results, look_at_stains, measure_crop
from landscape cimport Span
from vector cimport copied

#: Layout of a cell as the kernels write it.
CELL_DTYPE = np.dtype([
    ("area", np.int64), ("outline_end", np.int64),
    ("centroid_y", np.float64), ("centroid_x", np.float64), ("perimeter", np.float64),
    ("eccentricity", np.float64), ("solidity", np.float64), ("mean_probability", np.float64),
    ("score", np.float64),
    ("y0", np.int32), ("x0", np.int32), ("y1", np.int32), ("x1", np.int32),
    ("first_x", np.int32), ("component", np.int32),
])


def measure_labels(
    const int32_t[:, ::1] labels,
    int count,
    const uintptr_t[::1] image_rows,
    int image_kind,
    int channels,
    const int32_t[:, :, ::1] stain_table=None,
    int stains=0,
):
    """Measure the cells of a whole label image.

    Parameters
    ----------
    labels
        Shape (H, W), numbers 1…count in raster order of their first pixels, each 4-connected (of
        another one only the part with the first pixel is outlined).
    count
        Number of cells.
    image_rows, image_kind, channels, stain_table, stains
        As for ``split.Splitter.process``.

    Returns
    -------
    cells, intensity, outline
        As from ``split.Splitter.process``; ``mean_probability`` and ``score`` are 0.
    """
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1], y
    cdef int64_t stride = width + 1
    cdef int64_t size = (height + 2) * stride + 1
    cdef Results results
    cdef Sources sources
    cdef int32_t* crop = <int32_t*>malloc(size * sizeof(int32_t))
    cdef uint8_t* border = <uint8_t*>malloc(size)
    cdef Span all
    all.begin = stride + 1
    all.end = height * stride + width + 1
    memset(&results, 0, sizeof(Results))
    sources.mask = sources.boundary = sources.density = NULL
    sources.image = &image_rows[0] if image_kind != NO_IMAGE else NULL
    sources.probability = NULL
    sources.row0 = 0
    sources.kind = image_kind
    sources.channels = channels if image_kind != NO_IMAGE else 0
    look_at_stains(&sources, stain_table, stains)
    try:
        if crop == NULL or border == NULL:
            raise MemoryError(f"no memory to measure {height} × {width} labels")
        with nogil:
            memset(crop, 0, size * sizeof(int32_t))
            for y in range(height):
                memcpy(crop + (y + 1) * stride + 1, &labels[y, 0], width * sizeof(int32_t))
            measure_crop(
                crop, border, stride, stride + 1, &all, 1, 0, 0, <int32_t>height, count, 0,
                &sources, &results,
            )
        return (
            copied(results.cells, np.empty(results.size, CELL_DTYPE)),
            copied(results.intensity, np.empty((results.size, columns_of(&sources)), np.float64)),
            copied(results.outline.data, np.empty((results.outline.size // 2, 2), np.int32)),
        )
    finally:
        free(crop)
        free(border)
        free_results(&results)
