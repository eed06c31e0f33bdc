"""Shape of one cell in a label crop: outline, hull and moments.

Header only; shared by the ``split`` and ``measure`` kernels. All functions take a pointer to the
label crop, whose pixels beyond the cell's surroundings may be read one step in each direction: the
crop must have a frame of at least one pixel of another value.
"""

from libc.math cimport sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from vector cimport Ints, reserve_ints


cdef extern from *:
    """
    static const unsigned char SHARE[50] = {
        [5] = 1, [7] = 1, [15] = 1, [17] = 1, [25] = 1, [27] = 1, [21] = 2, [33] = 2, [13] = 3, [23] = 3
    };
    """
    const uint8_t SHARE[50]


cdef struct Cell:
    # 8-byte fields first, so that the layout has no padding
    int64_t area  # pixels
    int64_t outline_end  # position behind its outline, in points
    double centroid_y  # rows; the centre of a pixel is its integer index
    double centroid_x
    double perimeter  # pixels
    double eccentricity
    double solidity
    double mean_probability
    double score
    int32_t y0  # bounding box, half-open
    int32_t x0
    int32_t y1
    int32_t x1
    int32_t first_x  # column of the first pixel in row y0
    int32_t component


cdef struct Moments:
    # Sums over the pixels of a cell, relative to its first pixel, so that equal cells measure equal.
    int64_t y
    int64_t x
    int64_t yy
    int64_t xx
    int64_t xy
    double probability


cdef inline void add_run(Moments* moments, int64_t y, int64_t x0, int64_t x1) noexcept nogil:
    """Add the pixels ``[x0, x1)`` of row ``y`` (relative to the first pixel) in closed form."""
    cdef int64_t n = x1 - x0
    cdef int64_t sum_x = n * (x0 + x1 - 1) / 2
    moments.y += n * y
    moments.x += sum_x
    moments.yy += n * y * y
    moments.xy += y * sum_x
    # sum of x² below k is (k - 1) k (2k - 1) / 6
    moments.xx += ((x1 - 1) * x1 * (2 * x1 - 1) - (x0 - 1) * x0 * (2 * x0 - 1)) / 6


cdef inline void finish_moments(const Moments* moments, Cell* cell, int32_t y, int32_t x) noexcept nogil:
    """Centroid and eccentricity (of the ellipse with the same second moments, as scikit-image)."""
    cdef double n = <double>cell.area
    cdef double my = moments.y / n
    cdef double mx = moments.x / n
    cdef double yy = moments.yy / n - my * my
    cdef double xx = moments.xx / n - mx * mx
    cdef double xy = moments.xy / n - mx * my
    cdef double half = (yy + xx) / 2
    cdef double root = sqrt((yy - xx) * (yy - xx) / 4 + xy * xy)
    cdef double large = half + root
    cdef double small = max(half - root, 0.0)
    cell.centroid_y = y + my
    cell.centroid_x = x + mx
    cell.eccentricity = sqrt(max(1.0 - small / large, 0.0)) if large > 1e-12 else 0.0
    cell.mean_probability = cell.score = moments.probability / n


cdef inline int trace_outline(
    const int32_t* labels,  # at the first pixel (raster order) of the cell
    int64_t stride,
    int32_t y,  # of that pixel in the image
    int32_t x,
    int32_t* extent,  # out: first column and end column of each row of the cell, from row y on
    int32_t* n_rows,  # out
    Ints* points,  # out: x, y of each corner is appended
) except -1 nogil:
    """Follow the cracks around a cell, clockwise on the screen, the cell on the right-hand side.

    Where two pixels of the cell touch by a corner only, the walk crosses over: with a 4-connected
    cell this keeps the ring simple, as the two background pixels of such a corner then lie on
    different sides of the cell::

        # .        arriving at the corner from the left along the upper pixel's lower edge would
        . #        enter the pocket; crossing over leaves it to the hole's own ring.
    """
    cdef int32_t label = labels[0]
    cdef int32_t cy = 0, cx = 0, rows = 0
    cdef int direction = 0, new  # 0 east, 1 south, 2 west, 3 north
    cdef int64_t ahead_left, ahead_right
    cdef const int32_t* at = labels  # the pixel south-east of the corner
    cdef int64_t[4] step
    cdef int64_t[4] left
    cdef int64_t[4] right
    cdef int32_t[4] dy
    cdef int32_t[4] dx
    step[0] = 1; step[1] = stride; step[2] = -1; step[3] = -stride
    # pixels around a corner: NW is at -stride-1, NE -stride, SW -1, SE 0
    left[0] = -stride; left[1] = 0; left[2] = -1; left[3] = -stride - 1
    right[0] = 0; right[1] = -1; right[2] = -stride - 1; right[3] = -stride
    dy[0] = 0; dy[1] = 1; dy[2] = 0; dy[3] = -1
    dx[0] = 1; dx[1] = 0; dx[2] = -1; dx[3] = 0
    reserve_ints(points, 1024)
    points.data[points.size] = x
    points.data[points.size + 1] = y
    points.size += 2
    while True:
        # one edge ahead; vertical edges mark the extent of their row
        if direction == 1:
            if cy >= rows:
                extent[2 * cy] = cx
                extent[2 * cy + 1] = cx
                rows = cy + 1
            else:
                extent[2 * cy + 1] = max(extent[2 * cy + 1], cx)
        elif direction == 3:
            extent[2 * cy - 2] = min(extent[2 * cy - 2], cx)
        cy += dy[direction]
        cx += dx[direction]
        at += step[direction]
        if at == labels:
            break
        if at[left[direction]] == label:
            new = (direction + 3) & 3
        elif at[right[direction]] == label:
            continue
        else:
            new = (direction + 1) & 3
        direction = new
        if points.size + 2 > points.capacity:
            reserve_ints(points, 2)
        points.data[points.size] = x + cx
        points.data[points.size + 1] = y + cy
        points.size += 2
    n_rows[0] = rows
    return 0


cdef inline int64_t chain_area(const int32_t* extent, int32_t rows, int side, int32_t* stack) noexcept nogil:
    """Twice the area between column 0 and the convex chain of one side (0 left, 1 right) of a cell.

    ``stack`` has room for ``2 * rows + 2`` values.
    """
    cdef int32_t t, x, top = 0
    cdef int64_t cross, area = 0
    for t in range(rows + 1):
        # the outermost corner on grid line t
        if t == 0:
            x = extent[side]
        elif t == rows:
            x = extent[2 * rows - 2 + side]
        elif side:
            x = max(extent[2 * t - 1], extent[2 * t + 1])
        else:
            x = min(extent[2 * t - 2], extent[2 * t])
        while top >= 2:
            cross = <int64_t>(stack[2 * top - 1] - stack[2 * top - 3]) * (x - stack[2 * top - 4]) - \
                <int64_t>(t - stack[2 * top - 3]) * (stack[2 * top - 2] - stack[2 * top - 4])
            # right side: the middle point stays when it bulges to larger x
            if (cross >= 0) if side else (cross <= 0):
                top -= 1
            else:
                break
        stack[2 * top] = x
        stack[2 * top + 1] = t
        top += 1
    for t in range(top - 1):
        area += <int64_t>(stack[2 * t] + stack[2 * t + 2]) * (stack[2 * t + 3] - stack[2 * t + 1])
    return area


cdef inline double hull_area(const int32_t* extent, int32_t rows, int32_t* stack) noexcept nogil:
    """Area of the convex hull of the pixels' corners, in pixels."""
    return (chain_area(extent, rows, 1, stack) - chain_area(extent, rows, 0, stack)) / 2.0


cdef inline int border_share(const int32_t* at, const uint8_t* border, int64_t stride) noexcept nogil:
    """Share of a border pixel in the perimeter: 0 none, 1 straight, 2 diagonal, 3 half of each.

    A neighbourhood counts 1, and 2 for each direct and 10 for each diagonal neighbour that is a
    border pixel of the same cell.

    Source: K. Benkrid, D. Crookes, A. Benkrid, *Design and FPGA Implementation of a Perimeter
    Estimator*, 2000; the definition that scikit-image's ``perimeter`` uses.
    """
    cdef int32_t label = at[0]
    cdef int code = 1, side
    cdef int64_t step
    for side in range(4):
        step = 1 if side == 0 else -1 if side == 1 else stride if side == 2 else -stride
        code += 2 * (border[step] & (at[step] == label))
        step = stride + 1 if side == 0 else stride - 1 if side == 1 else 1 - stride if side == 2 else -stride - 1
        code += 10 * (border[step] & (at[step] == label))
    return SHARE[code]


cdef inline double perimeter(const int32_t* counts) noexcept nogil:
    """Perimeter from the number of border pixels by share."""
    cdef double root = sqrt(2.0)
    return counts[1] + counts[2] * root + counts[3] * (1 + root) / 2
