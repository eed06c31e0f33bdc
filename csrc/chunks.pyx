# cython: language_level=3
"""Blocks of a label image, cut out for those who compress them one by one."""

from libc.stdint cimport int32_t
from libc.string cimport memset


def cut(const int32_t[:, :] rows, Py_ssize_t x, int32_t[:, ::1] block):
    """Copy a block out of rows of labels.

    Parameters
    ----------
    rows
        Shape (h, w), of any strides, h not more than the block has.
    x
        First column of the block, 0 ≤ x < w.
    block
        Shape (n, m): filled from its first row and column on; zero where the rows end before it does.

    Returns
    -------
    bool
        Whether there is anything but zeros in it.
    """
    cdef Py_ssize_t height = rows.shape[0], width = min(rows.shape[1] - x, block.shape[1])
    cdef Py_ssize_t i, j, step = rows.strides[1] // sizeof(int32_t)
    cdef int32_t seen = 0
    cdef const int32_t* source
    cdef int32_t* target
    with nogil:
        for i in range(height):
            source = &rows[i, x]
            target = &block[i, 0]
            if step == 1:
                for j in range(width):
                    target[j] = source[j]
                    seen |= source[j]
            else:
                for j in range(width):
                    target[j] = source[j * step]
                    seen |= target[j]
            memset(target + width, 0, (block.shape[1] - width) * sizeof(int32_t))
        if height < block.shape[0]:
            memset(&block[height, 0], 0, (block.shape[0] - height) * block.shape[1] * sizeof(int32_t))
    return seen != 0
