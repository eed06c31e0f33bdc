"""Put the planes of finished tiles into the planes of their band: cores as they are, or blended.

Blending adds bytes weighted by whole numbers, whose sum is 65536 at every pixel, and rounds once: so
neither the order of the tiles nor their batches can change a byte. Where a single tile covers a pixel
that changes nothing; such pixels, most of them, are copied. This module checks nothing: callers do, once.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
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


cdef inline void add_row(
    uint32_t* sums, const uint8_t* values, const uint16_t* weights, uint16_t down, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        # The inner product has 16 bits at most: 256 · 255.
        sums[i] += <uint32_t>down * <uint16_t>(weights[i] * values[i])


cdef inline void finish_row(uint32_t* sums, uint8_t* out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = <uint8_t>((sums[i] + 32768) >> 16)
        sums[i] = 0


def add_weighted(
    const uint8_t[:, :, :, ::1] planes, const int64_t[:, ::1] places, Py_ssize_t top, Py_ssize_t height,
    const uint16_t[::1] down, const uint16_t[:, ::1] across, Py_ssize_t alone_y0, Py_ssize_t alone_y1,
    uint32_t[:, :, ::1] sums, uint8_t[:, :, ::1] band, Py_ssize_t row0,
):
    """Add the tiles of a band to the sums, and copy what no other tile covers.

    Parameters
    ----------
    planes
        (N, K, T, T): output of the engine.
    places
        (n, 4) with n <= N: image column of each tile's first pixel, which may lie outside, number of
        the tile in its band, and the image columns ``[x0, x1)`` that no other tile of the band covers.
    top
        Image row of the tiles' first pixels, which may lie outside.
    height
        Rows of the image.
    down
        (T,): weights of the rows of the band's tiles. Over all bands that cover a row of the image
        they sum to 256.
    across
        (columns, T): weights of the columns, by number of the tile; likewise.
    alone_y0, alone_y1
        Image rows ``[y0, y1)`` that no other band covers.
    sums
        (K, T, W): image row y is at ``y mod T``; added to.
    band
        (K, rows, W); filled where rows and columns are both covered by one tile only.
    row0
        Image row of ``band[:, 0]``.
    """
    cdef Py_ssize_t tile = planes.shape[2], width = sums.shape[2]
    cdef Py_ssize_t n, k, r, y, x, begin, end, x0, x1
    cdef const uint8_t* values
    cdef const uint16_t* weights
    cdef uint32_t* target
    with nogil:
        for n in range(places.shape[0]):
            x = places[n, 0]
            weights = &across[places[n, 1], 0]
            begin, end = max(x, 0), min(x + tile, width)
            for k in range(planes.shape[1]):
                for r in range(max(-top, 0), min(height - top, tile)):
                    y = top + r
                    x0 = x1 = end
                    if alone_y0 <= y < alone_y1:
                        x0, x1 = places[n, 2], places[n, 3]
                    values = &planes[n, k, r, 0]
                    target = &sums[k, y % tile, 0]
                    add_row(target + begin, values + (begin - x), weights + (begin - x), down[r], x0 - begin)
                    if x0 < x1:
                        memcpy(&band[k, y - row0, x0], values + (x0 - x), x1 - x0)
                    add_row(target + x1, values + (x1 - x), weights + (x1 - x), down[r], end - x1)


def finish_rows(
    uint32_t[:, :, ::1] sums, Py_ssize_t begin, Py_ssize_t end, const int64_t[:, ::1] shared,
    Py_ssize_t alone_y0, Py_ssize_t alone_y1, uint8_t[:, :, ::1] band,
):
    """Round the sums of finished rows to bytes, and clear them for the rows to come.

    Parameters
    ----------
    sums
        As in :func:`add_weighted`.
    begin, end
        Image rows ``[begin, end)``: those of ``band``.
    shared
        (m, 2): ranges of columns that more than one tile covers.
    alone_y0, alone_y1
        Image rows that no other band covers: there only the shared columns are in the sums.
    band
        (K, end - begin, W); what is not filled by :func:`add_weighted` is filled.
    """
    cdef Py_ssize_t tile = sums.shape[1], width = sums.shape[2], k, y, i, x0, x1
    with nogil:
        for k in range(sums.shape[0]):
            for y in range(begin, end):
                if not alone_y0 <= y < alone_y1:
                    finish_row(&sums[k, y % tile, 0], &band[k, y - begin, 0], width)
                    continue
                for i in range(shared.shape[0]):
                    x0, x1 = shared[i, 0], shared[i, 1]
                    finish_row(&sums[k, y % tile, x0], &band[k, y - begin, x0], x1 - x0)
