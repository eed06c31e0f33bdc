"""Colour the pixels of a label image: each cell by a table, its outline stronger than its inside.

This module knows neither cells nor files: a number of a label image is an index into a table.
"""

from libc.stdint cimport int32_t, uint8_t


def tint(
    const int32_t[:, ::1] labels, const uint8_t[::1] colour_of, const uint8_t[:, ::1] palette, int inside,
    uint8_t[:, :, ::1] out,
):
    """Paint a tile of a label image with transparency.

    A pixel is on the outline where one of its four neighbours belongs to something else.

    Parameters
    ----------
    labels
        (H + 2, W + 2): the tile with one pixel around it; numbers are 0 (background) and up.
    colour_of
        (n,): the colour of each number; 0 hides it, as it does every number of n or more.
    palette
        (256, 4): what each colour looks like, opacity last.
    inside
        0…255: part of the opacity that the inside of a cell gets.
    out
        (H, W, 4); all of it is written.
    """
    cdef Py_ssize_t height = out.shape[0], width = out.shape[1], count = colour_of.shape[0]
    cdef Py_ssize_t y, x, c
    cdef int32_t here
    cdef uint8_t colour
    cdef int opacity
    if labels.shape[0] != height + 2 or labels.shape[1] != width + 2 or out.shape[2] != 4:
        raise ValueError("labels must be one pixel larger than the tile on every side")
    if palette.shape[0] != 256 or palette.shape[1] != 4:
        raise ValueError("a palette has 256 colours of 4 values")
    with nogil:
        for y in range(height):
            for x in range(width):
                here = labels[y + 1, x + 1]
                colour = colour_of[here] if 0 < here < count else 0
                if colour == 0:
                    out[y, x, 0] = out[y, x, 1] = out[y, x, 2] = out[y, x, 3] = 0
                    continue
                opacity = palette[colour, 3]
                if (
                    labels[y, x + 1] == here and labels[y + 2, x + 1] == here
                    and labels[y + 1, x] == here and labels[y + 1, x + 2] == here
                ):
                    opacity = (opacity * inside + 127) // 255
                for c in range(3):
                    out[y, x, c] = palette[colour, c]
                out[y, x, 3] = <uint8_t>opacity
