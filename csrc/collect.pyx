"""Cells of many batches into one table, in raster order of their first pixels.

Places are found by prefix sums over the rows in which cells begin, and then sorted within a row. Each
value is copied once.
"""

import numpy as np
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy

from shape cimport Cell
from vector cimport Ints, Vector, free_ints, free_vector, reserve, reserve_ints


cdef struct Source:
    # A batch.
    const Cell* cells
    const double* intensity  # cells × columns
    const int32_t* outline  # x, y
    int32_t* numbers  # of its cells; 0: none yet
    int64_t n


cdef struct Place:
    # A cell on its way into the table.
    int32_t x  # column of its first pixel
    int32_t source
    int32_t cell


cdef int by_column(const void* one, const void* other) noexcept nogil:
    cdef int32_t a = (<const Place*>one).x, b = (<const Place*>other).x
    return (a > b) - (a < b)


cdef class Collector:
    """Takes cells out of batches; its scratch memory is used again.

    Parameters
    ----------
    height, width
        Size of the image in pixels.
    names
        Columns of what was measured of the image, in the order of the batches' values.
    """

    cdef int32_t height, width, measured
    cdef list names
    cdef Vector sources, places  # of Source, of Place
    cdef Ints rows  # where the cells of each row go; the last one: how many there are

    def __cinit__(self, int height, int width, list names):
        self.height, self.width, self.measured = height, width, len(names)
        self.names = names

    def __dealloc__(self):
        free_vector(&self.sources)
        free_vector(&self.places)
        free_ints(&self.rows)

    def take(self, list batches, int y0, int y1, int first_number):
        """Number the cells that have no number yet and begin in the rows ``y0`` to ``y1``.

        Parameters
        ----------
        batches
            Of ``cells``, ``intensity``, ``outline`` as from ``split.Splitter.process``, and ``numbers``
            (int32, one a cell; 0 for none), which are written. No cell without a number begins above
            ``y0``.
        first_number
            Of the first cell; the others follow.

        Returns
        -------
        columns : dict of str to ndarray
            All columns of ``instances.cells.COLUMNS`` and those of ``names``.
        outline : ndarray of int32, shape (P, 2)
        outline_start : ndarray of int64, shape (n + 1,)
            The outline of cell i lies between ``outline_start[i]`` and ``outline_start[i + 1]``.
        """
        cdef int64_t points = 0, n = 0
        self._look_at(batches)
        self.rows.size = 0
        reserve_ints(&self.rows, y1 - y0 + 1)
        with nogil:
            self._sort(y0, y1, &n, &points)
        return self._write(n, points, first_number)

    cdef int _look_at(self, list batches) except -1:
        """Note where the batches lie; they live during the call."""
        cdef Source* source
        cdef const Cell[::1] cells
        cdef const double[:, ::1] intensity
        cdef const int32_t[:, ::1] outline
        cdef int32_t[::1] numbers
        self.sources.size = 0
        for cells, intensity, outline, numbers in batches:
            source = <Source*>reserve(&self.sources, 1, sizeof(Source), b"batches of cells")
            source.n = cells.shape[0]
            source.cells = &cells[0]
            source.intensity = &intensity[0, 0]
            source.outline = &outline[0, 0]
            source.numbers = &numbers[0]
            self.sources.size += 1
        return 0

    cdef int _sort(self, int32_t y0, int32_t y1, int64_t* n, int64_t* points) except -1 nogil:
        """List the cells to take in raster order; count them and the points of their outlines."""
        cdef const Source* source
        cdef const Cell* cell
        cdef Place* places
        cdef Place* place
        cdef int32_t* rows = self.rows.data
        cdef int32_t y, total = 0, count
        cdef int64_t s, i
        for y in range(y1 - y0 + 1):
            rows[y] = 0
        for s in range(self.sources.size):
            source = <const Source*>self.sources.data + s
            for i in range(source.n):
                cell = source.cells + i
                if source.numbers[i] == 0 and cell.y0 < y1:
                    rows[cell.y0 - y0] += 1
                    points[0] += cell.outline_end - (source.cells[i - 1].outline_end if i else 0)
        for y in range(y1 - y0 + 1):
            count = rows[y]
            rows[y] = total
            total += count
        n[0] = total
        self.places.size = 0
        places = <Place*>reserve(&self.places, total, sizeof(Place), b"cells")
        for s in range(self.sources.size):
            source = <const Source*>self.sources.data + s
            for i in range(source.n):
                cell = source.cells + i
                if source.numbers[i] == 0 and cell.y0 < y1:
                    place = places + rows[cell.y0 - y0]
                    rows[cell.y0 - y0] += 1
                    place.x, place.source, place.cell = cell.first_x, <int32_t>s, <int32_t>i
        total = 0
        for y in range(y1 - y0):  # the place behind a row's cells is where the next row's begin
            if rows[y] - total > 1:
                qsort(places + total, rows[y] - total, sizeof(Place), by_column)
            total = rows[y]
        return 0

    cdef object _write(self, int64_t n, int64_t points, int32_t first_number):
        """Copy the cells that are listed."""
        cdef int32_t[::1] label, y0, x0, y1, x1
        cdef double[::1] centroid_y, centroid_x, perimeter, eccentricity, solidity, probability, score
        cdef int64_t[::1] area, start
        cdef uint8_t[::1] touches
        cdef double[:, ::1] intensity
        cdef int32_t[:, ::1] outline
        cdef const Source* source
        cdef const Cell* cell
        cdef const Place* places = <const Place*>self.places.data
        cdef int64_t i, at = 0, begin, length
        cdef int32_t c
        columns = {
            "label": np.empty(n, np.int32),
            "centroid_y": np.empty(n), "centroid_x": np.empty(n),
            "y0": np.empty(n, np.int32), "x0": np.empty(n, np.int32),
            "y1": np.empty(n, np.int32), "x1": np.empty(n, np.int32),
            "area": np.empty(n, np.int64),
            "perimeter": np.empty(n), "eccentricity": np.empty(n), "solidity": np.empty(n),
            "mean_probability": np.empty(n), "score": np.empty(n),
            "touches_border": np.empty(n, np.bool_),
        }
        by_name = np.empty((self.measured, n))
        rings = np.empty((points, 2), np.int32)
        starts = np.empty(n + 1, np.int64)
        label, area, score = columns["label"], columns["area"], columns["score"]
        y0, x0, y1, x1 = columns["y0"], columns["x0"], columns["y1"], columns["x1"]
        centroid_y, centroid_x = columns["centroid_y"], columns["centroid_x"]
        perimeter, eccentricity = columns["perimeter"], columns["eccentricity"]
        solidity, probability = columns["solidity"], columns["mean_probability"]
        touches = columns["touches_border"].view(np.uint8)
        intensity, outline, start = by_name, rings, starts
        with nogil:
            for i in range(n):
                source = <const Source*>self.sources.data + places[i].source
                cell = source.cells + places[i].cell
                source.numbers[places[i].cell] = label[i] = first_number + <int32_t>i
                area[i], score[i] = cell.area, cell.score
                y0[i], x0[i], y1[i], x1[i] = cell.y0, cell.x0, cell.y1, cell.x1
                centroid_y[i], centroid_x[i] = cell.centroid_y, cell.centroid_x
                perimeter[i], eccentricity[i] = cell.perimeter, cell.eccentricity
                solidity[i], probability[i] = cell.solidity, cell.mean_probability
                touches[i] = (
                    cell.y0 == 0 or cell.x0 == 0 or cell.y1 == self.height or cell.x1 == self.width
                )
                for c in range(self.measured):
                    intensity[c, i] = source.intensity[places[i].cell * self.measured + c]
                begin = source.cells[places[i].cell - 1].outline_end if places[i].cell else 0
                length = cell.outline_end - begin
                start[i] = at
                memcpy(&outline[at, 0], source.outline + 2 * begin, length * 2 * sizeof(int32_t))
                at += length
            start[n] = at
        for c in range(self.measured):
            columns[self.names[c]] = by_name[c]
        return columns, rings, starts
