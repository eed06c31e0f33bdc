"""Where foreground begins and ends in a row of bytes.

Header only.
"""

from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.string cimport memcpy


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__SSE2__)
    #include <emmintrin.h>
    #endif
    #if defined(_MSC_VER)
    #include <intrin.h>
    static inline int lowest_bit(uint64_t bits)
    { unsigned long at; _BitScanForward64(&at, bits); return (int)at; }
    #else
    static inline int lowest_bit(uint64_t bits) { return __builtin_ctzll(bits); }
    #endif

    /* Bit i of the result says whether p[i] >= threshold, for 64 bytes. */
    static inline uint64_t foreground_bits(const uint8_t *p, uint8_t threshold)
    {
        uint64_t bits = 0;
    #if defined(__SSE2__)
        const __m128i limit = _mm_set1_epi8((char)threshold);
        for (int part = 0; part < 4; part++) {
            __m128i v = _mm_loadu_si128((const __m128i *)(p + 16 * part));
            v = _mm_cmpeq_epi8(_mm_max_epu8(v, limit), v);
            bits |= (uint64_t)(uint32_t)_mm_movemask_epi8(v) << (16 * part);
        }
    #else
        for (int i = 0; i < 64; i++)
            bits |= (uint64_t)(p[i] >= threshold) << i;
    #endif
        return bits;
    }
    """
    int lowest_bit(uint64_t bits) noexcept nogil
    uint64_t foreground_bits(const uint8_t* p, uint8_t threshold) noexcept nogil


cdef inline int32_t row_edges(const uint8_t* row, int32_t width, uint8_t threshold, int32_t* edges) noexcept nogil:
    """Write the columns where background and foreground alternate; return how many (even)."""
    cdef int32_t base, count = 0
    cdef uint64_t bits, toggles, carry = 0
    cdef uint8_t tail[64]
    for base in range(0, width - 63, 64):
        bits = foreground_bits(row + base, threshold)
        toggles = bits ^ ((bits << 1) | carry)
        carry = bits >> 63
        while toggles:
            edges[count] = base + lowest_bit(toggles)
            count += 1
            toggles &= toggles - 1
    base = width & ~63
    if base < width:
        memcpy(tail, row + base, width - base)
        bits = foreground_bits(tail, threshold) & (((<uint64_t>1) << (width - base)) - 1)
        toggles = bits ^ ((bits << 1) | carry)
        carry = 0
        while toggles:
            edges[count] = base + lowest_bit(toggles)
            count += 1
            toggles &= toggles - 1
    elif carry:
        edges[count] = width
        count += 1
    return count
