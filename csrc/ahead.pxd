"""Ask for bytes that are due soon: a few here and a few in the next row are not what hardware guesses.

Asking for what is not there does no harm: a prefetch never faults.
"""

from libc.stdint cimport uintptr_t


cdef extern from *:
    """
    #if defined(__GNUC__)
    #define prefetch(address) __builtin_prefetch(address)
    #else
    #define prefetch(address) ((void)(address))
    #endif
    """
    void prefetch(const void* address) noexcept nogil


cdef enum:
    LINE = 64  # bytes of a line of the cache


cdef inline void ask(const void* where, Py_ssize_t n) noexcept nogil:
    """Ask for ``n`` bytes, line by line."""
    cdef uintptr_t begin = <uintptr_t>where
    cdef uintptr_t at = begin & ~<uintptr_t>(LINE - 1)
    while at < begin + n:
        prefetch(<const void*>at)
        at += LINE
