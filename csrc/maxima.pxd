"""Where basins may begin: the maxima of the landscape, by falling level.

Header only.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memset

from crop cimport Crop
from vector cimport Ints, reserve_ints


cdef inline int find_maxima(const Crop* crop, Ints* maxima, Ints* unsorted) except -1 nogil:
    """List the pixels where a basin may begin, by falling level, in raster order within a level.

    Of a flat maximum only pixels without an equal neighbour before them count, its first pixel among
    them. ``unsorted`` is scratch, and so is the landscape before smoothing, ``crop.source``.
    """
    cdef int64_t i, s, stride = crop.stride, left = -1
    cdef int32_t h, total = 0
    cdef int32_t[256] count
    cdef const uint8_t* level = crop.level
    cdef uint8_t* candidate = crop.source
    cdef const uint8_t* l
    for s in range(crop.n_spans):
        for i in range(crop.spans[s].begin, crop.spans[s].end):
            l = level + i
            candidate[i] = (l[0] > l[left]) & (l[0] > l[-stride]) & (l[0] >= l[1]) & (l[0] >= l[stride])
    memset(count, 0, sizeof(count))
    unsorted.size = 0
    for s in range(crop.n_spans):
        for i in range(crop.spans[s].begin, crop.spans[s].end):
            if candidate[i]:
                reserve_ints(unsorted, 1)
                unsorted.data[unsorted.size] = <int32_t>i
                unsorted.size += 1
                count[level[i]] += 1
    for h in range(255, -1, -1):
        total += count[h]
        count[h] = total - count[h]
    maxima.size = 0
    reserve_ints(maxima, unsorted.size)
    maxima.size = unsorted.size
    for i in range(unsorted.size):
        h = level[unsorted.data[i]]
        maxima.data[count[h]] = unsorted.data[i]
        count[h] += 1
    return 0
