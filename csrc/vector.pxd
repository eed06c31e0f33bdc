"""Growable arrays, for kernels that do not know how much they will write.

Header only. A vector is valid when zeroed; whoever owns it frees it.
"""

from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy


cdef inline void* grown(
    void* memory, int64_t* capacity, int64_t wanted, int64_t size, const char* what
) except NULL nogil:
    """Return memory for at least ``wanted`` items of ``size`` bytes; doubles, from 64 on.

    Where there is none, what was there stays as it is, and ``capacity`` with it.
    """
    cdef int64_t items = max(wanted, 2 * capacity[0], 64)
    if wanted <= capacity[0] and memory != NULL:
        return memory
    memory = realloc(memory, items * size)
    if memory == NULL:
        with gil:
            raise MemoryError(f"no memory for {items} {what.decode()}")
    capacity[0] = items
    return memory


cdef struct Vector:
    # Records of one type, which whoever uses it knows.
    void* data
    int64_t size  # records
    int64_t capacity


cdef inline void* reserve(Vector* vector, int64_t extra, int64_t record, const char* what) except NULL nogil:
    """Make room for ``extra`` more records of ``record`` bytes; return where the first of them goes."""
    vector.data = grown(vector.data, &vector.capacity, vector.size + extra, record, what)
    return <char*>vector.data + vector.size * record


cdef inline void free_vector(Vector* vector) noexcept nogil:
    free(vector.data)
    vector.data = NULL
    vector.size = 0
    vector.capacity = 0


cdef struct Ints:
    int32_t* data
    int64_t size
    int64_t capacity


cdef inline int reserve_ints(Ints* vector, int64_t extra) except -1 nogil:
    """Make room for ``extra`` more values; doubles, so that appending costs O(1)."""
    vector.data = <int32_t*>grown(
        vector.data, &vector.capacity, vector.size + extra, sizeof(int32_t), b"numbers"
    )
    return 0


cdef inline void free_ints(Ints* vector) noexcept nogil:
    free(vector.data)
    vector.data = NULL
    vector.size = 0
    vector.capacity = 0


cdef inline object copied(const void* source, object array):
    """Fill a contiguous array of NumPy with the bytes from ``source`` on; return it."""
    cdef uintptr_t target = array.ctypes.data
    if array.nbytes:
        memcpy(<void*>target, source, array.nbytes)
    return array
