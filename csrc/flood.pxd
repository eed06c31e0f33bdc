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
from libc.string cimport memset

from ahead cimport prefetch
from landscape cimport Span


cdef enum:
    AHEAD = 8  # pixels of the queue whose surroundings are asked for early
    LARGE = 32768  # pixels of a crop that does not fit the first-level cache


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
    # First in, first out within a level. Each level has a range of `pixels` as long as its number of
    # pixels, and a spare place that may be written but is never read.
    int32_t* pixels
    int32_t[256] begin  # the next to take
    int32_t[256] end


cdef inline int32_t find_basin(Basin* basins, int32_t b) noexcept nogil:
    while basins[b].parent != b:
        basins[b].parent = basins[basins[b].parent].parent
        b = basins[b].parent
    return b


cdef struct BasinRun:
    # Pixels [begin, end) of a crop, side by side in one row, of one root basin.
    int32_t basin
    int64_t begin
    int64_t end
    int64_t span  # where to look on


cdef inline bint next_run(
    BasinRun* run, const int32_t* state, Basin* basins, const Span* spans, int64_t n_spans
) noexcept nogil:
    """Go on to the next run in raster order, from a zeroed one to the first; whether there is one."""
    cdef int64_t at
    while run.span < n_spans:
        at = max(run.end, spans[run.span].begin)
        while at < spans[run.span].end and state[at] <= 0:
            at += 1
        if at < spans[run.span].end:
            run.basin = find_basin(basins, state[at])
            run.begin = at
            while state[at] > 0 and (
                state[at] == state[run.begin] or find_basin(basins, state[at]) == run.basin
            ):
                at += 1
            run.end = at
            return True
        run.span += 1
    return False


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


cdef inline int32_t join_neighbour(
    int32_t s, int32_t b, int32_t h, Basin* basins, const Rules* rules
) noexcept nogil:
    """Let basin ``b`` meet the one of a neighbour in state ``s``; return the root that holds ``b``."""
    cdef int32_t other
    if s <= 0 or s == b:
        return b
    other = find_basin(basins, s)
    return b if other == b else meet(basins, b, other, h, rules)


cdef inline int32_t enqueue(int32_t n, int32_t b, int32_t* state, Queue* queue) noexcept nogil:
    """Queue pixel ``n`` for basin ``b`` if it is free; return its state before.

    Without branches, as whether a neighbour is free cannot be predicted: one that is not free is
    written to the spare place of level 0.
    """
    cdef int32_t s = state[n]
    cdef int32_t free = -<int32_t>((s < 0) & (s >= -255))  # all bits or none
    cdef int32_t l = -s & free
    queue.pixels[queue.end[l]] = n
    queue.end[l] -= free
    state[n] = s ^ ((s ^ (-255 - b)) & free)
    return s


cdef inline int32_t visit(
    int32_t p,
    int32_t b,  # a root
    int32_t h,
    int32_t* state,
    int32_t stride,
    Queue* queue,
    Basin* basins,
    const Rules* rules,
) noexcept nogil:
    """Give pixel ``p`` to basin ``b``, queue its free neighbours and join basins that meet here.

    Returns the root that holds ``p`` afterwards.
    """
    cdef int32_t up, left, right, down
    cdef Basin* basin = basins + b
    reach_level(basin, h)
    basin.area += 1
    state[p] = b
    up = enqueue(p - stride, b, state, queue)
    left = enqueue(p - 1, b, state, queue)
    right = enqueue(p + 1, b, state, queue)
    down = enqueue(p + stride, b, state, queue)
    if (
        ((up > 0) & (up != b)) | ((left > 0) & (left != b))
        | ((right > 0) & (right != b)) | ((down > 0) & (down != b))
    ):
        b = join_neighbour(up, b, h, basins, rules)
        b = join_neighbour(left, b, h, basins, rules)
        b = join_neighbour(right, b, h, basins, rules)
        b = join_neighbour(down, b, h, basins, rules)
    return b


cdef inline int32_t flood(
    const uint8_t* level,  # crop: 1…255 inside, 0 outside
    const uint8_t* density,  # crop of density bytes; read where rules.min_mass > 0
    const double* mass,  # cells by density byte
    int32_t* state,  # out: basin of each pixel, from 1; 0 outside; 0 beyond the spans before, too
    int32_t* pixels,  # scratch: the crop and 256 more
    const int32_t* maxima,  # candidates for maxima, by falling level, in raster order within a level
    int32_t n_maxima,
    int32_t stride,
    const Span* spans,  # what may be above 0
    int64_t n_spans,
    Basin* basins,  # room for n_maxima + 1
    const Rules* rules,
) noexcept nogil:
    """Flood a crop; return the number of basins, roots and joined ones.

    While it runs, the state of a pixel is -1…-255: free, at that level; -255 - b: queued by basin b;
    b: in basin b; 0: outside. One array for all, as a visit costs what its cache misses cost.
    """
    cdef Queue queue
    cdef int32_t[2][256] count
    cdef int32_t h, p, b, i, top, at = 0, n_basins = 0
    cdef int64_t s, end = spans[n_spans - 1].end
    cdef Basin* basin
    if n_maxima == 0:
        return 0
    top = level[maxima[0]]
    memset(count, 0, sizeof(count))
    for s in range(n_spans):
        for i in range(spans[s].begin, spans[s].end):
            state[i] = -<int32_t>level[i]
        for i in range(spans[s].begin, spans[s].end, 2):  # two tables, as equal neighbours would wait
            count[0][level[i]] += 1  # for one another
            count[1][level[i + 1]] += 1  # behind a span all is at level 0
    count[0][0] = count[1][0] = 0
    queue.pixels = pixels
    p = 0
    for h in range(top + 1):
        queue.begin[h] = queue.end[h] = p
        p += count[0][h] + count[1][h] + 1
    for h in range(top, 0, -1):
        while True:
            if queue.begin[h] != queue.end[h]:
                i = queue.begin[h]
                p = pixels[i]
                queue.begin[h] = i + 1
                if end > LARGE and i + AHEAD < queue.end[h]:
                    i = pixels[i + AHEAD]
                    prefetch(state + i - stride)
                    prefetch(state + i)
                    prefetch(state + i + stride)
                b = find_basin(basins, -255 - state[p])
            else:
                while at < n_maxima and level[maxima[at]] == h and state[maxima[at]] != -h:
                    at += 1
                if at == n_maxima or level[maxima[at]] != h:
                    break
                p = maxima[at]
                at += 1
                n_basins += 1
                b = n_basins
                basin = basins + b
                basin.parent = b
                basin.peak = h
                basin.area = 0
                basin.area_above = 0
                basin.level = h
                basin.mass = 0
                basin.mass_above = 0
            b = visit(p, b, h, state, stride, &queue, basins, rules)
            if rules.min_mass > 0:
                basins[b].mass += mass[density[p]]
    return n_basins
