# cython: language_level=3
"""Kernel that writes cells as GeoJSON features, as text, a block of cells at a time.

A million cells are half a gigabyte of text; Python's own number formatting would take longer than
the inference. This module knows the feature's layout, not where its bytes go.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

cdef const char* HEX = b"0123456789abcdef"
cdef const char* FEATURE = b'{"type":"Feature","id":"'
cdef const char* GEOMETRY = b'","geometry":{"type":"Polygon","coordinates":[['
cdef const char* NUCLEUS = b']]},"nucleusGeometry":{"type":"Polygon","coordinates":[['
cdef const char* DETECTION = b']]},"properties":{"objectType":"detection"'
cdef const char* CELL = b']]},"properties":{"objectType":"cell"'
cdef const char* MEASUREMENTS = b',"measurements":{'
cdef enum:
    FEATURE_LENGTH = 24
    GEOMETRY_LENGTH = 47
    NUCLEUS_LENGTH = 56
    DETECTION_LENGTH = 42
    CELL_LENGTH = 37
    MEASUREMENTS_LENGTH = 17
    # Longest decimal of 64 bits with sign and point.
    NUMBER_LENGTH = 22
    UUID_LENGTH = 36
    VERTEX_LENGTH = 2 * 12 + 4
#: Stands for a measurement that there is none of.
cdef int64_t NONE = <int64_t>(<uint64_t>1 << 63)


def capacity(Py_ssize_t cells, Py_ssize_t vertices, Py_ssize_t columns, Py_ssize_t key_bytes):
    """Return how many bytes :func:`write_features` needs at most.

    ``key_bytes`` are those of a cell's names: of all measurements, and of the longest of ``said``.
    """
    cdef Py_ssize_t fixed = (
        FEATURE_LENGTH + UUID_LENGTH + GEOMETRY_LENGTH + NUCLEUS_LENGTH + DETECTION_LENGTH
        + MEASUREMENTS_LENGTH + 16
    )
    return cells * (fixed + key_bytes + columns * (NUMBER_LENGTH + 1)) + (vertices + cells) * VERTEX_LENGTH


def write_features(
    const int32_t[:, ::1] outline,
    int32_t outline_decimals,
    const int64_t[::1] start,
    const int32_t[::1] labels,
    const int64_t[:, ::1] values,
    const int32_t[::1] decimals,
    const uint8_t[::1] keys,
    const int32_t[::1] key_start,
    const int32_t[::1] says,
    const uint8_t[::1] said,
    const int32_t[::1] said_start,
    uint64_t space_high,
    uint64_t space_low,
    uint8_t[::1] out,
    const int32_t[:, ::1] nuclei=None,
    const int64_t[::1] nuclei_start=None,
):
    """Write one feature for each cell, each followed by a comma.

    Parameters
    ----------
    outline, outline_decimals, start
        Rings as in :class:`~cellseg.runtime.instances.Cells`, each with at least one vertex, as
        integers ``coordinate · 10^outline_decimals``.
    labels
        Shape (n,): the cells' numbers; they decide the identifiers.
    values
        Shape (n, m): measurements as integers, ``value · 10^decimals``; the smallest one, -2^63, stands
        for none, which is left out. In the first column there is always one.
    decimals
        Shape (m,): digits behind the point of each measurement, 0…18.
    keys, key_start
        The measurements' names as they stand in the text (with quotes, colon and all but the first a
        leading comma), end to end, and where each starts; shape (m + 1,).
    says, said, said_start
        Which of some texts stands in each cell's properties, shape (n,): ``,"name":value`` or nothing; end to
        end, and where each starts.
    space_high, space_low
        Identifiers of the same space differ for different labels.
    out
        At least :func:`capacity` bytes.
    nuclei, nuclei_start
        The rings of nuclei, as ``outline`` and ``start``: then these are the cells about them, and the features
        QuPath's cells instead of detections.

    Returns
    -------
    int
        Bytes written.
    """
    cdef uint8_t* at = &out[0]
    cdef Py_ssize_t cell, column, m = decimals.shape[0]
    cdef int64_t first, last
    with nogil:
        for cell in range(labels.shape[0]):
            at = _text(at, FEATURE, FEATURE_LENGTH)
            at = _uuid(at, space_high, space_low, <uint64_t>labels[cell])
            at = _text(at, GEOMETRY, GEOMETRY_LENGTH)
            at = _ring(at, &outline[start[cell], 0], start[cell + 1] - start[cell], outline_decimals)
            if nuclei_start is None:
                at = _text(at, DETECTION, DETECTION_LENGTH)
            else:
                first, last = nuclei_start[cell], nuclei_start[cell + 1]
                at = _text(at, NUCLEUS, NUCLEUS_LENGTH)
                at = _ring(at, &nuclei[first, 0], last - first, outline_decimals)
                at = _text(at, CELL, CELL_LENGTH)
            first, last = said_start[says[cell]], said_start[says[cell] + 1]
            if last > first:
                at = _text(at, <const char*>&said[first], last - first)
            at = _text(at, MEASUREMENTS, MEASUREMENTS_LENGTH)
            for column in range(m):
                if values[cell, column] == NONE:
                    continue
                at = _text(
                    at, <const char*>&keys[key_start[column]], key_start[column + 1] - key_start[column]
                )
                at = _number(at, values[cell, column], decimals[column])
            at = _text(at, b"}}},", 4)
    return at - &out[0]


cdef inline uint8_t* _text(uint8_t* at, const char* text, Py_ssize_t length) noexcept nogil:
    memcpy(at, text, length)
    return at + length


cdef inline uint8_t* _ring(uint8_t* at, const int32_t* points, int64_t n, int32_t decimals) noexcept nogil:
    """Write the corners of a ring, and the first of them again."""
    cdef int64_t i
    for i in range(n):
        at = _vertex(at, points[2 * i], points[2 * i + 1], decimals)
    at = _vertex(at, points[0], points[1], decimals)
    return at - 1  # the last comma


cdef inline uint8_t* _vertex(uint8_t* at, int64_t x, int64_t y, int32_t decimals) noexcept nogil:
    """Write ``[x,y],``."""
    at[0] = b"["
    at = _number(at + 1, x, decimals)
    at[0] = b","
    at = _number(at + 1, y, decimals)
    at[0] = b"]"
    at[1] = b","
    return at + 2


cdef inline uint8_t* _number(uint8_t* at, int64_t value, int32_t decimals) noexcept nogil:
    """Write ``value / 10^decimals`` without trailing zeros behind the point."""
    cdef uint8_t digits[24]
    cdef int count = 0
    cdef uint64_t rest
    if value < 0:
        at[0] = b"-"
        at += 1
        rest = <uint64_t>0 - <uint64_t>value
    else:
        rest = <uint64_t>value
    while decimals > 0 and rest % 10 == 0:
        rest //= 10
        decimals -= 1
    while rest or count <= decimals:
        digits[count] = <uint8_t>(48 + rest % 10)
        rest //= 10
        count += 1
    while count > 0:
        if count == decimals:
            at[0] = b"."
            at += 1
        count -= 1
        at[0] = digits[count]
        at += 1
    return at


cdef inline uint64_t _mix(uint64_t value) noexcept nogil:
    """Spread the bits of a number one to one (the finaliser of SplitMix64, Steele et al. 2014)."""
    value = (value ^ (value >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    value = (value ^ (value >> 27)) * <uint64_t>0x94D049BB133111EB
    return value ^ (value >> 31)


cdef inline uint8_t* _uuid(uint8_t* at, uint64_t high, uint64_t low, uint64_t label) noexcept nogil:
    """Write a UUID of version 8 (RFC 9562: vendor-specific), a function of space and label."""
    cdef int i
    cdef uint64_t word
    high = _mix(high + label * <uint64_t>0x9E3779B97F4A7C15)
    low = _mix(low ^ _mix(label + <uint64_t>0x9E3779B97F4A7C15))
    high = (high & ~<uint64_t>0xF000) | <uint64_t>0x8000
    low = (low & <uint64_t>0x3FFFFFFFFFFFFFFF) | <uint64_t>0x8000000000000000
    for i in range(32):
        if i == 8 or i == 12 or i == 16 or i == 20:
            at[0] = b"-"
            at += 1
        word = high if i < 16 else low
        at[0] = HEX[(word >> (60 - 4 * (i & 15))) & 15]
        at += 1
    return at
