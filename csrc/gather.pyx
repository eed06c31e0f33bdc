"""Lay tiles of raw rows into a batch of bytes: reflect, choose channels, map, all in one pass.

The arithmetic is :class:`cellseg.runtime.intensity.normalization.Normalization`'s. Reflection is
:func:`cellseg.runtime.geometry.tiling.reflect`'s. This module checks nothing: callers do, once.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from ahead cimport ask
from widths cimport take_width

ctypedef fused raw_t:
    uint8_t
    uint16_t
    float

cdef extern from *:
    """
    #include "widths.h"

    #define CELLSEG_LOOPS(suffix, attribute)                                                          \\
        attribute static void cellseg_bytes_8_##suffix(                                               \\
            const uint8_t *restrict in, uint8_t *restrict out, ptrdiff_t n,                           \\
            uint16_t low, uint16_t span, uint16_t unit, uint16_t factor) {                            \\
            for (ptrdiff_t i = 0; i < n; i++) {                                                       \\
                uint8_t b = in[i] > low ? in[i] : (uint8_t)low;                                       \\
                b = (uint8_t)(b - low);                                                               \\
                uint16_t t = b < span ? b : (uint8_t)span;                                            \\
                t = (uint16_t)(t * unit); /* a shift would be done in 32 bits */                      \\
                t = (uint16_t)(((uint32_t)t * factor) >> 16);                                         \\
                out[i] = (uint8_t)((uint16_t)(t + 64) >> 7);                                          \\
            }                                                                                         \\
        }                                                                                             \\
        attribute static void cellseg_bytes_16_##suffix(                                              \\
            const uint16_t *restrict in, uint8_t *restrict out, ptrdiff_t n,                          \\
            uint16_t low, uint16_t span, uint16_t unit, uint16_t factor) {                            \\
            for (ptrdiff_t i = 0; i < n; i++) {                                                       \\
                uint16_t t = in[i];                                                                   \\
                t = (uint16_t)((t > low ? t : low) - low);                                            \\
                t = t < span ? t : span;                                                              \\
                t = (uint16_t)(t * unit); /* a shift would be done in 32 bits */                      \\
                t = (uint16_t)(((uint32_t)t * factor) >> 16);                                         \\
                out[i] = (uint8_t)((uint16_t)(t + 64) >> 7);                                          \\
            }                                                                                         \\
        }                                                                                             \\
        attribute static void cellseg_bytes_float_##suffix(                                           \\
            const float *restrict in, uint8_t *restrict out, ptrdiff_t n, float offset, float scale) {\\
            for (ptrdiff_t i = 0; i < n; i++) {                                                       \\
                float t = (in[i] - offset) * scale;                                                   \\
                t = t > 0.0f ? t : 0.0f; /* NaN, too, becomes 0 */                                    \\
                t = t < 255.0f ? t : 255.0f;                                                          \\
                out[i] = (uint8_t)(int32_t)(t + 0.5f);                                                \\
            }                                                                                         \\
        }                                                                                             \\
        attribute static void cellseg_triple_##suffix(                                                \\
            const uint8_t *restrict in, uint8_t *restrict out, ptrdiff_t n) {                         \\
            for (ptrdiff_t i = 0; i < n; i++) {                                                       \\
                uint8_t b = in[i];                                                                    \\
                out[3 * i] = b;                                                                       \\
                out[3 * i + 1] = b;                                                                   \\
                out[3 * i + 2] = b;                                                                   \\
            }                                                                                         \\
        }

    CELLSEG_EVERY_WIDTH(CELLSEG_LOOPS)

    #ifdef CELLSEG_X86
    /* Any function of a byte is a table, and with these instructions a table of 256 bytes stands in four
       registers: two loads and a choice for each 64 pixels, where the arithmetic takes ten steps for 32. */
    CELLSEG_TARGET("avx512f,avx512bw,avx512vl,avx512vbmi")
    static void cellseg_bytes_8_vbmi(
        const uint8_t *restrict in, uint8_t *restrict out, ptrdiff_t n,
        uint16_t low, uint16_t span, uint16_t unit, uint16_t factor) {
        uint8_t values[256], table[256];
        for (int i = 0; i < 256; i++) values[i] = (uint8_t)i;
        cellseg_bytes_8_avx512(values, table, 256, low, span, unit, factor);
        const __m512i a = _mm512_loadu_si512(table), b = _mm512_loadu_si512(table + 64);
        const __m512i c = _mm512_loadu_si512(table + 128), d = _mm512_loadu_si512(table + 192);
        for (ptrdiff_t i = 0; i < n; i += 64) {
            const __mmask64 part = n - i < 64 ? ((__mmask64)1 << (n - i)) - 1 : ~(__mmask64)0;
            const __m512i x = _mm512_maskz_loadu_epi8(part, in + i);
            const __m512i dark = _mm512_permutex2var_epi8(a, x, b);
            const __m512i bright = _mm512_permutex2var_epi8(c, x, d);
            const __m512i y = _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), dark, bright);
            _mm512_mask_storeu_epi8(out + i, part, y);
        }
    }
    CELLSEG_TARGET("avx512f,avx512bw,avx512vl,avx512vbmi")
    static void cellseg_triple_vbmi(const uint8_t *restrict in, uint8_t *restrict out, ptrdiff_t n) {
        uint8_t third[192];
        for (int i = 0; i < 192; i++) third[i] = (uint8_t)(i / 3);
        const __m512i a = _mm512_loadu_si512(third), b = _mm512_loadu_si512(third + 64);
        const __m512i c = _mm512_loadu_si512(third + 128);
        ptrdiff_t i = 0;
        for (; i + 64 <= n; i += 64) {
            const __m512i x = _mm512_loadu_si512(in + i);
            _mm512_storeu_si512(out + 3 * i, _mm512_permutexvar_epi8(a, x));
            _mm512_storeu_si512(out + 3 * i + 64, _mm512_permutexvar_epi8(b, x));
            _mm512_storeu_si512(out + 3 * i + 128, _mm512_permutexvar_epi8(c, x));
        }
        cellseg_triple_avx512(in + i, out + 3 * i, n - i);
    }
    #define CELLSEG_PICK_BYTE(level, name) (level == 3 ? name##_vbmi : CELLSEG_PICK(level, name))
    #else
    #define CELLSEG_PICK_BYTE(level, name) CELLSEG_PICK(level, name)
    #endif

    static void (*cellseg_bytes_8)(const uint8_t *, uint8_t *, ptrdiff_t, uint16_t, uint16_t, uint16_t, uint16_t);
    static void (*cellseg_bytes_16)(const uint16_t *, uint8_t *, ptrdiff_t, uint16_t, uint16_t, uint16_t, uint16_t);
    static void (*cellseg_bytes_float)(const float *, uint8_t *, ptrdiff_t, float, float);
    static void (*cellseg_triple)(const uint8_t *, uint8_t *, ptrdiff_t);
    static void cellseg_pick(int level) {
        cellseg_bytes_8 = CELLSEG_PICK_BYTE(level, cellseg_bytes_8);
        cellseg_bytes_16 = CELLSEG_PICK(level, cellseg_bytes_16);
        cellseg_bytes_float = CELLSEG_PICK(level, cellseg_bytes_float);
        cellseg_triple = CELLSEG_PICK_BYTE(level, cellseg_triple);
    }
    """
    void cellseg_bytes_8(const uint8_t *, uint8_t *, Py_ssize_t, uint16_t, uint16_t, uint16_t, uint16_t) nogil
    void cellseg_bytes_16(const uint16_t *, uint8_t *, Py_ssize_t, uint16_t, uint16_t, uint16_t, uint16_t) nogil
    void cellseg_bytes_float(const float *, uint8_t *, Py_ssize_t, float, float) nogil
    void cellseg_triple(const uint8_t *, uint8_t *, Py_ssize_t) nogil
    void cellseg_pick(int level)


def use_instructions(level=None):
    """Choose the instruction set: 0 baseline, 1 AVX2, 2 AVX-512, 3 with VBMI.

    Default and limit: what this CPU has.

    Returns the level chosen. Every level gives the same bytes; tests try them all.
    """
    return take_width(level, cellseg_pick)


use_instructions()


#: Rows that are asked of memory ahead of the one that is worked on.
cdef enum:
    AHEAD = 4


cdef inline Py_ssize_t mirror(Py_ssize_t index, Py_ssize_t size) noexcept nogil:
    """The position inside a line of ``size`` pixels that ``index`` is reflected to, however far away."""
    cdef Py_ssize_t period
    if 0 <= index < size:
        return index
    if size == 1:
        return 0
    period = 2 * (size - 1)
    index = index % period
    if index < 0:  # C's remainder takes the sign of the dividend
        index += period
    return index if index < size else period - index


cdef inline raw_t grey(raw_t r, raw_t g, raw_t b, float fr, float fg, float fb) noexcept nogil:
    """Luma of one pixel; 65535 · 65536 + 32768 still fits 32 bits."""
    if raw_t is float:
        return r * fr + g * fg + b * fb
    else:
        return <raw_t>((<uint32_t>r * 19595 + <uint32_t>g * 38470 + <uint32_t>b * 7471 + 32768) >> 16)


cdef inline void stage_span(
    const raw_t *pixel, raw_t *stage, Py_ssize_t count, Py_ssize_t channels,
    const int32_t *pick, Py_ssize_t picked, bint luma,
) noexcept nogil:
    """Copy the chosen channels of ``count`` neighbouring pixels."""
    cdef Py_ssize_t x, c
    cdef int32_t first = pick[0], second, third
    cdef float fr = <float>(19595.0 / 65536), fg = <float>(38470.0 / 65536), fb = <float>(7471.0 / 65536)
    if luma:
        second, third = pick[1], pick[2]
        for x in range(count):
            stage[x] = grey(pixel[first], pixel[second], pixel[third], fr, fg, fb)
            pixel += channels
    elif picked == 1:
        for x in range(count):
            stage[x] = pixel[x * channels + first]
    else:
        for x in range(count):
            for c in range(picked):
                stage[x * picked + c] = pixel[pick[c]]
            pixel += channels


cdef inline void stage_reflected(
    const raw_t *source, raw_t *stage, const int64_t *columns, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t channels, const int32_t *pick, Py_ssize_t picked, bint luma, bint identity,
) noexcept nogil:
    """Copy the chosen channels of the pixels ``columns[begin:end]``."""
    cdef Py_ssize_t x
    cdef const raw_t *pixel
    if identity and channels == 3:
        for x in range(begin, end):
            pixel = source + columns[x] * 3
            stage[3 * x] = pixel[0]
            stage[3 * x + 1] = pixel[1]
            stage[3 * x + 2] = pixel[2]
    elif picked == 1 and not luma:
        pixel = source + pick[0]
        for x in range(begin, end):
            stage[x] = pixel[columns[x] * channels]
    else:
        for x in range(begin, end):
            stage_span(source + columns[x] * channels, stage + x * picked, 1, channels, pick, picked, luma)


cdef inline void to_bytes(
    const raw_t *raw, uint8_t *out, Py_ssize_t n, bint plain,
    uint16_t low, uint16_t span, uint16_t unit, uint16_t factor, float offset, float scale,
) noexcept nogil:
    if raw_t is float:
        cellseg_bytes_float(raw, out, n, offset, scale)
    elif raw_t is uint8_t:
        if plain:
            memcpy(out, raw, n)
        else:
            cellseg_bytes_8(raw, out, n, low, span, unit, factor)
    else:
        cellseg_bytes_16(raw, out, n, low, span, unit, factor)


def gather(
    const raw_t[:, :, ::1] rows, Py_ssize_t top, Py_ssize_t height, const int64_t[:, ::1] origins,
    uint8_t[:, :, :, ::1] batch, const int32_t[::1] pick, bint luma,
    uint16_t low, uint16_t span, int shift, uint16_t factor, float offset, float scale,
):
    """Fill the first tiles of a batch from rows of an image.

    Parameters
    ----------
    rows
        Full-width rows of the image, (R, W, C); must hold every row the tiles refer to.
    top
        Image row of ``rows[0]``.
    height
        Rows of the whole image, at which reads are reflected.
    origins
        (n, 2): image row and column of each tile's first pixel; may be negative.
    batch
        (N, T, T, K) with N >= n and K 1 or 3; filled.
    pick
        Source channel of each wanted one: K of them, or one that is repeated K times, or three for
        ``luma``.
    luma
        Reduce three picked channels to one.
    low, span, shift, factor
        ``Normalization.fixed_point`` (integer pixels).
    offset, scale
        ``Normalization.offset`` and ``scale`` (float pixels).
    """
    cdef Py_ssize_t width = rows.shape[1], channels = rows.shape[2]
    cdef Py_ssize_t tile = batch.shape[1], wanted = batch.shape[3], count = origins.shape[0]
    cdef Py_ssize_t picked = 1 if luma else pick.shape[0]
    cdef Py_ssize_t n, r, x, y0, x0, begin, end
    cdef uint16_t unit = <uint16_t>(1 << shift)
    cdef bint identity = not luma and picked == channels, inside, plain = low == 0 and span == 255
    cdef const raw_t *source
    cdef const raw_t *raw
    cdef uint8_t *out
    cdef raw_t *stage = NULL
    cdef uint8_t *bytes_ = NULL
    cdef int64_t *columns = NULL
    if count == 0:
        return
    for x in range(picked):
        identity = identity and pick[x] == x
    with nogil:
        stage = <raw_t *>malloc(tile * picked * sizeof(raw_t))
        bytes_ = <uint8_t *>malloc(tile)
        columns = <int64_t *>malloc(tile * sizeof(int64_t))
        if stage != NULL and bytes_ != NULL and columns != NULL:
            for n in range(count):
                y0, x0 = origins[n, 0], origins[n, 1]
                inside = identity and x0 >= 0 and x0 + tile <= width
                begin = min(max(-x0, 0), tile)
                end = max(min(width - x0, tile), begin)
                for x in range(begin):
                    columns[x] = mirror(x0 + x, width)
                for x in range(end, tile):
                    columns[x] = mirror(x0 + x, width)
                for r in range(tile):
                    source = &rows[mirror(y0 + r, height) - top, 0, 0]
                    # A tile's rows lie a whole image row apart, each in another page: without this,
                    # gathering waits for memory line by line.
                    if r + AHEAD < tile and begin < end:  # else no pixel of the row is the image's own
                        ask(
                            &rows[mirror(y0 + r + AHEAD, height) - top, x0 + begin, 0],
                            (end - begin) * channels * sizeof(raw_t),
                        )
                    if inside:
                        raw = source + x0 * channels
                    else:
                        # What lies inside the image goes at one go, the rest is reflected.
                        stage_reflected(
                            source, stage, columns, 0, begin, channels, &pick[0], picked, luma, identity
                        )
                        if identity:
                            memcpy(
                                stage + begin * channels, source + (x0 + begin) * channels,
                                (end - begin) * channels * sizeof(raw_t),
                            )
                        else:
                            stage_span(
                                source + (x0 + begin) * channels, stage + begin * picked, end - begin,
                                channels, &pick[0], picked, luma,
                            )
                        stage_reflected(
                            source, stage, columns, end, tile, channels, &pick[0], picked, luma, identity
                        )
                        raw = stage
                    out = &batch[n, r, 0, 0]
                    if picked == wanted:
                        to_bytes(raw, out, tile * wanted, plain, low, span, unit, factor, offset, scale)
                    else:
                        to_bytes(raw, bytes_, tile, plain, low, span, unit, factor, offset, scale)
                        cellseg_triple(bytes_, out, tile)
        else:
            count = -1
        free(stage)
        free(bytes_)
        free(columns)
    if count < 0:
        raise MemoryError("no memory for a row of a tile")
