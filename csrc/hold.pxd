"""Cells that may still change, out of a component that is not finished.

Header only.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t
from libc.string cimport memset

from cells cimport Sources
from crop cimport Crop, run_at
from flood cimport Basin, BasinRun, next_run
from runs cimport HeldRun, Limits, Run
from vector cimport Vector, reserve


cdef inline void box_basins(
    const Crop* crop, Basin* basins, int32_t n_basins, int32_t threshold, const Sources* sources
) noexcept nogil:
    """Find the bounding box of every basin, and whether there is a pixel of the mask itself in it."""
    cdef int32_t b
    cdef int64_t i
    cdef const uint8_t* mask
    cdef Basin* basin
    cdef BasinRun at
    cdef Run run
    for b in range(1, n_basins + 1):
        basin = basins + b
        basin.y0 = basin.x0 = 2**31 - 1
        basin.y1 = basin.x1 = basin.solid = 0
    memset(&at, 0, sizeof(at))
    while next_run(&at, crop.state, basins, crop.spans, crop.n_spans):
        run = run_at(crop, at.begin, at.end)
        basin = basins + at.basin
        basin.y0 = min(basin.y0, run.y)
        basin.y1 = max(basin.y1, run.y + 1)
        basin.x0 = min(basin.x0, run.x0)
        basin.x1 = max(basin.x1, run.x1)
        mask = <const uint8_t*>sources.mask[run.y - sources.row0]
        for i in range(run.x0, run.x1):
            basin.solid |= mask[i] >= threshold


cdef inline int hold(
    Vector* held, Crop* crop, Basin* basins, int32_t n_basins, int32_t component, const Limits* limits,
    int32_t threshold, const Sources* sources,
) except -1 nogil:
    """Take the cells behind the limits out of the crop, into ``held`` (of HeldRun).

    A cell that consists of filled holes only is taken out too, and forgotten: were it finished, the
    pixels that remain could take it for a hole and fill it a second time. It gets an area of 0, and a
    held one that of -1.
    """
    cdef HeldRun* out
    cdef Basin* basin
    cdef BasinRun at
    cdef Run run
    cdef bint by_column
    box_basins(crop, basins, n_basins, threshold, sources)
    memset(&at, 0, sizeof(at))
    while next_run(&at, crop.state, basins, crop.spans, crop.n_spans):
        basin = basins + at.basin
        by_column = basin.x1 > limits.x and basin.x0 > limits.x_floor
        if by_column or (basin.y1 > limits.y and basin.y0 > limits.y_floor):
            run = run_at(crop, at.begin, at.end)
            out = <HeldRun*>reserve(held, 1, sizeof(HeldRun), b"held runs")
            out.component = component
            out.y, out.x0, out.x1 = run.y, run.x0, run.x1
            out.by_column = by_column
            held.size += 1
            basin.area = -1
        elif basin.solid:
            continue
        else:
            basin.area = 0
        memset(crop.state + at.begin, 0, (at.end - at.begin) * sizeof(int32_t))
    return 0
