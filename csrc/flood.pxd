"""Seeds and watershed in one sweep from the highest level down.

Header only. A basin is born at each local maximum and grows through a bucket queue, first in first
out within a level, so that plateaus are shared fairly. When two basins meet, the level is the pass
between them; if the one with the lower peak is insignificant there, they become one, otherwise the
place is a border for good. That is the watershed from the significant peaks only, without a second
flood: an insignificant basin belongs to whoever reaches it over its highest pass.

Source: F. Chazal, L. J. Guibas, S. Y. Oudot, P. Skraba, *Persistence-Based Clustering in Riemannian
Manifolds*, 2013 (merging by prominence); L. Vincent, P. Soille, *Watersheds in Digital Spaces*, 1991
(flooding by queue).

Basins grow over the four direct neighbours. So every cell is 4-connected, its outline is a simple
ring, and a one-pixel diagonal border holds.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t


cdef struct Basin:
    int32_t parent  # itself: a root; parents are older, so their peaks are at least as high
    int32_t peak  # level
    int32_t area  # pixels so far
    int32_t area_above  # of them above `level`
    int32_t level  # of the newest pixels
    int32_t cell  # for the caller: number of the cell
    double mass  # cells by the density plane so far
    double mass_above
    # for the caller: bounding box (half-open) and pixels of the mask itself
    int32_t y0
    int32_t x0
    int32_t y1
    int32_t x1
    int32_t solid


cdef struct Rules:
    int32_t persistence
    int32_t min_area
    double min_mass  # 0: no such rule


cdef struct Queue:
    # A first-in-first-out list for each level, linked through an array over the crop.
    int32_t[256] head
    int32_t[256] tail


cdef inline int32_t find_basin(Basin* basins, int32_t b) noexcept nogil:
    while basins[b].parent != b:
        basins[b].parent = basins[basins[b].parent].parent
        b = basins[b].parent
    return b


cdef inline void reach_level(Basin* basin, int32_t level) noexcept nogil:
    if basin.level != level:
        basin.level = level
        basin.area_above = basin.area
        basin.mass_above = basin.mass


cdef inline int32_t meet(Basin* basins, int32_t a, int32_t b, int32_t level, const Rules* rules) noexcept nogil:
    """Join two roots if the lower is insignificant at this pass; return the root that holds ``a``."""
    cdef int32_t high = a if a < b else b
    cdef int32_t low = b if a < b else a
    cdef Basin* lower = basins + low
    cdef Basin* upper = basins + high
    reach_level(lower, level)
    if (
        lower.peak - level >= rules.persistence
        and lower.area_above >= rules.min_area
        and lower.mass_above >= rules.min_mass
    ):
        return a
    reach_level(upper, level)
    lower.parent = high
    upper.area += lower.area
    upper.area_above += lower.area_above
    upper.mass += lower.mass
    upper.mass_above += lower.mass_above
    return high


cdef inline void visit(
    int32_t p,
    int32_t b,  # a root
    int32_t h,
    const uint8_t* level,
    int32_t* state,
    int32_t* after,
    int32_t stride,
    Queue* queue,
    Basin* basins,
    const Rules* rules,
) noexcept nogil:
    """Give pixel ``p`` to basin ``b``, queue its free neighbours and join basins that meet here."""
    cdef int32_t n, s, other, side
    cdef int32_t l
    state[p] = b
    reach_level(basins + b, h)
    basins[b].area += 1
    for side in range(4):
        n = p + (-stride if side == 0 else -1 if side == 1 else 1 if side == 2 else stride)
        l = level[n]
        if l == 0:
            continue
        s = state[n]
        if s == 0:
            state[n] = -b
            after[n] = 0  # 0 ends a list: pixel 0 lies in the frame
            if queue.head[l] == 0:
                queue.head[l] = n
            else:
                after[queue.tail[l]] = n
            queue.tail[l] = n
        elif s > 0 and s != b:
            other = find_basin(basins, s)
            if other != b:
                b = meet(basins, b, other, h, rules)


cdef inline int32_t flood(
    const uint8_t* level,  # crop: 1…255 inside, 0 outside
    const uint8_t* density,  # crop of density bytes; read where rules.min_mass > 0
    const double* mass,  # cells by density byte
    int32_t* state,  # crop: zeros; out: basin of each pixel, from 1; 0 outside
    int32_t* after,  # crop: scratch
    const int32_t* maxima,  # candidates for maxima, by falling level, in raster order within a level
    int32_t n_maxima,
    int32_t stride,
    Basin* basins,  # room for n_maxima + 1
    const Rules* rules,
) noexcept nogil:
    """Flood a crop; return the number of basins, roots and joined ones."""
    cdef Queue queue
    cdef int32_t h, p, b, at = 0, n_basins = 0
    for h in range(256):
        queue.head[h] = 0
        queue.tail[h] = 0
    for h in range(255, 0, -1):
        while True:
            p = queue.head[h]
            if p:
                queue.head[h] = after[p]
                b = find_basin(basins, -state[p])
            else:
                while at < n_maxima and level[maxima[at]] == h and state[maxima[at]]:
                    at += 1
                if at == n_maxima or level[maxima[at]] != h:
                    break
                p = maxima[at]
                at += 1
                n_basins += 1
                b = n_basins
                basins[b].parent = b
                basins[b].peak = h
                basins[b].area = 0
                basins[b].area_above = 0
                basins[b].level = h
                basins[b].mass = 0
                basins[b].mass_above = 0
            visit(p, b, h, level, state, after, stride, &queue, basins, rules)
            if rules.min_mass > 0:
                b = find_basin(basins, b)
                basins[b].mass += mass[density[p]]
    return n_basins
