"""Which instruction set the loops of ``widths.h`` use."""


cdef extern from "widths.h":
    int cellseg_widest()


cdef inline int take_width(level, void (*pick)(int) noexcept):
    """Let a kernel `pick` its loops for `level`, or for what this CPU has, which is also the limit."""
    cdef int widest = cellseg_widest()
    cdef int width = widest if level is None else max(0, min(level, widest))
    pick(width)
    return width
