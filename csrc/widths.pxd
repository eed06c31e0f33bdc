"""Which instruction set the loops of ``widths.h`` use."""


cdef extern from "widths.h":
    int cellseg_widest()


cdef inline int width_of(level):
    """Return the level to take: `level`, or what this CPU has, which is also the limit."""
    widest = cellseg_widest()
    return widest if level is None else max(0, min(level, widest))
