"""Draw rings into a small picture: how much of each pixel their lines cover, and in which colour.

A line is laid down in short pieces, each shared out over the four pixels around its middle by area. So
lines are smooth without supersampling, and what lies closer together than a pixel adds up instead of
vanishing. This module knows neither cells nor pictures.
"""

from libc.math cimport ceilf, fabsf, floorf
from libc.stdint cimport int32_t, int64_t, uint8_t

ctypedef fused Coordinate:
    int32_t
    float
    double


cdef inline void cover(uint8_t* at, float amount) noexcept nogil:
    cdef int total = at[0] + <int>(amount + 0.5)
    at[0] = <uint8_t>(total if total < 255 else 255)


def draw_rings(
    const Coordinate[:, ::1] points, const int64_t[::1] start, const uint8_t[::1] colours, float width,
    uint8_t[:, ::1] covered, uint8_t[:, ::1] colour,
    double x_scale=1, double y_scale=1, double shift=0,
):
    """Draw closed rings.

    Parameters
    ----------
    points
        (P, 2): x and y; scaled and shifted, pixels of the picture, the centre of a pixel at its index.
        What lies outside is left out.
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
    x_scale, y_scale, shift
        What points are multiplied with, and what is added then.
    """
    cdef Py_ssize_t height = covered.shape[0], columns = covered.shape[1]
    cdef Py_ssize_t ring, here, there, x, y
    cdef int piece, pieces
    cdef float x0, y0, x1 = 0, y1 = 0, dx, dy, px, py, ax, ay, amount, share, length
    cdef uint8_t tint
    with nogil:
        for ring in range(colours.shape[0]):
            tint = colours[ring]
            there = start[ring + 1] - 1
            for here in range(start[ring], start[ring + 1]):
                if here == start[ring]:
                    x0 = <float>(points[there, 0] * x_scale + shift)
                    y0 = <float>(points[there, 1] * y_scale + shift)
                else:
                    x0, y0 = x1, y1
                x1 = <float>(points[here, 0] * x_scale + shift)
                y1 = <float>(points[here, 1] * y_scale + shift)
                dx, dy = x1 - x0, y1 - y0
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
                    if 0 <= y < height - 1 and 0 <= x < columns - 1:  # nearly always
                        cover(&covered[y, x], amount * (1 - ax) * (1 - ay))
                        cover(&covered[y, x + 1], amount * ax * (1 - ay))
                        cover(&covered[y + 1, x], amount * (1 - ax) * ay)
                        cover(&covered[y + 1, x + 1], amount * ax * ay)
                        colour[y, x] = colour[y, x + 1] = colour[y + 1, x] = colour[y + 1, x + 1] = tint
                        continue
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


def lay_over(
    uint8_t[:, :, ::1] picture, const uint8_t[:, ::1] covered, const uint8_t[:, ::1] colour,
    const uint8_t[:, ::1] palette,
):
    """Lay what was drawn over a picture.

    Parameters
    ----------
    picture
        (H, W, 3); changed in place.
    covered, colour
        (H, W), as :func:`draw_rings` leaves them.
    palette
        (n, 3): what each colour looks like, in the picture's order of channels.
    """
    cdef Py_ssize_t y, x, c
    cdef int part, value
    with nogil:
        for y in range(picture.shape[0]):
            for x in range(picture.shape[1]):
                part = covered[y, x]
                if part == 0:
                    continue
                for c in range(3):
                    value = picture[y, x, c] * (255 - part) + palette[colour[y, x], c] * part
                    picture[y, x, c] = <uint8_t>((value + 127) // 255)
