"""The crop in which one component is worked on: where it lies, and scratch memory that is used again.

Header only. A crop is a flat array of pixels with a frame of ``pad`` pixels around the component's box,
see ``landscape.pxd``. A thin component may wind through a crop far larger than itself; then only *spans*
are worked on, the surroundings of its runs. A compact one has a single span, the whole crop. All scratch
but ``density`` and ``pixels`` is 0 between two components, so that only what was written need be cleared.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from landscape cimport Span
from runs cimport Component, Run
from vector cimport grown


cdef enum:
    COMPACT = 4096  # pixels of a crop that is worked on as a whole without counting


cdef struct Crop:
    # Valid when zeroed.
    int32_t y0  # box in the image
    int32_t x0
    int32_t height
    int32_t width
    int64_t pad
    int64_t stride
    int64_t begin  # pixel (y0, x0)
    int64_t end  # behind the last pixel of the box
    int64_t size  # with the frame
    # scratch of `capacity` pixels
    int64_t capacity
    uint8_t* inside
    uint8_t* source
    uint8_t* level
    uint8_t* density
    uint16_t* across
    int32_t* state
    int32_t* pixels
    Span* spans
    int64_t n_spans
    int64_t span_capacity


cdef inline void place(Crop* crop, const Component* component, int64_t pad) noexcept nogil:
    """Lay the crop around a component; :func:`make_room` and :func:`find_spans` follow."""
    crop.y0 = component.y0
    crop.x0 = component.x0
    crop.height = component.y1 - component.y0
    crop.width = component.x1 - component.x0
    crop.pad = pad
    crop.stride = crop.width + pad
    crop.begin = (crop.stride + 1) * pad
    crop.end = (crop.height + pad) * crop.stride
    crop.size = crop.end + pad * crop.stride + pad


cdef inline int64_t pixel_of(const Crop* crop, int32_t y, int32_t x) noexcept nogil:
    """The place of a pixel of the image."""
    return crop.begin + <int64_t>(y - crop.y0) * crop.stride + x - crop.x0


cdef inline Run run_at(const Crop* crop, int64_t begin, int64_t end) noexcept nogil:
    """Pixels ``[begin, end)``, side by side in one row, as a run of the image."""
    cdef Run run
    cdef int64_t row = (begin - crop.begin) // crop.stride
    run.y = crop.y0 + <int32_t>row
    run.x0 = crop.x0 + <int32_t>(begin - crop.begin - row * crop.stride)
    run.x1 = run.x0 + <int32_t>(end - begin)
    return run


cdef inline int make_room(Crop* crop, bint density) except -1 nogil:
    """Reserve the scratch; that of ``density`` only where it is used."""
    cdef int64_t capacity
    if crop.size <= crop.capacity:
        return 0
    capacity = max(crop.size, crop.capacity + crop.capacity // 2, 4096)
    free_crop(crop)
    crop.inside = <uint8_t*>calloc(capacity, 1)
    crop.source = <uint8_t*>calloc(capacity, 1)
    crop.level = <uint8_t*>calloc(capacity, 1)
    crop.density = <uint8_t*>calloc(capacity if density else 1, 1)
    crop.across = <uint16_t*>calloc(capacity, sizeof(uint16_t))
    crop.state = <int32_t*>calloc(capacity, sizeof(int32_t))
    crop.pixels = <int32_t*>calloc(capacity + 256, sizeof(int32_t))
    if (
        crop.inside == NULL or crop.source == NULL or crop.level == NULL or crop.density == NULL
        or crop.across == NULL or crop.state == NULL or crop.pixels == NULL
    ):
        with gil:
            raise MemoryError(f"no memory to split a component of {crop.size} pixels")
    crop.capacity = capacity
    return 0


cdef inline void free_crop(Crop* crop) noexcept nogil:
    """Give back the scratch; its spans live on."""
    free(crop.inside)
    free(crop.source)
    free(crop.level)
    free(crop.density)
    free(crop.across)
    free(crop.state)
    free(crop.pixels)
    crop.inside = crop.source = crop.level = crop.density = NULL
    crop.across = NULL
    crop.state = crop.pixels = NULL
    crop.capacity = 0


cdef inline int find_spans(Crop* crop, const Run* runs, int64_t n, int64_t near) except -1 nogil:
    """Find what is worked on: the crop, or what surrounds the runs, where that is much less.

    Runs in a row that are no farther apart than ``near`` have a span in common.
    """
    cdef int64_t i, first, last, total = 0
    cdef Span* span
    crop.spans = <Span*>grown(crop.spans, &crop.span_capacity, n + 1, sizeof(Span), b"spans")
    crop.n_spans = 0
    if crop.size > COMPACT:
        for i in range(n):
            first = pixel_of(crop, runs[i].y, runs[i].x0)
            last = first + runs[i].x1 - runs[i].x0 + crop.pad
            span = crop.spans + crop.n_spans - 1
            if i and runs[i].y == runs[i - 1].y and first - span.end + crop.pad <= near:
                total += last - span.end
                span.end = last
            else:
                crop.spans[crop.n_spans].begin = first - crop.pad
                crop.spans[crop.n_spans].end = last
                crop.n_spans += 1
                total += last - first + crop.pad
    if crop.n_spans == 0 or 2 * total > crop.end - crop.begin:
        crop.n_spans = 1
        crop.spans[0].begin = crop.begin
        crop.spans[0].end = crop.end
    return 0


cdef inline void clear(Crop* crop) noexcept nogil:
    """Make the scratch zero again."""
    cdef int64_t s, at, n
    for s in range(crop.n_spans):
        at = crop.spans[s].begin
        n = crop.spans[s].end - at
        memset(crop.inside + at, 0, n)
        memset(crop.source + at, 0, n)
        memset(crop.level + at, 0, n)
        memset(crop.across + at, 0, n * sizeof(uint16_t))
        memset(crop.state + at, 0, n * sizeof(int32_t))
