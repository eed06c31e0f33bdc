"""What the planes show in every basin and where two basins touch.

Header only. All sums are of integers, so that they do not depend on the order of the pixels.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t
from libc.string cimport memset

from cells cimport Sources
from crop cimport Crop, run_at
from flood cimport Basin, BasinRun, find_basin, next_run
from runs cimport Run
from vector cimport Vector, free_vector, reserve


cdef enum:
    PLANES = 3  # mask, boundary, density; one that the model lacks has weight 0 and sum 0


cdef struct Sums:
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


cdef struct Evidence:
    # Of the basins of one component; valid when zeroed.
    Vector sums  # of Sums, by basin
    Vector contacts  # of Contact


cdef inline void free_evidence(Evidence* evidence) noexcept nogil:
    free_vector(&evidence.sums)
    free_vector(&evidence.contacts)


cdef inline int gather_evidence(
    Evidence* evidence, const Crop* crop, Basin* basins, int32_t n_basins, bint with_contacts,
    const Sources* sources,
) except -1 nogil:
    """Sum up what the planes show in every basin and, if asked, at every contact."""
    cdef const uintptr_t* rows[3]
    cdef const uint8_t* here
    cdef Sums* sums
    cdef const int32_t* state = crop.state
    cdef int64_t i, y, n, total
    cdef int32_t b, k, roots = 0
    cdef BasinRun at
    cdef Run run
    rows[0], rows[1], rows[2] = sources.mask, sources.boundary, sources.density
    evidence.sums.size = evidence.contacts.size = 0
    sums = <Sums*>reserve(&evidence.sums, n_basins + 1, sizeof(Sums), b"basins")
    memset(sums, 0, (n_basins + 1) * sizeof(Sums))
    for b in range(1, n_basins + 1):
        sums[b].contact = -1
        if find_basin(basins, b) == b:
            roots += 1
        else:
            basins[b].area = 0  # its root has its pixels
    memset(&at, 0, sizeof(at))
    while next_run(&at, state, basins, crop.spans, crop.n_spans):
        b = at.basin
        n = at.end - at.begin
        run = run_at(crop, at.begin, at.end)
        y = run.y - sources.row0
        for k in range(PLANES):
            if rows[k] != NULL:
                here = <const uint8_t*>rows[k][y] + run.x0
                total = 0
                for i in range(n):
                    total += here[i]
                sums[b].inside[k] += total
        if not with_contacts or roots == 1:
            continue
        if state[at.end] > 0:
            touch(evidence, b, find_basin(basins, state[at.end]), rows, y, run.x1 - 1, y, run.x1)
        for i in range(n):
            k = state[at.begin + i + crop.stride]
            if k > 0 and find_basin(basins, k) != b:
                touch(evidence, b, find_basin(basins, k), rows, y, run.x0 + i, y + 1, run.x0 + i)
    return 0


cdef inline int touch(
    Evidence* evidence, int32_t a, int32_t b, const uintptr_t** rows, int64_t ya, int64_t xa, int64_t yb,
    int64_t xb,
) except -1 nogil:
    """Add a pair of neighbouring pixels to the contact of their basins.

    The contacts of a basin are a list, the latest used one first: in raster order that is nearly always
    the wanted one.
    """
    cdef Sums* sums = <Sums*>evidence.sums.data
    cdef Contact* contacts = <Contact*>evidence.contacts.data
    cdef int32_t older = min(a, b), younger = max(a, b), k
    cdef int32_t before = -1, c = sums[younger].contact
    while c >= 0 and contacts[c].older != older:
        before = c
        c = contacts[c].next
    if c < 0:
        reserve(&evidence.contacts, 1, sizeof(Contact), b"contacts of basins")
        contacts = <Contact*>evidence.contacts.data
        c = <int32_t>evidence.contacts.size
        evidence.contacts.size += 1
        memset(contacts + c, 0, sizeof(Contact))
        contacts[c].older, contacts[c].younger = older, younger
        contacts[c].next = sums[younger].contact
    elif before >= 0:
        contacts[before].next = contacts[c].next
        contacts[c].next = sums[younger].contact
    sums[younger].contact = c
    contacts[c].length += 1
    for k in range(PLANES):
        if rows[k] != NULL:
            contacts[c].along[k] += (<const uint8_t*>rows[k][ya])[xa] + (<const uint8_t*>rows[k][yb])[xb]
    return 0
