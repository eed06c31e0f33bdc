# cython: language_level=3
"""Blocks of a label image, cut out for those who compress them one by one."""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memset


cdef extern from *:
    """
    #include <stdint.h>
    /* CRC-32C (Castagnoli), reflected, by a table of half bytes: what is summed up is short. */
    static uint32_t cellseg_crc32c(const uint8_t *data, Py_ssize_t n)
    {
        static const uint32_t table[16] = {
            0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
            0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75
        };
        uint32_t crc = 0xffffffff;
        for (Py_ssize_t i = 0; i < n; i++) {
            crc ^= data[i];
            crc = crc >> 4 ^ table[crc & 15];
            crc = crc >> 4 ^ table[crc & 15];
        }
        return crc ^ 0xffffffff;
    }
    """
    uint32_t cellseg_crc32c(const uint8_t* data, Py_ssize_t n) noexcept nogil


def cut(const int32_t[:, :] rows, Py_ssize_t x, int32_t[:, ::1] block, Py_ssize_t top=0):
    """Copy rows of a block out of rows of labels.

    Parameters
    ----------
    rows
        Shape (h, w), each row contiguous.
    x
        First column of the block, 0 ≤ x < w.
    block
        Shape (n, m): filled from row ``top`` and its first column on; zero where the rows end before it
        does to the right.
    top
        Row of the block that the first row goes to; ``top`` + h is at most n.

    Returns
    -------
    bool
        Whether there is anything but zeros in them.
    """
    cdef Py_ssize_t width = min(rows.shape[1] - x, block.shape[1]), i, j
    cdef int32_t seen = 0
    cdef const int32_t* source
    cdef int32_t* target
    with nogil:
        for i in range(rows.shape[0]):
            source = &rows[i, x]
            target = &block[top + i, 0]
            for j in range(width):
                target[j] = source[j]
                seen |= source[j]
            memset(target + width, 0, (block.shape[1] - width) * sizeof(int32_t))
    return seen != 0


def thin(const int32_t[:, ::1] block, int32_t[:, :] out):
    """Copy every second row and column, from the first ones on, as many as ``out`` has."""
    cdef Py_ssize_t i, j
    cdef const int32_t* source
    cdef int32_t* target
    with nogil:
        for i in range(out.shape[0]):
            source = &block[2 * i, 0]
            target = &out[i, 0]
            for j in range(out.shape[1]):
                target[j] = source[2 * j]


def crc32c(const uint8_t[::1] data):
    """Return the CRC-32C of some bytes."""
    cdef uint32_t crc
    with nogil:
        crc = cellseg_crc32c(&data[0], data.shape[0])
    return crc
