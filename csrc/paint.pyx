"""Numbers into label images, run by run."""

import numpy as np
from libc.stdint cimport int32_t, uint8_t, uintptr_t

from runs cimport CellRun, Component, Run

from .label import RunLabeler


def paint(int32_t[:, ::1] labels, Py_ssize_t y, const CellRun[::1] runs, const int32_t[::1] numbers):
    """Write the numbers of cells into an image.

    Parameters
    ----------
    labels
        Shape (rows, width); changed in place.
    y
        Row of the image that is ``labels[0]``.
    runs
        :data:`~cellseg.runtime.kernels.split.CELL_RUN_DTYPE`; rows outside ``labels`` are left out.
    numbers
        Number to write, by cell.
    """
    cdef Py_ssize_t i, x, row
    cdef int32_t number
    cdef int32_t* target
    with nogil:
        for i in range(runs.shape[0]):
            row = runs[i].y - y
            if 0 <= row < labels.shape[0]:
                number = numbers[runs[i].cell]
                target = &labels[row, 0]
                for x in range(runs[i].x0, runs[i].x1):
                    target[x] = number


def label_image(const uint8_t[:, ::1] mask, int threshold=1, int connectivity=8):
    """Label the connected components of a whole image.

    Parameters
    ----------
    mask
        Shape (H, W).
    threshold
        Smallest byte that counts as foreground.
    connectivity
        8 or 4.

    Returns
    -------
    labels : ndarray of int32, shape (H, W)
        0 for background, 1…n in raster order of the first pixel.
    count : int
        n.
    """
    cdef Py_ssize_t height = mask.shape[0], width = mask.shape[1], i, j, x
    cdef int32_t* target
    cdef const Component[::1] components
    cdef const Run[::1] runs
    cdef int32_t[:, ::1] out
    labels = np.zeros((height, width), np.int32)
    if height == 0 or width == 0:
        return labels, 0
    labeler = RunLabeler(width, threshold, connectivity)
    labeler.push(<uintptr_t>&mask[0, 0] + np.arange(height, dtype=np.uintp) * <size_t>width)
    components, runs = labeler.take(True)
    out = labels
    with nogil:
        for i in range(components.shape[0]):
            for j in range(components[i].run_begin, components[i].run_end):
                target = &out[runs[j].y, 0]
                for x in range(runs[j].x0, runs[j].x1):
                    target[x] = <int32_t>i + 1
    return labels, components.shape[0]
