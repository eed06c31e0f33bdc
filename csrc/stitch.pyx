"""Put the planes of finished tiles into the planes of their band: cores as they are, or blended.

Blending adds bytes weighted by whole numbers, whose sum is 256 · 256 at every pixel, and rounds once: so
neither the order of the tiles nor their batches can change a byte. The tiles of a band are added up in
16 bits, and the bands that cover a row are joined when it is finished. Where a single tile covers a pixel
that changes nothing; such pixels, most of them, are copied. This module checks nothing: callers do, once.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset


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
    uint16_t* sums, const uint8_t* values, const uint16_t* weights, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        sums[i] += <uint16_t>(weights[i] * values[i])  # 256 · 255 at most, as the weights sum to 256


cdef inline void widen_row(uint16_t* sums, const uint8_t* values, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        sums[i] = <uint16_t>(values[i] << 8)


cdef inline void round_row(const uint16_t* sums, uint8_t* out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = <uint8_t>((<uint32_t>sums[i] + 128) >> 8)


cdef inline void join_two(
    const uint16_t* upper, uint32_t by_upper, const uint16_t* lower, uint32_t by_lower, uint8_t* out,
    Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = <uint8_t>((by_upper * upper[i] + by_lower * lower[i] + 32768) >> 16)


cdef inline void clear(uint16_t* sums, const int64_t[:, ::1] ranges) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(ranges.shape[0]):
        memset(sums + ranges[i, 0], 0, (ranges[i, 1] - ranges[i, 0]) * sizeof(uint16_t))


def add_across(
    const uint8_t[:, :, :, ::1] planes, const int64_t[:, ::1] places, Py_ssize_t top, Py_ssize_t height,
    const uint16_t[:, ::1] across, Py_ssize_t alone_y0, Py_ssize_t alone_y1, uint16_t[:, :, ::1] sums,
    uint8_t[:, :, ::1] band, Py_ssize_t row0,
):
    """Add the tiles of a band to the weighted sums of its rows; copy what no other tile covers.

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
    across
        (columns, T): weights of the columns, by number of the tile. Over all tiles that cover a column
        of the image they sum to 256.
    alone_y0, alone_y1
        Image rows ``[y0, y1)`` that no other band covers.
    sums
        (K, T, W), by row of the tile: added to in the columns that several tiles cover, set in the others
        of rows that several bands cover.
    band
        (K, rows, W); filled where rows and columns are both covered by one tile only.
    row0
        Image row of ``band[:, 0]``.
    """
    cdef Py_ssize_t tile = planes.shape[2], width = sums.shape[2]
    cdef Py_ssize_t n, k, r, y, x, begin, end, x0, x1
    cdef const uint8_t* values
    cdef const uint16_t* weights
    cdef uint16_t* target
    with nogil:
        for n in range(places.shape[0]):
            x, x0, x1 = places[n, 0], places[n, 2], places[n, 3]
            weights = &across[places[n, 1], 0]
            begin, end = max(x, 0), min(x + tile, width)
            for k in range(planes.shape[1]):
                for r in range(max(-top, 0), min(height - top, tile)):
                    y = top + r
                    values = &planes[n, k, r, 0]
                    target = &sums[k, r, 0]
                    add_row(target + begin, values + (begin - x), weights + (begin - x), x0 - begin)
                    if x0 < x1:
                        if alone_y0 <= y < alone_y1:
                            memcpy(&band[k, y - row0, x0], values + (x0 - x), x1 - x0)
                        else:
                            widen_row(target + x0, values + (x0 - x), x1 - x0)
                    add_row(target + x1, values + (x1 - x), weights + (x1 - x), end - x1)


def finish_rows(
    uint16_t[:, :, :, ::1] sums, Py_ssize_t index, Py_ssize_t core, Py_ssize_t halo,
    const uint16_t[:, ::1] down, Py_ssize_t begin, Py_ssize_t end, const int64_t[:, ::1] shared,
    Py_ssize_t alone_y0, Py_ssize_t alone_y1, uint32_t[::1] row, uint8_t[:, :, ::1] band,
):
    """Join the bands that cover the finished rows, round to bytes, and clear their sums.

    Parameters
    ----------
    sums
        (n, K, T, W): as :func:`add_across` leaves them, band i in ``sums[i mod n]``. No row is covered
        by more than n bands.
    index
        Number of the last band; its first row is ``index · core - halo``.
    down
        (bands, T): weights of the rows of each band's tiles. Over all bands that cover a row of the
        image they sum to 256.
    begin, end
        Image rows ``[begin, end)``: those of ``band``.
    shared
        (m, 2): ranges of columns that more than one tile covers.
    alone_y0, alone_y1
        Image rows that no other band covers: there only the shared columns are in the sums.
    row
        (W,), scratch.
    band
        (K, end - begin, W); what is not filled by :func:`add_across` is filled.
    """
    cdef Py_ssize_t slots = sums.shape[0], width = sums.shape[3]
    cdef Py_ssize_t k, y, i, b, r, x, x0, x1, first
    cdef uint16_t* own
    cdef uint16_t* above
    cdef uint8_t* out
    cdef uint32_t by
    with nogil:
        for k in range(sums.shape[1]):
            for y in range(begin, end):
                r = y - (index * core - halo)
                own = &sums[index % slots, k, r, 0]
                out = &band[k, y - begin, 0]
                if alone_y0 <= y < alone_y1:
                    for i in range(shared.shape[0]):
                        x0, x1 = shared[i, 0], shared[i, 1]
                        round_row(own + x0, out + x0, x1 - x0)
                    clear(own, shared)
                    continue
                # Band b covers y if y < (b + 1) · core + halo.
                first = (y - halo) // core if y >= halo else 0
                if first == index - 1:
                    above = &sums[first % slots, k, r + core, 0]
                    join_two(above, down[first, r + core], own, down[index, r], out, width)
                else:
                    for x in range(width):
                        row[x] = 32768
                    for b in range(first, index + 1):
                        above = &sums[b % slots, k, r + (index - b) * core, 0]
                        by = down[b, r + (index - b) * core]
                        for x in range(width):
                            row[x] += by * above[x]
                    for x in range(width):
                        out[x] = <uint8_t>(row[x] >> 16)
                for b in range(first, index + 1):
                    clear(&sums[b % slots, k, r + (index - b) * core, 0], shared)
