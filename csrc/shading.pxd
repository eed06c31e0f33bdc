"""Planes into a crop: what boundary and density leave of the mask under the runs of a component.

Header only.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t
from libc.string cimport memcpy, memset

from ahead cimport ask
from cells cimport FLOAT32, Sources
from crop cimport Crop, pixel_of
from landscape cimport combine
from runs cimport Component, Run


cdef enum:
    EARLY = 128  # runs of a component whose surroundings are asked for early


cdef struct Shading:
    bint by_boundary  # with neither the mask is left out of the landscape
    bint by_density
    bint keep_density  # copy the density bytes themselves, too
    uint8_t[256] boundary_factor  # what is left of the mask (of 255) by boundary byte
    uint8_t[256] density_factor  # what is left of that (of 255) by density byte


cdef inline void shade(
    const Shading* shading, uint8_t* out, int64_t row, int32_t x, int32_t n, const Sources* sources
) noexcept nogil:
    """Put what boundary and density leave of the mask into ``n`` pixels from ``x`` on."""
    cdef const uint8_t* mask = <const uint8_t*>sources.mask[row] + x
    cdef const uint8_t* plane
    cdef int32_t i
    if shading.by_boundary:
        plane = <const uint8_t*>sources.boundary[row] + x
        for i in range(n):
            out[i] = combine(mask[i], shading.boundary_factor[plane[i]])
    else:
        memcpy(out, mask, n)
    if shading.by_density:
        plane = <const uint8_t*>sources.density[row] + x
        for i in range(n):
            out[i] = combine(out[i], shading.density_factor[plane[i]])


cdef inline void draw(
    const Shading* shading, Crop* crop, const Run* runs, int64_t n, const Sources* sources
) noexcept nogil:
    """Put runs and the planes under them into the crop."""
    cdef int64_t i, at, row
    cdef int32_t length
    for i in range(n):
        row = runs[i].y - sources.row0
        length = runs[i].x1 - runs[i].x0
        at = pixel_of(crop, runs[i].y, runs[i].x0)
        memset(crop.inside + at, 255, length)
        if shading.by_boundary or shading.by_density:
            shade(shading, crop.source + at, row, runs[i].x0, length, sources)
        if shading.keep_density:
            memcpy(crop.density + at, <const uint8_t*>sources.density[row] + runs[i].x0, length)


cdef inline void ask_for(const Component* component, const Run* runs, const Sources* sources) noexcept nogil:
    """Ask for all that lies under a component; its rows lie too far apart for the hardware to guess."""
    cdef int64_t i, row, x0, n
    cdef int64_t size = 4 if sources.kind == FLOAT32 else sources.kind  # UINT8 and UINT16 are their sizes
    size *= sources.channels
    for i in range(component.run_begin, min(component.run_end, component.run_begin + EARLY)):
        row = runs[i].y - sources.row0
        x0, n = runs[i].x0, runs[i].x1 - runs[i].x0
        ask(<const uint8_t*>sources.mask[row] + x0, n)
        if sources.boundary != NULL:
            ask(<const uint8_t*>sources.boundary[row] + x0, n)
        if sources.density != NULL:
            ask(<const uint8_t*>sources.density[row] + x0, n)
        if sources.image != NULL:
            ask(<const uint8_t*>sources.image[row] + x0 * size, n * size)
