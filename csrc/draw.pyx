"""Draw rings into a small picture: how much of each pixel their lines cover, and in which colour.

A line is laid down in short pieces, each shared out over the four pixels around its middle by area. So
lines are smooth without supersampling, and what lies closer together than a pixel adds up instead of
vanishing. This module knows neither cells nor pictures.
"""

from libc.math cimport ceilf, fabsf, floorf
from libc.stdint cimport int64_t, uint8_t


cdef inline void cover(uint8_t* at, float amount) noexcept nogil:
    cdef int total = at[0] + <int>(amount + 0.5)
    at[0] = <uint8_t>(total if total < 255 else 255)


def draw_rings(
    const float[:, ::1] points, const int64_t[::1] start, const uint8_t[::1] colours, float width,
    uint8_t[:, ::1] covered, uint8_t[:, ::1] colour,
):
    """Draw closed rings.

    Parameters
    ----------
    points
        (P, 2): x and y in pixels of the picture, the centre of a pixel at its index. What lies outside
        is left out.
    start
        (n + 1,): the ring of cell i is ``points[start[i]:start[i + 1]]``.
    colours
        (n,): of each ring.
    width
        Of the lines in pixels.
    covered
        (H, W): 0…255; added to, up to 255.
    colour
        (H, W): set wherever a line reaches.
    """
    cdef Py_ssize_t height = covered.shape[0], columns = covered.shape[1]
    cdef Py_ssize_t ring, here, there, x, y
    cdef int piece, pieces
    cdef float x0, y0, dx, dy, px, py, ax, ay, amount, share, length
    cdef uint8_t tint
    with nogil:
        for ring in range(colours.shape[0]):
            tint = colours[ring]
            there = start[ring + 1] - 1
            for here in range(start[ring], start[ring + 1]):
                x0, y0 = points[there, 0], points[there, 1]
                dx, dy = points[here, 0] - x0, points[here, 1] - y0
                there = here
                # Along the axes, as cells' outlines run, this is the length; of a slanting line it is more.
                length = fabsf(dx) + fabsf(dy)
                pieces = <int>ceilf(2 * length)
                if pieces < 1:
                    continue
                amount = 255 * width * length / pieces
                for piece in range(pieces):
                    share = (piece + <float>0.5) / pieces
                    px, py = x0 + share * dx, y0 + share * dy
                    x, y = <Py_ssize_t>floorf(px), <Py_ssize_t>floorf(py)
                    ax, ay = px - x, py - y
                    if 0 <= y < height:
                        if 0 <= x < columns:
                            cover(&covered[y, x], amount * (1 - ax) * (1 - ay))
                            colour[y, x] = tint
                        if -1 <= x < columns - 1:
                            cover(&covered[y, x + 1], amount * ax * (1 - ay))
                            colour[y, x + 1] = tint
                    if -1 <= y < height - 1:
                        if 0 <= x < columns:
                            cover(&covered[y + 1, x], amount * (1 - ax) * ay)
                            colour[y + 1, x] = tint
                        if -1 <= x < columns - 1:
                            cover(&covered[y + 1, x + 1], amount * ax * ay)
                            colour[y + 1, x + 1] = tint
