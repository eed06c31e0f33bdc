"""Finished components into measured cells, a batch in one call without the GIL.

For each component: paint its runs into a crop, fill small holes, make the landscape, flood it from
its significant peaks, drop small cells, measure and outline the rest. Nothing outside the component
is looked at, so the result depends neither on the other components nor on how the image was cut.
"""

import numpy as np
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from cells cimport NO_IMAGE, Results, Sources, free_results, measure_crop
from flood cimport Basin, Rules, find_basin, flood, prefetch
from landscape cimport combine, distance, floor_one, rise, smooth
from vector cimport Ints, free_ints, reserve_ints

from .measure import CELL_DTYPE

#: A component that is not cut: no cell ends behind these limits.
NO_LIMITS = (2**31 - 1, -1, 2**31 - 1, -1)

cdef enum:
    COMPONENT = 7  # columns of the table of components, see ``label.COMPONENT_FIELDS``
    LIMITS = 4  # row limit and floor, column limit and floor
    MAX_RADIUS = 24


cdef class Splitter:
    """A worker's rules and scratch memory; one batch at a time.

    Parameters
    ----------
    threshold
        Smallest mask byte that is foreground; only used to tell holes from other components.
    boundary_factor : ndarray of uint8, shape (256,) or None
        What is left of the mask (of 255) by boundary byte; ``None``: all of it.
    density_factor : ndarray of uint8, shape (256,) or None
        What is left of that (of 255) by density byte; ``None``: all of it. Without either table the
        mask is left out of the landscape.
    distance_height : ndarray of uint8, shape (4097,) or None
        What the landscape gains by squared distance to the outside in pixels; ``None`` leaves
        distance out.
    weights : ndarray of uint16
        Gaussian weights by distance, that sum to 256 over both sides; one weight: no smoothing.
    probability, mass : ndarray of float64, shape (256,)
        Foreground probability by mask byte and cells per pixel by density byte.
    persistence, min_seed_area, min_seed_mass, min_area, max_hole_area
        As in :class:`cellseg.runtime.spec.SplitSettings`; a mass of 0 ignores the density plane.
    hole_connectivity
        4 or 8: of the background, the other one than of the components.
    """

    cdef Rules rules
    cdef int32_t threshold, min_area, max_hole_area, hole_neighbours, radius, pad
    cdef bint use_boundary, use_density, use_distance
    cdef uint8_t[256] factor
    cdef uint8_t[256] density_factor
    cdef uint16_t[MAX_RADIUS + 1] weights
    cdef double[256] probability
    cdef double[256] mass
    cdef uint8_t[4097] heights
    # scratch: crops of `capacity` pixels
    cdef int64_t capacity
    cdef uint8_t* inside
    cdef uint8_t* source
    cdef uint8_t* level
    cdef uint8_t* density
    cdef uint16_t* across
    cdef int32_t* state
    cdef int32_t* pixels
    cdef Ints maxima, sorted_maxima, held
    cdef Basin* basins
    cdef int64_t basin_capacity
    cdef Results results
    cdef int64_t dropped, filled

    def __cinit__(
        self, *, int threshold, const uint8_t[::1] boundary_factor,
        const uint8_t[::1] density_factor, const uint8_t[::1] distance_height, const uint16_t[::1] weights,
        const double[::1] probability, const double[::1] mass, int persistence, int min_seed_area,
        double min_seed_mass, int min_area, int max_hole_area, int hole_connectivity,
    ):
        cdef int i
        self.threshold = threshold
        self.min_area = min_area
        self.max_hole_area = max_hole_area
        self.hole_neighbours = hole_connectivity
        self.rules.persistence = persistence
        self.rules.min_area = min_seed_area
        self.rules.min_mass = min_seed_mass
        self.use_boundary = boundary_factor is not None
        self.use_density = density_factor is not None
        if not 1 <= weights.shape[0] <= MAX_RADIUS + 1:
            raise ValueError(f"{weights.shape[0]} Gaussian weights; wanted 1 to {MAX_RADIUS + 1}")
        self.radius = <int32_t>weights.shape[0] - 1
        self.pad = max(self.radius, 1)
        for i in range(weights.shape[0]):
            self.weights[i] = weights[i]
        for i in range(256):
            self.factor[i] = boundary_factor[i] if self.use_boundary else 255
            self.density_factor[i] = density_factor[i] if self.use_density else 255
            self.probability[i] = probability[i]
            self.mass[i] = mass[i]
        self.use_distance = distance_height is not None
        if self.use_distance:
            for i in range(4097):
                self.heights[i] = distance_height[i]

    def __dealloc__(self):
        free(self.inside)
        free(self.source)
        free(self.level)
        free(self.density)
        free(self.across)
        free(self.state)
        free(self.pixels)
        free(self.basins)
        free_ints(&self.maxima)
        free_ints(&self.sorted_maxima)
        free_ints(&self.held)
        free_results(&self.results)

    def process(
        self,
        const int32_t[:, ::1] components,
        const int32_t[:, ::1] runs,
        const int32_t[:, ::1] limits,
        Py_ssize_t row0,
        const uintptr_t[::1] mask_rows,
        const uintptr_t[::1] boundary_rows,
        const uintptr_t[::1] density_rows,
        const uintptr_t[::1] image_rows,
        int image_kind,
        int channels,
    ):
        """Split and measure a batch of components.

        Parameters
        ----------
        components, runs
            As from ``RunLabeler.take``; ranges in ``components`` index the whole of ``runs``.
        limits
            ``None``, or shape (n, 4) for components that may still grow: a cell that ends behind
            the row limit and begins below the row floor is *held*; likewise for columns.
        row0
            Row of the image that the first address belongs to.
        mask_rows, boundary_rows, density_rows, image_rows
            Addresses of rows of the planes and of the image (interleaved channels); ``None`` where
            there is none. The rows live during the call.
        image_kind
            1 for uint8, 2 for uint16, 3 for float32; 0 without an image.
        channels
            Channels of the image; 0 without one.

        Returns
        -------
        cells : ndarray of :data:`cellseg.runtime.measure.CELL_DTYPE`, shape (n,)
        intensity : ndarray of float64, shape (n, channels)
            Means.
        outline : ndarray of int32, shape (P, 2)
            x and y of the corners; those of cell i end before ``outline_end[i]``.
        runs : ndarray of int32, shape (m, 4)
            Row, first and end column and cell, of every kept cell.
        held : ndarray of int32, shape (k, 5)
            Component, row, first and end column of the pixels of held cells, and 1 where the
            column limit holds them, 0 where only the row limit does.
        dropped, filled : int
            Cells dropped as too small, and holes filled.
        """
        cdef Sources sources
        cdef Py_ssize_t i
        sources.mask = &mask_rows[0]
        sources.image = &image_rows[0] if image_kind != NO_IMAGE else NULL
        sources.probability = self.probability
        sources.row0 = row0
        sources.kind = image_kind
        sources.channels = channels if image_kind != NO_IMAGE else 0
        cdef const uintptr_t* boundary = &boundary_rows[0] if self.use_boundary else NULL
        cdef bint dense = self.use_density or self.rules.min_mass > 0
        cdef const uintptr_t* density = &density_rows[0] if dense else NULL
        cdef Results* results = &self.results
        results.size = results.runs.size = results.outline.size = self.held.size = 0
        self.dropped = self.filled = 0
        with nogil:
            for i in range(components.shape[0]):
                if i + 1 < components.shape[0]:
                    _prefetch(&components[i + 1, 0], &runs[0, 0], boundary, &sources)
                self._component(
                    <int32_t>i, &components[i, 0], &runs[0, 0],
                    &limits[i, 0] if limits is not None else NULL,
                    boundary, density, &sources,
                )
        n = results.size
        cells = np.empty(n, CELL_DTYPE)
        intensity = np.empty((n, sources.channels), np.float64)
        outline = np.empty((results.outline.size // 2, 2), np.int32)
        label_runs = np.empty((results.runs.size // 4, 4), np.int32)
        held = np.empty((self.held.size // 5, 5), np.int32)
        _copy(cells, results.cells)
        _copy(intensity, results.intensity)
        _copy(outline, results.outline.data)
        _copy(label_runs, results.runs.data)
        _copy(held, self.held.data)
        return cells, intensity, outline, label_runs, held, self.dropped, self.filled

    cdef int _component(
        self, int32_t index, const int32_t* component, const int32_t* runs, const int32_t* limits,
        const uintptr_t* boundary, const uintptr_t* density, const Sources* sources,
    ) except -1 nogil:
        cdef int32_t y0 = component[2], x0 = component[3]
        cdef int32_t height = component[4] - y0, width = component[5] - x0
        cdef int64_t stride = width + self.pad
        cdef int64_t begin = (stride + 1) * self.pad  # pixel (y0, x0)
        cdef int64_t end = (height + self.pad) * stride
        cdef int64_t size = end + self.pad * stride + self.pad
        cdef const int32_t* run
        cdef int64_t i, at
        cdef int32_t x, y, n_basins, n_cells
        if <int64_t>height * width < self.min_area and limits == NULL:
            self.dropped += 1  # a speck: it holds no cell, however it is filled and split
            return 0
        self._reserve(size)
        # 1. Paint.
        self.maxima.size = 0  # for now the list of filled pixels
        memset(self.inside, 0, size)
        memset(self.source, 0, size)
        for i in range(component[0], component[1]):
            run = runs + 3 * i
            memset(self.inside + begin + (run[0] - y0) * stride + run[1] - x0, 255, run[2] - run[1])
        if component[6] != 0 and self.max_hole_area > 0:
            self._fill_holes(y0, x0, height, width, stride, begin, sources)
        # 2. Landscape.
        if self.use_boundary or self.use_density:
            for i in range(component[0], component[1]):
                run = runs + 3 * i
                self._shade(
                    self.source + begin + (run[0] - y0) * stride + run[1] - x0,
                    run[0], run[1], run[2] - run[1], boundary, density, sources,
                )
            for i in range(self.maxima.size):
                at = self.maxima.data[i] - begin
                y, x = <int32_t>(at // stride), <int32_t>(at % stride)
                self._shade(self.source + begin + at, y0 + y, x0 + x, 1, boundary, density, sources)
        if self.use_distance:
            distance(self.inside, self.level, self.across, stride, begin, end, self.heights)
            rise(self.source, self.level, begin, end)
        if self.radius:
            memset(self.level, 0, size)
            smooth(
                self.source, self.inside, self.level, self.across, <uint32_t*>self.state,
                stride, begin, end, self.weights, self.radius,
            )
        else:
            floor_one(self.source, self.inside, self.level, size)
        if self.rules.min_mass > 0:
            for y in range(height):
                memcpy(
                    self.density + begin + y * stride,
                    <const uint8_t*>density[y0 + y - sources.row0] + x0, width,
                )
        # 3. Flood.
        self._find_maxima(stride, begin, end)
        n_basins = flood(
            self.level, self.density, self.mass, self.state, self.pixels,
            self.sorted_maxima.data, <int32_t>self.sorted_maxima.size, <int32_t>stride,
            <int32_t>begin, <int32_t>end, self.basins, &self.rules,
        )
        # 4. Number, hold back, drop; measure.
        if limits != NULL:
            self._hold(index, y0, x0, height, width, stride, begin, n_basins, limits, sources)
        n_cells = self._number(height, width, stride, begin, n_basins)
        measure_crop(
            self.state, self.source, stride, begin, y0, x0, height, width, n_cells, index,
            sources, &self.results,
        )
        return 0

    cdef void _shade(
        self, uint8_t* out, int32_t y, int32_t x, int32_t n, const uintptr_t* boundary,
        const uintptr_t* density, const Sources* sources,
    ) noexcept nogil:
        """Put what boundary and density leave of the mask into ``n`` pixels from (y, x) on."""
        cdef int64_t row = y - sources.row0
        cdef const uint8_t* mask = <const uint8_t*>sources.mask[row] + x
        cdef const uint8_t* plane
        cdef int32_t i
        if self.use_boundary:
            plane = <const uint8_t*>boundary[row] + x
            for i in range(n):
                out[i] = combine(mask[i], self.factor[plane[i]])
        else:
            memcpy(out, mask, n)
        if self.use_density:
            plane = <const uint8_t*>density[row] + x
            for i in range(n):
                out[i] = combine(out[i], self.density_factor[plane[i]])

    cdef int _fill_holes(
        self, int32_t y0, int32_t x0, int32_t height, int32_t width, int64_t stride, int64_t begin,
        const Sources* sources,
    ) except -1 nogil:
        """Fill holes that are small and hold no foreground; list the pixels in ``maxima``.

        A hole with another component in it (or with pixels that this component has lost to a cut)
        is no hole in a cell, so it stays.
        """
        cdef int32_t[8] step
        cdef int32_t y, x, p, n, side
        cdef int64_t i, first, top, at
        cdef bint pure
        cdef const uint8_t* mask
        cdef uint8_t* mark = self.source  # still zeros; here 1: background seen
        cdef Ints* found = &self.maxima
        cdef int32_t* stack = self.pixels
        step[0] = 1; step[1] = -1; step[2] = <int32_t>stride; step[3] = -<int32_t>stride
        step[4] = <int32_t>stride + 1; step[5] = <int32_t>stride - 1
        step[6] = -<int32_t>stride + 1; step[7] = -<int32_t>stride - 1
        # The frame counts as seen, so that no walk leaves the crop.
        memset(mark, 1, begin)
        for y in range(height):
            memset(mark + begin + y * stride + width, 1, self.pad)
        memset(mark + begin + height * stride - self.pad, 1, stride * self.pad + self.pad)
        # Everything reachable from the edge of the crop is outside.
        for y in range(height):
            for x in range(width):
                if y != 0 and y != height - 1 and x != 0 and x != width - 1:
                    continue
                p = <int32_t>(begin + y * stride + x)
                if self.inside[p] or mark[p]:
                    continue
                mark[p] = 1
                stack[0] = p
                top = 1
                while top:
                    top -= 1
                    p = stack[top]
                    for side in range(self.hole_neighbours):
                        n = p + step[side]
                        if not (mark[n] or self.inside[n]):
                            mark[n] = 1
                            stack[top] = n
                            top += 1
        for y in range(1, height - 1):
            for x in range(1, width - 1):
                p = <int32_t>(begin + y * stride + x)
                if self.inside[p] or mark[p]:
                    continue
                first = found.size
                mark[p] = 1
                reserve_ints(found, 1)
                found.data[first] = p
                found.size += 1
                i = first
                pure = True
                while i < found.size:  # the list is its own queue
                    p = found.data[i]
                    i += 1
                    at = p - begin
                    mask = <const uint8_t*>sources.mask[y0 + at // stride - sources.row0] + x0
                    if mask[at % stride] >= self.threshold:
                        pure = False
                    reserve_ints(found, 8)
                    for side in range(self.hole_neighbours):
                        n = p + step[side]
                        if not (mark[n] or self.inside[n]):
                            mark[n] = 1
                            found.data[found.size] = n
                            found.size += 1
                if not pure or found.size - first > self.max_hole_area:
                    found.size = first
                else:
                    self.filled += 1
        for i in range(found.size):
            self.inside[found.data[i]] = 255
        memset(mark, 0, (height + 2 * self.pad) * stride + self.pad)
        return 0

    cdef int _find_maxima(self, int64_t stride, int64_t begin, int64_t end) except -1 nogil:
        """List the pixels where a basin may begin, by falling level.

        Of a flat maximum only pixels without an equal neighbour before them count, its first pixel
        among them.
        """
        cdef int64_t i, n = 0
        cdef int32_t h, total = 0
        cdef int32_t[256] count
        cdef const uint8_t* level = self.level
        cdef uint8_t* candidate = self.source  # the landscape before smoothing is not needed now
        cdef const uint8_t* l
        cdef int64_t left = -1
        cdef void* memory
        for i in range(begin, end):
            l = level + i
            candidate[i] = (
                (l[0] > l[left]) & (l[0] > l[-stride]) & (l[0] >= l[1]) & (l[0] >= l[stride])
            )
        memset(count, 0, sizeof(count))
        self.maxima.size = 0
        for i in range(begin, end):
            if candidate[i]:
                reserve_ints(&self.maxima, 1)
                self.maxima.data[self.maxima.size] = <int32_t>i
                self.maxima.size += 1
                count[level[i]] += 1
        for h in range(255, -1, -1):
            total += count[h]
            count[h] = total - count[h]
        self.sorted_maxima.size = 0
        reserve_ints(&self.sorted_maxima, self.maxima.size)
        self.sorted_maxima.size = self.maxima.size
        for i in range(self.maxima.size):
            h = level[self.maxima.data[i]]
            self.sorted_maxima.data[count[h]] = self.maxima.data[i]
            count[h] += 1
        if self.maxima.size + 1 > self.basin_capacity:
            n = max(self.maxima.size + 1, 2 * self.basin_capacity, 64)
            memory = realloc(self.basins, n * sizeof(Basin))
            if memory == NULL:
                with gil:
                    raise MemoryError(f"no memory for {n} basins")
            self.basins = <Basin*>memory
            self.basin_capacity = n
        return 0

    cdef int _hold(
        self, int32_t index, int32_t y0, int32_t x0, int32_t height, int32_t width, int64_t stride,
        int64_t begin, int32_t n_basins, const int32_t* limits, const Sources* sources,
    ) except -1 nogil:
        """Take the cells that may still change out of a component that is not finished.

        A cell that consists of filled holes only is dropped here: were it finished, the pixels that
        remain could take it for a hole and fill it a second time.
        """
        cdef int32_t y, x, b, start
        cdef int32_t* row
        cdef int32_t* out
        cdef Basin* basin
        cdef const uint8_t* mask
        cdef bint by_column
        for b in range(1, n_basins + 1):
            basin = self.basins + b
            basin.y0 = basin.x0 = 2**31 - 1
            basin.y1 = basin.x1 = basin.solid = 0
        for y in range(height):
            row = self.state + begin + y * stride
            mask = <const uint8_t*>sources.mask[y0 + y - sources.row0] + x0
            for x in range(width):
                if row[x] > 0:
                    basin = self.basins + find_basin(self.basins, row[x])
                    basin.y0 = min(basin.y0, y0 + y)
                    basin.y1 = max(basin.y1, y0 + y + 1)
                    basin.x0 = min(basin.x0, x0 + x)
                    basin.x1 = max(basin.x1, x0 + x + 1)
                    basin.solid |= mask[x] >= self.threshold
        for y in range(height):
            row = self.state + begin + y * stride
            reserve_ints(&self.held, 5 * width)
            x = 0
            while x < width:
                if row[x] <= 0:
                    x += 1
                    continue
                start = x
                b = find_basin(self.basins, row[x])
                while row[x] > 0 and (row[x] == row[start] or find_basin(self.basins, row[x]) == b):
                    x += 1
                basin = self.basins + b
                by_column = basin.x1 > limits[2] and basin.x0 > limits[3]
                if by_column or (basin.y1 > limits[0] and basin.y0 > limits[1]):
                    out = self.held.data + self.held.size
                    out[0] = index
                    out[1] = y0 + y
                    out[2] = x0 + start
                    out[3] = x0 + x
                    out[4] = by_column
                    self.held.size += 5
                    basin.area = max(basin.area, self.min_area)  # it does not count as dropped
                elif basin.solid:
                    continue
                else:
                    basin.area = 0
                memset(row + start, 0, (x - start) * sizeof(int32_t))
        return 0

    cdef int32_t _number(
        self, int32_t height, int32_t width, int64_t stride, int64_t begin, int32_t n_basins,
    ) noexcept nogil:
        """Replace basins by cells 1…n in raster order of the first pixel; small ones by 0."""
        cdef int32_t b, root, y, x, n_cells = 0
        cdef Basin* basins = self.basins
        cdef int32_t* row
        for b in range(1, n_basins + 1):
            basins[b].cell = -1
            if basins[b].parent == b and basins[b].area < self.min_area:
                basins[b].cell = 0
                self.dropped += 1
        for y in range(height):
            row = self.state + begin + y * stride
            for x in range(width):
                b = row[x]
                if b <= 0:
                    continue
                if basins[b].cell < 0:
                    root = find_basin(basins, b)
                    if basins[root].cell < 0:
                        n_cells += 1
                        basins[root].cell = n_cells
                    basins[b].cell = basins[root].cell
                row[x] = basins[b].cell
        return n_cells

    cdef int _reserve(self, int64_t size) except -1 nogil:
        """Scratch for crops of ``size`` pixels."""
        cdef int64_t capacity
        if size <= self.capacity:
            return 0
        capacity = max(size, self.capacity + self.capacity // 2, 4096)
        free(self.inside)
        free(self.source)
        free(self.level)
        free(self.density)
        free(self.across)
        free(self.state)
        free(self.pixels)
        self.capacity = 0
        self.inside = <uint8_t*>realloc(NULL, capacity)
        self.source = <uint8_t*>realloc(NULL, capacity)
        self.level = <uint8_t*>realloc(NULL, capacity)
        self.density = <uint8_t*>realloc(NULL, capacity if self.rules.min_mass > 0 else 1)
        self.across = <uint16_t*>realloc(NULL, 2 * capacity)
        self.state = <int32_t*>realloc(NULL, 4 * capacity)
        self.pixels = <int32_t*>realloc(NULL, 4 * (capacity + 256))
        if (
            self.inside == NULL or self.source == NULL or self.level == NULL or self.density == NULL
            or self.across == NULL or self.state == NULL or self.pixels == NULL
        ):
            with gil:
                raise MemoryError(f"no memory to split a component of {size} pixels")
        self.capacity = capacity
        return 0


cdef void _prefetch(
    const int32_t* component, const int32_t* runs, const uintptr_t* boundary, const Sources* sources,
) noexcept nogil:
    """Ask for the planes under a component; its rows lie too far apart for the hardware to guess."""
    cdef int64_t i, row
    for i in range(component[0], component[1]):
        row = runs[3 * i] - sources.row0
        prefetch(<const uint8_t*>sources.mask[row] + runs[3 * i + 1])
        if boundary != NULL:
            prefetch(<const uint8_t*>boundary[row] + runs[3 * i + 1])


cdef void _copy(target, const void* source):
    cdef uintptr_t address = target.ctypes.data
    if target.nbytes:
        memcpy(<void*>address, source, target.nbytes)
