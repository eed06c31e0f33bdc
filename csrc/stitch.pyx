"""Put the planes of finished tiles into the planes of their band: cores as they are, or blended.

Blending adds bytes weighted by whole numbers, whose sum is 256 · 256 at every pixel, and rounds once: so
neither the order of the tiles nor their batches can change a byte. Where a single tile covers a pixel that
changes nothing; such pixels, most of them, are copied. The bytes of the others are kept until all tiles that
cover them are there, and then added up row by row, in sums that stay in the cache. This module checks
nothing: callers do, once.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from ahead cimport ask
from widths cimport take_width


cdef extern from *:
    """
    #include "widths.h"

    /* Bytes mixed by weights that sum to 256 (of each pair), rounded once. */
    #define CELLSEG_LOOPS(suffix, attribute)                                                          \\
        attribute static void cellseg_mix_columns_##suffix(                                           \\
            const uint8_t *restrict left, const uint16_t *restrict by_left,                           \\
            const uint8_t *restrict right, const uint16_t *restrict by_right,                         \\
            uint8_t *restrict out, ptrdiff_t n) {                                                     \\
            for (ptrdiff_t i = 0; i < n; i++) {                                                       \\
                uint16_t sum = (uint16_t)(by_left[i] * left[i] + by_right[i] * right[i] + 128);       \\
                out[i] = (uint8_t)(sum >> 8);                                                         \\
            }                                                                                         \\
        }                                                                                             \\
        attribute static void cellseg_mix_rows_##suffix(                                              \\
            const uint8_t *restrict upper, uint16_t by_upper, const uint8_t *restrict lower,          \\
            uint16_t by_lower, uint8_t *restrict out, ptrdiff_t n) {                                  \\
            for (ptrdiff_t i = 0; i < n; i++) {                                                       \\
                uint16_t sum = (uint16_t)(by_upper * upper[i] + by_lower * lower[i] + 128);           \\
                out[i] = (uint8_t)(sum >> 8);                                                         \\
            }                                                                                         \\
        }                                                                                             \\
        attribute static void cellseg_mix_four_##suffix(                                              \\
            const uint8_t *restrict upper_left, const uint8_t *restrict upper_right, uint32_t by_upper,\\
            const uint8_t *restrict lower_left, const uint8_t *restrict lower_right, uint32_t by_lower,\\
            const uint16_t *restrict by_left, const uint16_t *restrict by_right,                      \\
            uint8_t *restrict out, ptrdiff_t n) {                                                     \\
            for (ptrdiff_t i = 0; i < n; i++) {                                                       \\
                uint16_t upper = (uint16_t)(by_left[i] * upper_left[i] + by_right[i] * upper_right[i]);\\
                uint16_t lower = (uint16_t)(by_left[i] * lower_left[i] + by_right[i] * lower_right[i]);\\
                out[i] = (uint8_t)((by_upper * upper + by_lower * lower + 32768) >> 16);              \\
            }                                                                                         \\
        }
    CELLSEG_EVERY_WIDTH(CELLSEG_LOOPS)

    static void (*cellseg_mix_columns)(
        const uint8_t *, const uint16_t *, const uint8_t *, const uint16_t *, uint8_t *, ptrdiff_t);
    static void (*cellseg_mix_rows)(
        const uint8_t *, uint16_t, const uint8_t *, uint16_t, uint8_t *, ptrdiff_t);
    static void (*cellseg_mix_four)(
        const uint8_t *, const uint8_t *, uint32_t, const uint8_t *, const uint8_t *, uint32_t,
        const uint16_t *, const uint16_t *, uint8_t *, ptrdiff_t);
    static void cellseg_pick(int level) {
        cellseg_mix_columns = CELLSEG_PICK(level, cellseg_mix_columns);
        cellseg_mix_rows = CELLSEG_PICK(level, cellseg_mix_rows);
        cellseg_mix_four = CELLSEG_PICK(level, cellseg_mix_four);
    }
    """
    void cellseg_mix_columns(
        const uint8_t *, const uint16_t *, const uint8_t *, const uint16_t *, uint8_t *, Py_ssize_t
    ) noexcept nogil
    void cellseg_mix_rows(
        const uint8_t *, uint16_t, const uint8_t *, uint16_t, uint8_t *, Py_ssize_t
    ) noexcept nogil
    void cellseg_mix_four(
        const uint8_t *, const uint8_t *, uint32_t, const uint8_t *, const uint8_t *, uint32_t,
        const uint16_t *, const uint16_t *, uint8_t *, Py_ssize_t
    ) noexcept nogil
    void cellseg_pick(int level)


def use_instructions(level=None):
    """Choose the instruction set: 0 baseline, 1 AVX2, 2 and more AVX-512.

    Default and limit: what this CPU has.

    Returns the level chosen. Every level gives the same bytes; tests try them all.
    """
    return take_width(level, cellseg_pick)


use_instructions()


cdef enum:
    AHEAD = 4  # rows below, whose shared columns are asked for early: a few bytes each


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


cdef inline void round_row(const uint32_t* sums, uint8_t* out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = <uint8_t>(sums[i] >> 16)  # the sums begin at half of 1 << 16


cdef inline void mix_seams(
    const uint8_t[:, :, :, ::1] kept, Py_ssize_t k, Py_ssize_t r, const int64_t[:, ::1] columns,
    const uint16_t[:, ::1] across, uint8_t* out
) noexcept nogil:
    """Fill what two tiles share of row ``r``, where no column is covered by more."""
    cdef Py_ssize_t i, x, end, edge = kept.shape[3]
    cdef const uint8_t* left
    cdef const uint8_t* right
    for i in range(columns.shape[0] - 1):
        x, end = columns[i, 4], columns[i + 1, 3]
        left, right = &kept[i, k, r, x - columns[i, 0]], &kept[i + 1, k, r, x - columns[i + 1, 0]]
        ask(left + AHEAD * edge, end - x)
        ask(right + AHEAD * edge, end - x)
        cellseg_mix_columns(
            left, &across[i, x - columns[i, 0]], right, &across[i + 1, x - columns[i + 1, 0]], out + x, end - x
        )


cdef inline void mix_bands(
    const uint8_t[:, :, :, ::1] upper, Py_ssize_t upper_row, uint16_t by_upper,
    const uint8_t[:, :, :, ::1] lower, Py_ssize_t lower_row, uint16_t by_lower, Py_ssize_t k,
    const int64_t[:, ::1] columns, const uint16_t[:, ::1] across, uint8_t* out
) noexcept nogil:
    """Fill a row that two bands cover, where no column is covered by more than two tiles of either."""
    cdef Py_ssize_t i, x, end, right
    cdef const uint8_t* above
    cdef const uint8_t* below
    for i in range(columns.shape[0]):
        x, end = columns[i, 3], columns[i, 4]
        above, below = &upper[i, k, upper_row, 0] - columns[i, 0], &lower[i, k, lower_row, 0] - columns[i, 0]
        cellseg_mix_rows(above + x, by_upper, below + x, by_lower, out + x, end - x)
        if i + 1 == columns.shape[0]:
            break
        x, end = end, columns[i + 1, 3]
        right = x - columns[i + 1, 0]
        cellseg_mix_four(
            above + x, &upper[i + 1, k, upper_row, right], by_upper,
            below + x, &lower[i + 1, k, lower_row, right], by_lower,
            &across[i, x - columns[i, 0]], &across[i + 1, right], out + x, end - x
        )


cdef inline void add_tiles(
    uint16_t* sums, const uint8_t[:, :, :, ::1] kept, Py_ssize_t k, Py_ssize_t r,
    const int64_t[:, ::1] columns, const uint16_t[:, ::1] across, const int64_t[:, ::1] shared, bint whole
) noexcept nogil:
    """Sum the tiles of a band in row ``r`` of plane ``k``: in the shared columns, or in all of them."""
    cdef Py_ssize_t i, x, begin, end, x0, x1
    cdef const uint8_t* values
    cdef const uint16_t* weights
    for i in range(shared.shape[0]):
        memset(sums + shared[i, 0], 0, (shared[i, 1] - shared[i, 0]) * sizeof(uint16_t))
    for i in range(columns.shape[0]):
        x, begin, end, x0, x1 = columns[i, 0], columns[i, 1], columns[i, 2], columns[i, 3], columns[i, 4]
        values = &kept[i, k, r, 0] - x
        weights = &across[i, 0]
        add_row(sums + begin, values + begin, weights + (begin - x), x0 - begin)
        if whole:
            widen_row(sums + x0, values + x0, x1 - x0)
        add_row(sums + x1, values + x1, weights + (x1 - x), end - x1)


def keep(
    const uint8_t[:, :, :, ::1] planes, const int64_t[::1] which, Py_ssize_t index, Py_ssize_t core,
    Py_ssize_t halo, Py_ssize_t height, const int64_t[:, ::1] columns, Py_ssize_t alone_y0,
    Py_ssize_t alone_y1, uint8_t[:, :, :, :, ::1] kept, uint8_t[:, :, ::1] band, Py_ssize_t row0,
):
    """Copy the tiles of a band: what no other tile covers to where it belongs, the rest to be added up.

    Parameters
    ----------
    planes
        (N, K, T, T): output of the engine.
    which
        (n,) with n <= N: number of each tile in its band.
    index
        Number of the band; its first row is ``index · core - halo``.
    height
        Rows of the image.
    columns
        (tiles of a band, 5): image column of the tile's first pixel, which may lie outside; columns
        ``[begin, end)`` that it covers; columns ``[x0, x1)`` that no other tile of the band covers.
    alone_y0, alone_y1
        Image rows ``[y0, y1)`` that no other band covers.
    kept
        (b, tiles of a band, K, T, T): tile i of the band goes to ``kept[index mod b, i]``, each pixel to its
        place. No row is covered by more than b bands. In rows that no other band covers only the shared
        columns are filled.
    band
        (K, rows, W); filled where rows and columns are both covered by one tile only.
    row0
        Image row of ``band[:, 0]``.
    """
    cdef Py_ssize_t tile = planes.shape[2], slots = kept.shape[0], top = index * core - halo
    cdef Py_ssize_t n, i, k, r, y, x, begin, end, x0, x1
    cdef const uint8_t* values
    cdef uint8_t* target
    with nogil:
        for n in range(which.shape[0]):
            i = which[n]
            x, begin, end, x0, x1 = columns[i, 0], columns[i, 1], columns[i, 2], columns[i, 3], columns[i, 4]
            for k in range(planes.shape[1]):
                for r in range(max(-top, 0), min(height - top, tile)):
                    y = top + r
                    values = &planes[n, k, r, 0] - x
                    target = &kept[index % slots, i, k, r, 0] - x
                    if alone_y0 <= y < alone_y1:
                        memcpy(target + begin, values + begin, x0 - begin)
                        memcpy(&band[k, y - row0, 0] + x0, values + x0, x1 - x0)
                        memcpy(target + x1, values + x1, end - x1)
                    else:
                        memcpy(target + begin, values + begin, end - begin)


def finish_rows(
    const uint8_t[:, :, :, :, ::1] kept, Py_ssize_t index, Py_ssize_t core, Py_ssize_t halo,
    const int64_t[:, ::1] columns, const uint16_t[:, ::1] across, const uint16_t[:, ::1] down,
    Py_ssize_t begin, Py_ssize_t end, const int64_t[:, ::1] shared, uint16_t[::1] sums, uint32_t[::1] row,
    uint8_t[:, :, ::1] band,
):
    """Add up the tiles that cover the finished rows, and round to bytes.

    Parameters
    ----------
    kept
        (b, tiles of a band, K, T, T): as :func:`keep` leaves it.
    index, core, halo
        As in :func:`keep`; the band is the last that is there.
    columns
        As in :func:`keep`.
    across
        (tiles of a band, T): weights of the columns. Over all tiles that cover a column of the image they
        sum to 256.
    down
        (bands, T): weights of the rows of each band's tiles. Over all bands that cover a row of the
        image they sum to 256.
    begin, end
        Image rows ``[begin, end)``: those of ``band``.
    shared
        (s, 2): ranges of columns that more than one tile covers.
    sums, row
        (W,), scratch.
    band
        (K, end - begin, W); what is not filled by :func:`keep` is filled.
    """
    cdef Py_ssize_t slots = kept.shape[0], width = band.shape[2], tiles = (kept.shape[3] + core - 1) // core
    cdef Py_ssize_t k, y, i, b, r, x, first
    cdef uint8_t* out
    cdef uint32_t by
    with nogil:
        for k in range(kept.shape[2]):
            for y in range(begin, end):
                r = y - (index * core - halo)
                out = &band[k, y - begin, 0]
                # Band b covers y if y < (b + 1) · core + halo.
                first = (y - halo) // core if y >= halo else 0
                if first == index and tiles <= 2:
                    mix_seams(kept[index % slots], k, r, columns, across, out)
                elif slots == 2 and tiles <= 2:
                    mix_bands(
                        kept[first % slots], r + core, down[first, r + core],
                        kept[index % slots], r, down[index, r], k, columns, across, out,
                    )
                else:
                    for x in range(width):
                        row[x] = 32768
                    for b in range(first, index + 1):
                        i = r + (index - b) * core
                        add_tiles(&sums[0], kept[b % slots], k, i, columns, across, shared, first < index)
                        by = down[b, i]
                        for x in range(width):
                            row[x] += by * sums[x]
                    if first < index:
                        round_row(&row[0], out, width)
                    else:
                        for i in range(shared.shape[0]):
                            x = shared[i, 0]
                            round_row(&row[x], out + x, shared[i, 1] - x)
