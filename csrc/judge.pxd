"""Which basins are one cell, how sure a cell is, and which are kept.

Header only. Both rules are log-odds, linear in means of the planes' bytes (0…1) and in logarithms of
pixel counts: the records ``JoinRule`` and ``ScoreRule`` of ``runtime/model/spec.py``, field by field.
"""

from libc.math cimport exp, log
from libc.stdint cimport int32_t, int64_t

from crop cimport Crop
from evidence cimport PLANES, Contact, Evidence, Sums
from flood cimport Basin, find_basin


cdef struct JoinRule:
    double constant
    double[3] contact
    double[3] inside
    double smaller
    double larger
    double length


cdef struct ScoreRule:
    double constant
    double[3] inside
    double area
    double minimum


cdef struct Judge:
    bint joins  # whether there is such a rule
    bint scores
    JoinRule join
    ScoreRule score


cdef inline void read_rules(Judge* judge, object join, object score, object planes):
    """Copy the records, or ``None``; ``planes`` are the names of the planes in the order of the sums."""
    cdef int k
    judge.joins = join is not None
    if judge.joins:
        judge.join.constant = join.constant
        judge.join.smaller, judge.join.larger, judge.join.length = join.smaller, join.larger, join.length
    judge.scores = score is not None
    if judge.scores:
        judge.score.constant, judge.score.area = score.constant, score.area
        judge.score.minimum = score.minimum
    for k in range(PLANES):
        if judge.joins:
            judge.join.contact[k] = join.contact.get(planes[k], 0.0)
            judge.join.inside[k] = join.inside.get(planes[k], 0.0)
        if judge.scores:
            judge.score.inside[k] = score.inside.get(planes[k], 0.0)


cdef inline bint joined(
    const Contact* contact, const Basin* basins, const Sums* sums, const JoinRule* rule
) noexcept nogil:
    """Whether two basins that touch are more likely one cell than two."""
    cdef const Sums* one = sums + contact.older
    cdef const Sums* other = sums + contact.younger
    cdef int32_t area = basins[contact.older].area, other_area = basins[contact.younger].area
    cdef double both = <double>area + other_area
    cdef double odds = rule.constant
    cdef int k
    for k in range(PLANES):
        odds += rule.contact[k] * (contact.along[k] / (510.0 * contact.length))
        odds += rule.inside[k] * ((one.inside[k] + other.inside[k]) / (255.0 * both))
    odds += rule.smaller * log(<double>min(area, other_area))
    odds += rule.larger * log(<double>max(area, other_area))
    odds += rule.length * log(<double>contact.length)
    return odds > 0


cdef inline double score_of(double area, const Sums* cell, const ScoreRule* rule) noexcept nogil:
    """Probability that a cell of a number of pixels is right."""
    cdef double odds = rule.constant + rule.area * log(area)
    cdef int k
    for k in range(PLANES):
        odds += rule.inside[k] * (cell.inside[k] / (255.0 * area))
    return 1 / (1 + exp(-odds))


cdef inline void apply_rules(
    const Judge* judge, Evidence* evidence, Basin* basins, int32_t n_basins
) noexcept nogil:
    """Join basins by their contacts, all as they were before any was joined; then score the cells."""
    cdef Sums* sums = <Sums*>evidence.sums.data
    cdef const Contact* contact
    cdef int64_t i
    cdef int32_t a, b, k
    for i in range(evidence.contacts.size):
        contact = <const Contact*>evidence.contacts.data + i
        if joined(contact, basins, sums, &judge.join):
            a = find_basin(basins, contact.older)
            b = find_basin(basins, contact.younger)
            basins[max(a, b)].parent = min(a, b)
    for b in range(n_basins, 0, -1):  # the younger ones before those that they have joined
        a = basins[b].parent
        if a != b:
            basins[a].area += basins[b].area
            for k in range(PLANES):
                sums[a].inside[k] += sums[b].inside[k]
    if judge.scores:
        for b in range(1, n_basins + 1):
            if basins[b].parent == b:
                sums[b].score = score_of(basins[b].area, sums + b, &judge.score)


cdef inline int64_t drop(
    const Judge* judge, const Evidence* evidence, Basin* basins, int32_t n_basins, int32_t min_area
) noexcept nogil:
    """Decide which cells are too small or doubtful; return how many. The others' numbers are -1.

    A held one, with an area of -1, is neither.
    """
    cdef const Sums* sums = <const Sums*>evidence.sums.data
    cdef int64_t dropped = 0
    cdef int32_t b
    for b in range(1, n_basins + 1):
        basins[b].cell = -1
        if basins[b].parent == b and basins[b].area >= 0 and (
            basins[b].area < min_area or (judge.scores and sums[b].score < judge.score.minimum)
        ):
            basins[b].cell = 0
            dropped += 1
    return dropped


cdef inline int32_t number(Crop* crop, Basin* basins) noexcept nogil:
    """Replace basins by cells 1…n in raster order of the first pixel, dropped ones by 0; return n."""
    cdef int32_t b, root, n_cells = 0
    cdef int64_t s, at
    cdef int32_t* state = crop.state
    for s in range(crop.n_spans):
        for at in range(crop.spans[s].begin, crop.spans[s].end):
            b = state[at]
            if b <= 0:
                continue
            if basins[b].cell < 0:
                root = find_basin(basins, b)
                if basins[root].cell < 0:
                    n_cells += 1
                    basins[root].cell = n_cells
                basins[b].cell = basins[root].cell
            state[at] = basins[b].cell
    return n_cells
