"""Copy the cores of finished tiles into the planes of their band.

This module checks nothing: callers do, once.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy


def stitch(
    const uint8_t[:, :, :, ::1] planes, const int64_t[:, ::1] cores, Py_ssize_t halo, uint8_t[:, :, ::1] band
):
    """Copy one core per tile.

    Parameters
    ----------
    planes
        (N, K, T, T): output of the engine.
    cores
        (n, 4) with n <= N: row inside the band, column, height and width of each core.
    halo
        Row and column of a core inside its tile.
    band
        (K, rows, W); the cores' rectangles are overwritten, the rest is left.
    """
    cdef Py_ssize_t n, k, r, y, x, height, width
    with nogil:
        for n in range(cores.shape[0]):
            y, x, height, width = cores[n, 0], cores[n, 1], cores[n, 2], cores[n, 3]
            for k in range(planes.shape[1]):
                for r in range(height):
                    memcpy(&band[k, y + r, x], &planes[n, k, halo + r, halo], width)
