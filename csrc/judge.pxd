"""Which basins are one cell, and how sure a cell is: linear rules on what the planes show.

Header only. Both rules are log-odds, linear in means of the planes' bytes (0…1) and in logarithms of
pixel counts; see ``JoinRule`` and ``ScoreRule`` in ``runtime/model/spec.py``. All sums are of integers, so that
they do not depend on the order of the pixels.
"""

from libc.math cimport exp, log
from libc.stdint cimport int32_t, int64_t

from flood cimport Basin


cdef enum:
    PLANES = 3  # mask, boundary, density; one that the model lacks has weight 0 and sum 0


cdef struct Evidence:
    # What the planes show in a basin; all 0 in one that the flood has joined to another.
    int64_t[3] inside  # sums of bytes
    double score
    int32_t contact  # the latest used of its contacts with older basins, or -1


cdef struct Contact:
    # What they show where two basins touch.
    int64_t[3] along  # sums of the bytes of both pixels
    int32_t older
    int32_t younger
    int32_t length  # pairs of direct neighbours
    int32_t next  # another contact of the younger one, or -1


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


cdef inline bint joined(
    const Contact* contact, const Basin* basins, const Evidence* evidence, const JoinRule* rule
) noexcept nogil:
    """Whether two basins that touch are more likely one cell than two."""
    cdef const Evidence* one = evidence + contact.older
    cdef const Evidence* other = evidence + contact.younger
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


cdef inline double score_of(double area, const Evidence* cell, const ScoreRule* rule) noexcept nogil:
    """Probability that a cell of so many pixels is right."""
    cdef double odds = rule.constant + rule.area * log(area)
    cdef int k
    for k in range(PLANES):
        odds += rule.inside[k] * (cell.inside[k] / (255.0 * area))
    return 1 / (1 + exp(-odds))
