"""The landscape of one component: bytes, 1…255 inside and 0 outside.

Header only. A crop is a flat array of ``rows`` × ``stride`` pixels with a frame of at least
``pad`` background pixels: ``pad`` rows above and below, and ``pad`` columns that follow each row
(those of one row are the left frame of the next), so that every loop runs over the flat array.
Everything outside the component counts as 0: the landscape depends on the component alone.

Loops run over *spans*, ranges of the flat array: all of the crop for a compact component, the
surroundings of its runs for a thin one that winds through a large box. All scratch is 0 outside them.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t


cdef inline uint8_t combine(uint8_t mask, uint8_t weight) noexcept nogil:
    """``mask * weight / 255``, rounded."""
    cdef uint32_t product = <uint32_t>mask * weight + 128
    return <uint8_t>((product + (product >> 8)) >> 8)


cdef struct Span:
    # Pixels [begin, end) of a crop. Spans rise; two may share pixels of the frame, which are all 0.
    int64_t begin
    int64_t end


cdef inline void rise(uint8_t* level, const uint8_t* by, const Span* spans, int64_t n_spans) noexcept nogil:
    """Add, up to 255."""
    cdef int64_t i, s
    cdef uint16_t total
    for s in range(n_spans):
        for i in range(spans[s].begin, spans[s].end):
            total = <uint16_t>(level[i] + by[i])
            level[i] = <uint8_t>total if total < 255 else <uint8_t>255


cdef inline void smooth(
    const uint8_t* source,
    const uint8_t* inside,  # 255 inside, 0 outside
    uint8_t* level,  # out
    uint16_t* across,  # scratch
    uint32_t* down,  # scratch
    int64_t stride,
    const Span* spans,  # everything within `radius` along the row of a pixel inside
    int64_t n_spans,
    const uint16_t* weights,  # weights[k] at distance k, in all 256
    int32_t radius,  # at most the frame
) noexcept nogil:
    """Gaussian in fixed point: 8 fractional bits across, 16 in all, rounded once at the end."""
    cdef int64_t i, s, n, begin
    cdef int32_t k
    cdef uint16_t w
    cdef uint32_t v
    cdef const uint8_t* a
    cdef const uint8_t* b
    cdef const uint16_t* up
    cdef const uint16_t* low
    cdef uint16_t* row
    cdef uint32_t* sums
    for s in range(n_spans):
        begin, n = spans[s].begin, spans[s].end - spans[s].begin
        row = across + begin
        a = source + begin
        w = weights[0]
        for i in range(n):
            row[i] = w * a[i]
        for k in range(1, radius + 1):
            w = weights[k]
            a = source + begin - k
            b = source + begin + k
            for i in range(n):
                row[i] += w * <uint16_t>(a[i] + b[i])
    for s in range(n_spans):
        begin, n = spans[s].begin, spans[s].end - spans[s].begin
        row, sums = across + begin, down + begin
        for i in range(n):
            sums[i] = 32768 + <uint32_t>weights[0] * row[i]
        for k in range(1, radius + 1):
            w = weights[k]
            up = row - k * stride
            low = row + k * stride
            for i in range(n):
                sums[i] += <uint32_t>w * up[i] + <uint32_t>w * low[i]
        for i in range(n):
            v = sums[i] >> 16
            level[begin + i] = (<uint8_t>v if v > 1 else <uint8_t>1) & inside[begin + i]


cdef inline void floor_one(
    const uint8_t* source, const uint8_t* inside, uint8_t* level, const Span* spans, int64_t n_spans
) noexcept nogil:
    """The landscape without smoothing: at least 1 inside, 0 outside."""
    cdef int64_t i, s
    for s in range(n_spans):
        for i in range(spans[s].begin, spans[s].end):
            level[i] = (source[i] if source[i] > 1 else <uint8_t>1) & inside[i]


cdef inline void distance(
    const uint8_t* inside,
    uint8_t* out,
    uint16_t* column,  # scratch
    int64_t stride,
    const Span* spans,
    int64_t n_spans,
    const uint8_t* heights,  # heights[d²]: what a distance of d is worth, up to d = 64
) noexcept nogil:
    """Height by exact Euclidean distance to the outside.

    First down the columns, then along each row the best of ``k² + column²`` (Meijster's
    decomposition); the search ends at the distance found so far, which is small in cells.
    """
    cdef int64_t i, s
    cdef uint32_t best, k, reach
    cdef uint16_t a, b
    for s in range(n_spans):
        for i in range(spans[s].begin, spans[s].end):
            # 64 is as good as infinity, and keeps the squares small
            column[i] = min(<uint16_t>(column[i - stride] + 1), <uint16_t>64) if inside[i] else <uint16_t>0
    for s in range(n_spans - 1, -1, -1):
        for i in range(spans[s].end - 1, spans[s].begin - 1, -1):
            a = column[i + stride] + 1
            if a < column[i]:
                column[i] = a
    for s in range(n_spans):
        for i in range(spans[s].begin, spans[s].end):
            if not inside[i]:
                out[i] = 0
                continue
            best = <uint32_t>column[i] * column[i]
            k = 1
            while k * k < best:
                a = column[i - k]
                b = column[i + k]
                reach = k * k + <uint32_t>(a * a if a < b else b * b)
                if reach < best:
                    best = reach
                k += 1
            out[i] = heights[best]
