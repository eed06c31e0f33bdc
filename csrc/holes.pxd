"""Small holes in a component, as the runs that fill them.

Header only. The gaps between the runs of a row are the nodes of a graph, joined where they touch those
of the next row; gap 0 is all that lies outside. A hole with another component in it (or with pixels that
this component has lost to a cut) is no hole in a cell, so it stays.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t
from libc.string cimport memset

from cells cimport Sources
from runs cimport Run
from vector cimport Vector, free_vector, reserve


cdef struct Gap:
    int32_t y
    int32_t x0
    int32_t x1
    int32_t parent  # itself: a root
    int32_t area  # of a root: pixels of all its gaps
    int32_t pure  # of a root: there is no foreground in it


cdef struct Holes:
    # Valid when zeroed.
    Vector gaps
    Vector fills  # runs of the holes that are to be filled
    int64_t filled  # how many holes so far


cdef inline void free_holes(Holes* holes) noexcept nogil:
    free_vector(&holes.gaps)
    free_vector(&holes.fills)


cdef inline int32_t find_gap(Gap* gaps, int32_t gap) noexcept nogil:
    while gaps[gap].parent != gap:
        gaps[gap].parent = gaps[gaps[gap].parent].parent
        gap = gaps[gap].parent
    return gap


cdef inline void join_gaps(Gap* gaps, int32_t a, int32_t b) noexcept nogil:
    """Unite; the lower number stays the root, so that of the outside is 0."""
    a = find_gap(gaps, a)
    b = find_gap(gaps, b)
    gaps[max(a, b)].parent = min(a, b)


cdef inline int32_t link_gaps(Gap* gaps, const Run* runs, int64_t n, int32_t slack) noexcept nogil:
    """List the gaps between runs, which are by place, and join those that touch; return their number.

    ``slack`` is 1 where touching by a corner counts.
    """
    cdef int64_t i = 0, j
    cdef int32_t count = 1, above = 1, above_end = 1, here, g, p, y = 0, left = 0, right = 0
    cdef bint follows
    memset(gaps, 0, sizeof(Gap))
    while i < n:
        j = i
        here = count
        while j < n and runs[j].y == runs[i].y:
            if j > i and runs[j - 1].x1 < runs[j].x0:
                gaps[count].y = runs[j].y
                gaps[count].x0 = runs[j - 1].x1
                gaps[count].x1 = runs[j].x0
                gaps[count].parent = count
                gaps[count].area = 0
                gaps[count].pure = True
                count += 1
            j += 1
        follows = i > 0 and runs[i].y == y + 1
        for g in range(here, count):
            if not follows or gaps[g].x0 < left + slack or gaps[g].x1 + slack > right:
                join_gaps(gaps, g, 0)
        y, left, right = runs[i].y, runs[i].x0, runs[j - 1].x1
        for p in range(above, above_end):
            if not follows or gaps[p].x0 < left + slack or gaps[p].x1 + slack > right:
                join_gaps(gaps, p, 0)
        if follows:
            p, g = above, here
            while p < above_end and g < count:
                if max(gaps[p].x0, gaps[g].x0) < min(gaps[p].x1, gaps[g].x1) + slack:
                    join_gaps(gaps, p, g)
                if gaps[p].x1 < gaps[g].x1:
                    p += 1
                else:
                    g += 1
        above, above_end = here, count
        i = j
    for p in range(above, above_end):
        join_gaps(gaps, p, 0)
    return count


cdef inline int find_holes(
    Holes* holes, const Run* runs, int64_t n, int32_t max_area, int32_t neighbours, int32_t threshold,
    const Sources* sources,
) except -1 nogil:
    """Put the runs of small holes without foreground into ``fills``.

    Parameters
    ----------
    runs
        Of a component, by place.
    max_area
        Pixels of the largest hole that is filled.
    neighbours
        4 or 8: connectivity of the background.
    threshold
        Smallest mask byte that is foreground.
    """
    cdef int32_t count, g, x
    cdef Gap* gaps = <Gap*>reserve(&holes.gaps, n + 1, sizeof(Gap), b"gaps")
    cdef Gap* root
    cdef Run* fill
    cdef const uint8_t* mask
    count = link_gaps(gaps, runs, n, neighbours == 8)
    for g in range(1, count):
        gaps[find_gap(gaps, g)].area += gaps[g].x1 - gaps[g].x0
    gaps[0].area = max_area + 1  # never fill the outside
    for g in range(1, count):
        root = gaps + find_gap(gaps, g)
        if root.area <= max_area:
            mask = <const uint8_t*>sources.mask[gaps[g].y - sources.row0]
            for x in range(gaps[g].x0, gaps[g].x1):
                if mask[x] >= threshold:
                    root.pure = False
    for g in range(1, count):
        root = gaps + find_gap(gaps, g)
        if root.area <= max_area and root.pure:
            holes.filled += root == gaps + g
            fill = <Run*>reserve(&holes.fills, 1, sizeof(Run), b"filled holes")
            fill.y = gaps[g].y
            fill.x0 = gaps[g].x0
            fill.x1 = gaps[g].x1
            holes.fills.size += 1
    return 0
