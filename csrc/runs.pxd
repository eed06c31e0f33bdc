"""Records that the kernels hand to one another: runs of pixels, and components made of them.

Header only. Each has a dtype of the same layout in ``label`` or ``split``; coordinates are those of the
whole image, and ranges are half-open.
"""

from libc.stdint cimport int32_t


cdef packed struct Run:
    # A stretch of foreground in one row.
    int32_t y
    int32_t x0
    int32_t x1


cdef packed struct Component:
    int32_t run_begin  # its range in an array of runs
    int32_t run_end
    int32_t y0  # bounding box
    int32_t x0
    int32_t y1
    int32_t x1
    int32_t holes  # how many; -1 where that is not known
    int32_t marked  # as of ``RunLabeler.mark``


cdef packed struct CellRun:
    # A stretch of one cell in one row.
    int32_t y
    int32_t x0
    int32_t x1
    int32_t cell


cdef packed struct HeldRun:
    # A stretch of a cell that may still change, taken out of a component.
    int32_t component
    int32_t y
    int32_t x0
    int32_t x1
    int32_t by_column  # 1 where the column limit holds it, 0 where only the row limit does


cdef packed struct Limits:
    # A cell that ends behind a limit and begins below its floor is held.
    int32_t y
    int32_t y_floor
    int32_t x
    int32_t x_floor


cdef inline int by_place(const void* one, const void* other) noexcept nogil:
    """Order of runs: by row, then by column."""
    cdef const Run* a = <const Run*>one
    cdef const Run* b = <const Run*>other
    if a.y != b.y:
        return -1 if a.y < b.y else 1
    return -1 if a.x0 < b.x0 else <int>(a.x0 > b.x0)
