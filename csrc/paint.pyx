"""Numbers into label images, run by run."""

import numpy as np
from libc.stdint cimport int32_t, uint8_t, uintptr_t
from libc.string cimport memset

from runs cimport CellRun, Component, Run
from vector cimport Vector, free_vector, reserve

from .label import RunLabeler


cdef struct Batch:
    const CellRun* runs
    const int32_t* numbers  # by cell
    Py_ssize_t n


cdef class Painter:
    """Writes the numbers of cells into label images; several threads may do so at once.

    Parameters
    ----------
    batches
        Of runs, :data:`~cellseg.runtime.kernels.split.CELL_RUN_DTYPE`, and numbers, int32, one a cell. They
        live as long as this and do not change.
    """

    cdef Vector batches  # of Batch
    cdef list owners

    def __cinit__(self, list batches):
        cdef const CellRun[::1] runs
        cdef const int32_t[::1] numbers
        cdef Batch* batch
        self.owners = batches
        for runs, numbers in batches:
            batch = <Batch*>reserve(&self.batches, 1, sizeof(Batch), b"batches of cells")
            batch.runs, batch.n, batch.numbers = &runs[0], runs.shape[0], &numbers[0]
            self.batches.size += 1

    def __dealloc__(self):
        free_vector(&self.batches)

    def paint(self, int32_t[:, ::1] labels, Py_ssize_t y):
        """Clear rows of a label image and write what lies in them.

        Parameters
        ----------
        labels
            Shape (rows, width); changed in place.
        y
            Row of the image that is ``labels[0]``.
        """
        cdef const Batch* batch
        cdef Py_ssize_t b, i, x, row, rows = labels.shape[0], width = labels.shape[1]
        cdef int32_t number
        cdef int32_t* target
        with nogil:
            memset(&labels[0, 0], 0, rows * width * sizeof(int32_t))
            for b in range(self.batches.size):
                batch = <const Batch*>self.batches.data + b
                for i in range(batch.n):
                    row = batch.runs[i].y - y
                    if 0 <= row < rows:
                        number = batch.numbers[batch.runs[i].cell]
                        target = &labels[0, 0] + row * width
                        for x in range(batch.runs[i].x0, batch.runs[i].x1):
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
