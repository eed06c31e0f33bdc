"""Finished components into measured cells, a batch in one call without the GIL.

For each component: fill small holes, paint its runs into a crop, make the landscape, flood it from
its significant peaks, join basins that are one cell, drop small and doubtful cells, measure and
outline the rest. Nothing outside the component is looked at, so the result depends neither on the
other components nor on how the image was cut.

A thin component may wind through a crop far larger than itself. Then only *spans* are worked on, the
surroundings of its runs; the scratch is all zeros between two components, so that nothing need be
cleared but what was written. A compact one has a single span, the crop.
"""

import numpy as np
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uintptr_t
from libc.stdlib cimport calloc, free, qsort
from libc.string cimport memcpy, memset

from ahead cimport ask
from cells cimport FLOAT32, NO_IMAGE, Results, Sources, free_results, measure_crop
from flood cimport Basin, BasinRun, Rules, find_basin, flood, next_run
from judge cimport PLANES, Contact, Evidence, JoinRule, ScoreRule, joined, score_of
from landscape cimport Span, combine, distance, floor_one, rise, smooth
from vector cimport Ints, free_ints, grown, reserve_ints

from .measure import CELL_DTYPE

#: A component that is not cut: no cell ends behind these limits.
NO_LIMITS = (2**31 - 1, -1, 2**31 - 1, -1)

cdef enum:
    COMPONENT = 7  # columns of the table of components, see ``label.COMPONENT_FIELDS``
    LIMITS = 4  # row limit and floor, column limit and floor
    MAX_RADIUS = 24
    COMPACT = 4096  # pixels of a crop that is worked on as a whole without counting
    EARLY = 128  # runs of a component whose surroundings are asked for early
    GAP = 6  # columns of the table of gaps: row, first and end column, parent, area, whether pure


cdef int by_place(const void* one, const void* other) noexcept nogil:
    """Order of runs: by row, then by column."""
    cdef const int32_t* a = <const int32_t*>one
    cdef const int32_t* b = <const int32_t*>other
    if a[0] != b[0]:
        return -1 if a[0] < b[0] else 1
    return -1 if a[1] < b[1] else <int>(a[1] > b[1])


cdef inline int32_t find_gap(int32_t* gaps, int32_t gap) noexcept nogil:
    while gaps[gap * GAP + 3] != gap:
        gaps[gap * GAP + 3] = gaps[gaps[gap * GAP + 3] * GAP + 3]
        gap = gaps[gap * GAP + 3]
    return gap


cdef inline void join_gaps(int32_t* gaps, int32_t a, int32_t b) noexcept nogil:
    """Unite; the lower number stays the root, so that of the outside is 0."""
    a = find_gap(gaps, a)
    b = find_gap(gaps, b)
    gaps[max(a, b) * GAP + 3] = min(a, b)


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
        As in :class:`cellseg.runtime.model.spec.SplitSettings`; a mass of 0 ignores the density plane.
    hole_connectivity
        4 or 8: of the background, the other one than of the components.
    join : ndarray of float64, shape (10,) or None
        Weights of :class:`cellseg.runtime.model.spec.JoinRule`: constant; mask, boundary and density at the
        contact; the same inside; smaller, larger, length. ``None``: no basins are joined.
    score : ndarray of float64, shape (6,) or None
        Those of :class:`cellseg.runtime.model.spec.ScoreRule`: constant; mask, boundary and density inside;
        area; the smallest score that is kept. ``None``: the score is the mean probability.
    """

    cdef Rules rules
    cdef int32_t threshold, min_area, max_hole_area, hole_neighbours, radius, pad
    cdef bint use_boundary, use_density, use_distance, joins, scores
    cdef JoinRule join
    cdef ScoreRule score
    cdef uint8_t[256] factor
    cdef uint8_t[256] density_factor
    cdef uint16_t[MAX_RADIUS + 1] weights
    cdef double[256] probability
    cdef double[256] mass
    cdef uint8_t[4097] heights
    # scratch: crops of `capacity` pixels; those but `density` and `pixels` are 0 between components
    cdef int64_t capacity
    cdef uint8_t* inside
    cdef uint8_t* source
    cdef uint8_t* level
    cdef uint8_t* density
    cdef uint16_t* across
    cdef int32_t* state
    cdef int32_t* pixels
    cdef Ints ordered, gaps, fills  # runs by place; gaps in their rows; those that are filled
    cdef Span* spans
    cdef int64_t n_spans, span_capacity
    cdef Ints maxima, sorted_maxima, held
    cdef Basin* basins
    cdef int64_t basin_capacity
    cdef Evidence* evidence  # by basin
    cdef int64_t evidence_capacity
    cdef Contact* contacts
    cdef int64_t n_contacts, contact_capacity
    cdef Results results
    cdef int64_t dropped, filled

    def __cinit__(
        self, *, int threshold, const uint8_t[::1] boundary_factor,
        const uint8_t[::1] density_factor, const uint8_t[::1] distance_height, const uint16_t[::1] weights,
        const double[::1] probability, const double[::1] mass, int persistence, int min_seed_area,
        double min_seed_mass, int min_area, int max_hole_area, int hole_connectivity,
        const double[::1] join, const double[::1] score,
    ):
        cdef int i
        self.joins = join is not None
        if self.joins:
            self.join.constant = join[0]
            for i in range(PLANES):
                self.join.contact[i] = join[1 + i]
                self.join.inside[i] = join[4 + i]
            self.join.smaller, self.join.larger, self.join.length = join[7], join[8], join[9]
        self.scores = score is not None
        if self.scores:
            self.score.constant = score[0]
            for i in range(PLANES):
                self.score.inside[i] = score[1 + i]
            self.score.area, self.score.minimum = score[4], score[5]
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
        self._free_crops()
        free(self.basins)
        free(self.evidence)
        free(self.contacts)
        free(self.spans)
        free_ints(&self.ordered)
        free_ints(&self.gaps)
        free_ints(&self.fills)
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
        cells : ndarray of :data:`cellseg.runtime.kernels.measure.CELL_DTYPE`, shape (n,)
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
            Cells dropped as too small or doubtful, and holes filled.
        """
        cdef Sources sources
        cdef Py_ssize_t i
        sources.mask = &mask_rows[0]
        sources.image = &image_rows[0] if image_kind != NO_IMAGE else NULL
        sources.probability = self.probability
        sources.row0 = row0
        sources.kind = image_kind
        sources.channels = channels if image_kind != NO_IMAGE else 0
        cdef const uintptr_t* boundary = &boundary_rows[0] if boundary_rows is not None else NULL
        cdef const uintptr_t* density = &density_rows[0] if density_rows is not None else NULL
        cdef Results* results = &self.results
        results.size = results.runs.size = results.outline.size = self.held.size = 0
        self.dropped = self.filled = 0
        try:
            with nogil:
                for i in range(components.shape[0]):
                    if i + 1 < components.shape[0]:
                        _prefetch(&components[i + 1, 0], &runs[0, 0], boundary, density, &sources)
                    self._component(
                        <int32_t>i, &components[i, 0], &runs[0, 0],
                        &limits[i, 0] if limits is not None else NULL,
                        boundary, density, &sources,
                    )
        except BaseException:
            self._free_crops()  # they may hold what is half done
            raise
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
        cdef const int32_t* own = runs + 3 * component[0]
        cdef int64_t n_runs = component[1] - component[0]
        cdef bint holes = component[6] != 0 and self.max_hole_area > 0
        cdef int32_t n_basins, n_cells, b
        cdef int64_t first
        if <int64_t>height * width < self.min_area and limits == NULL:
            self.dropped += 1  # a speck: it holds no cell, however it is filled and split
            return 0
        self._reserve(size)
        # 1. Paint.
        if holes or size > COMPACT:
            own = self._order(own, n_runs)
        self.fills.size = 0
        if holes:
            self._find_holes(own, n_runs, sources)
        self._find_spans(own, n_runs, y0, x0, stride, begin, end, size)
        self._paint(own, n_runs, y0, x0, stride, begin, boundary, density, sources)
        self._paint(self.fills.data, self.fills.size // 3, y0, x0, stride, begin, boundary, density, sources)
        # 2. Landscape.
        if self.use_distance:
            distance(self.inside, self.level, self.across, stride, self.spans, self.n_spans, self.heights)
            rise(self.source, self.level, self.spans, self.n_spans)
        if self.radius:
            smooth(
                self.source, self.inside, self.level, self.across, <uint32_t*>self.state,
                stride, self.spans, self.n_spans, self.weights, self.radius,
            )
        else:
            floor_one(self.source, self.inside, self.level, self.spans, self.n_spans)
        # 3. Flood.
        self._find_maxima(stride)
        n_basins = flood(
            self.level, self.density, self.mass, self.state, self.pixels,
            self.sorted_maxima.data, <int32_t>self.sorted_maxima.size, <int32_t>stride,
            self.spans, self.n_spans, self.basins, &self.rules,
        )
        # 4. Join, hold back, drop, number; measure.
        if self.joins or self.scores:
            self._gather(y0, x0, stride, begin, n_basins, boundary, density, sources)
            self._judge(n_basins)
        if limits != NULL:
            self._hold(index, y0, x0, stride, begin, n_basins, limits, sources)
        n_cells = self._number(n_basins)
        first = self.results.size
        measure_crop(
            self.state, self.source, stride, begin, self.spans, self.n_spans, y0, x0, height, n_cells,
            index, sources, &self.results,
        )
        if self.scores:
            for b in range(1, n_basins + 1):
                if self.basins[b].parent == b and self.basins[b].cell > 0:
                    self.results.cells[first + self.basins[b].cell - 1].score = self.evidence[b].score
        self._clear()
        return 0

    cdef const int32_t* _order(self, const int32_t* runs, int64_t n) except? NULL nogil:
        """Return runs by row and column: themselves, or an own copy."""
        cdef int64_t i
        for i in range(1, n):
            if by_place(runs + 3 * i - 3, runs + 3 * i) > 0:
                break
        else:
            return runs
        self.ordered.size = 0
        reserve_ints(&self.ordered, 3 * n)
        memcpy(self.ordered.data, runs, 3 * n * sizeof(int32_t))
        qsort(self.ordered.data, n, 3 * sizeof(int32_t), by_place)
        return self.ordered.data

    cdef int _find_spans(
        self, const int32_t* runs, int64_t n, int32_t y0, int32_t x0, int64_t stride, int64_t begin,
        int64_t end, int64_t size,
    ) except -1 nogil:
        """Find what is worked on: the crop, or what surrounds the runs, where that is much less.

        Runs in a row that a hole may lie between, or nearly so, have a span in common.
        """
        cdef int64_t i, first, last, total = 0, near = 2 * self.pad + self.max_hole_area + 16
        cdef Span* span
        self.spans = <Span*>grown(self.spans, &self.span_capacity, n + 1, sizeof(Span), b"spans")
        self.n_spans = 0
        if size > COMPACT:
            for i in range(n):
                first = begin + (runs[3 * i] - y0) * stride + runs[3 * i + 1] - x0
                last = first + runs[3 * i + 2] - runs[3 * i + 1] + self.pad
                span = self.spans + self.n_spans - 1
                if i and runs[3 * i] == runs[3 * i - 3] and first - span.end + self.pad <= near:
                    total += last - span.end
                    span.end = last
                else:
                    self.spans[self.n_spans].begin = first - self.pad
                    self.spans[self.n_spans].end = last
                    self.n_spans += 1
                    total += last - first + self.pad
        if self.n_spans == 0 or 2 * total > end - begin:
            self.n_spans = 1
            self.spans[0].begin = begin
            self.spans[0].end = end
        return 0

    cdef void _paint(
        self, const int32_t* runs, int64_t n, int32_t y0, int32_t x0, int64_t stride, int64_t begin,
        const uintptr_t* boundary, const uintptr_t* density, const Sources* sources,
    ) noexcept nogil:
        """Put runs and the planes under them into the crop."""
        cdef int64_t i, at, row
        cdef int32_t length
        for i in range(n):
            row = runs[3 * i] - sources.row0
            length = runs[3 * i + 2] - runs[3 * i + 1]
            at = begin + (runs[3 * i] - y0) * stride + runs[3 * i + 1] - x0
            memset(self.inside + at, 255, length)
            if self.use_boundary or self.use_density:
                self._shade(self.source + at, row, runs[3 * i + 1], length, boundary, density, sources)
            if self.rules.min_mass > 0:
                memcpy(self.density + at, <const uint8_t*>density[row] + runs[3 * i + 1], length)

    cdef void _shade(
        self, uint8_t* out, int64_t row, int32_t x, int32_t n, const uintptr_t* boundary,
        const uintptr_t* density, const Sources* sources,
    ) noexcept nogil:
        """Put what boundary and density leave of the mask into ``n`` pixels from ``x`` on."""
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

    cdef void _clear(self) noexcept nogil:
        """Make the scratch zero again."""
        cdef int64_t s, at, n
        for s in range(self.n_spans):
            at = self.spans[s].begin
            n = self.spans[s].end - at
            memset(self.inside + at, 0, n)
            memset(self.source + at, 0, n)
            memset(self.level + at, 0, n)
            memset(self.across + at, 0, n * sizeof(uint16_t))
            memset(self.state + at, 0, n * sizeof(int32_t))

    cdef int _find_holes(self, const int32_t* runs, int64_t n, const Sources* sources) except -1 nogil:
        """List the runs of small holes without foreground in ``fills``; ``runs`` are by place.

        The gaps between the runs of a row are the nodes of a graph, joined where they touch those of the
        next row; gap 0 is all that lies outside. A hole with another component in it (or with pixels
        that this component has lost to a cut) is no hole in a cell, so it stays.
        """
        cdef int64_t i = 0, j, k
        cdef int32_t count = 1, above = 1, above_end = 1, here, g, p, x, y = 0, left = 0, right = 0
        cdef int32_t slack = self.hole_neighbours == 8  # touching by a corner
        cdef bint follows = False
        cdef int32_t* gaps
        cdef int32_t* gap
        cdef int32_t* root
        cdef const uint8_t* mask
        self.gaps.size = 0
        reserve_ints(&self.gaps, (n + 1) * GAP)
        gaps = self.gaps.data
        memset(gaps, 0, GAP * sizeof(int32_t))
        while i < n:
            j = i
            here = count
            while j < n and runs[3 * j] == runs[3 * i]:
                if j > i and runs[3 * j - 1] < runs[3 * j + 1]:
                    gap = gaps + count * GAP
                    gap[0] = runs[3 * j]
                    gap[1] = runs[3 * j - 1]
                    gap[2] = runs[3 * j + 1]
                    gap[3] = count
                    gap[4] = 0
                    gap[5] = True
                    count += 1
                j += 1
            follows = i > 0 and runs[3 * i] == y + 1
            for g in range(here, count):
                gap = gaps + g * GAP
                if not follows or gap[1] < left + slack or gap[2] + slack > right:
                    join_gaps(gaps, g, 0)
            y, left, right = runs[3 * i], runs[3 * i + 1], runs[3 * j - 1]
            for p in range(above, above_end):
                gap = gaps + p * GAP
                if not follows or gap[1] < left + slack or gap[2] + slack > right:
                    join_gaps(gaps, p, 0)
            if follows:
                p, g = above, here
                while p < above_end and g < count:
                    gap = gaps + p * GAP
                    root = gaps + g * GAP
                    if max(gap[1], root[1]) < min(gap[2], root[2]) + slack:
                        join_gaps(gaps, p, g)
                    if gap[2] < root[2]:
                        p += 1
                    else:
                        g += 1
            above, above_end = here, count
            i = j
        for p in range(above, above_end):
            join_gaps(gaps, p, 0)
        for g in range(1, count):
            root = gaps + find_gap(gaps, g) * GAP
            root[4] += gaps[g * GAP + 2] - gaps[g * GAP + 1]
        gaps[4] = self.max_hole_area + 1  # never fill the outside
        for g in range(1, count):
            gap = gaps + g * GAP
            root = gaps + find_gap(gaps, g) * GAP
            if root[4] <= self.max_hole_area:
                mask = <const uint8_t*>sources.mask[gap[0] - sources.row0]
                for x in range(gap[1], gap[2]):
                    if mask[x] >= self.threshold:
                        root[5] = False
        for g in range(1, count):
            gap = gaps + g * GAP
            root = gaps + find_gap(gaps, g) * GAP
            if root[4] <= self.max_hole_area and root[5]:
                self.filled += root == gap
                reserve_ints(&self.fills, 3)
                memcpy(self.fills.data + self.fills.size, gap, 3 * sizeof(int32_t))
                self.fills.size += 3
        return 0

    cdef int _find_maxima(self, int64_t stride) except -1 nogil:
        """List the pixels where a basin may begin, by falling level.

        Of a flat maximum only pixels without an equal neighbour before them count, its first pixel
        among them.
        """
        cdef int64_t i, s
        cdef int32_t h, total = 0
        cdef int32_t[256] count
        cdef const uint8_t* level = self.level
        cdef uint8_t* candidate = self.source  # the landscape before smoothing is not needed now
        cdef const uint8_t* l
        cdef int64_t left = -1
        for s in range(self.n_spans):
            for i in range(self.spans[s].begin, self.spans[s].end):
                l = level + i
                candidate[i] = (
                    (l[0] > l[left]) & (l[0] > l[-stride]) & (l[0] >= l[1]) & (l[0] >= l[stride])
                )
        memset(count, 0, sizeof(count))
        self.maxima.size = 0
        for s in range(self.n_spans):
            for i in range(self.spans[s].begin, self.spans[s].end):
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
        self.basins = <Basin*>grown(
            self.basins, &self.basin_capacity, self.maxima.size + 1, sizeof(Basin), b"basins"
        )
        return 0

    cdef int _gather(
        self, int32_t y0, int32_t x0, int64_t stride, int64_t begin, int32_t n_basins,
        const uintptr_t* boundary, const uintptr_t* density, const Sources* sources,
    ) except -1 nogil:
        """Sum up what the planes show in every basin and, where such are joined, at every contact."""
        cdef const uintptr_t* rows[3]
        cdef const uint8_t* here
        cdef Basin* basins = self.basins
        cdef Evidence* evidence
        cdef const int32_t* state = self.state
        cdef int64_t i, y, x, n, total
        cdef int32_t b, k, roots = 0
        cdef BasinRun run
        rows[0], rows[1], rows[2] = sources.mask, boundary, density
        self.evidence = <Evidence*>grown(
            self.evidence, &self.evidence_capacity, n_basins + 1, sizeof(Evidence), b"basins"
        )
        evidence = self.evidence
        memset(evidence, 0, (n_basins + 1) * sizeof(Evidence))
        for b in range(1, n_basins + 1):
            evidence[b].contact = -1
            if find_basin(basins, b) == b:
                roots += 1
            else:
                basins[b].area = 0  # its root has its pixels
        self.n_contacts = 0
        memset(&run, 0, sizeof(run))
        while next_run(&run, state, basins, self.spans, self.n_spans):
            b = run.basin
            n = run.end - run.begin
            y = (run.begin - begin) // stride
            x = x0 + run.begin - begin - y * stride
            y += y0 - sources.row0
            for k in range(PLANES):
                if rows[k] != NULL:
                    here = <const uint8_t*>rows[k][y] + x
                    total = 0
                    for i in range(n):
                        total += here[i]
                    evidence[b].inside[k] += total
            if not self.joins or roots == 1:
                continue
            if state[run.end] > 0:
                self._touch(b, find_basin(basins, state[run.end]), rows, y, x + n - 1, y, x + n)
            for i in range(n):
                k = state[run.begin + i + stride]
                if k > 0 and find_basin(basins, k) != b:
                    self._touch(b, find_basin(basins, k), rows, y, x + i, y + 1, x + i)
        return 0

    cdef int _touch(
        self, int32_t a, int32_t b, const uintptr_t** rows, int64_t ya, int64_t xa, int64_t yb, int64_t xb
    ) except -1 nogil:
        """Add a pair of neighbouring pixels to the contact of their basins.

        The contacts of a basin are a list, the latest used one first: in raster order that is nearly always
        the wanted one.
        """
        cdef int32_t older = min(a, b), younger = max(a, b), k
        cdef int32_t before = -1, c = self.evidence[younger].contact
        cdef Contact* contact
        while c >= 0 and self.contacts[c].older != older:
            before = c
            c = self.contacts[c].next
        if c < 0:
            self.contacts = <Contact*>grown(
                self.contacts, &self.contact_capacity, self.n_contacts + 1, sizeof(Contact),
                b"contacts of basins",
            )
            c = <int32_t>self.n_contacts
            self.n_contacts += 1
            contact = self.contacts + c
            memset(contact, 0, sizeof(Contact))
            contact.older, contact.younger = older, younger
            contact.next = self.evidence[younger].contact
        else:
            contact = self.contacts + c
            if before >= 0:
                self.contacts[before].next = contact.next
                contact.next = self.evidence[younger].contact
        self.evidence[younger].contact = c
        contact.length += 1
        for k in range(PLANES):
            if rows[k] != NULL:
                contact.along[k] += (<const uint8_t*>rows[k][ya])[xa] + (<const uint8_t*>rows[k][yb])[xb]
        return 0

    cdef void _judge(self, int32_t n_basins) noexcept nogil:
        """Join basins by their contacts, all as they were before any was joined; then score the cells."""
        cdef Basin* basins = self.basins
        cdef Evidence* evidence = self.evidence
        cdef Contact* contact
        cdef int64_t i
        cdef int32_t a, b, k
        for i in range(self.n_contacts):
            contact = self.contacts + i
            if joined(contact, basins, evidence, &self.join):
                a = find_basin(basins, contact.older)
                b = find_basin(basins, contact.younger)
                basins[max(a, b)].parent = min(a, b)
        for b in range(n_basins, 0, -1):  # the younger ones before those that they have joined
            a = basins[b].parent
            if a != b:
                basins[a].area += basins[b].area
                for k in range(PLANES):
                    evidence[a].inside[k] += evidence[b].inside[k]
        if self.scores:
            for b in range(1, n_basins + 1):
                if basins[b].parent == b:
                    evidence[b].score = score_of(basins[b].area, evidence + b, &self.score)

    cdef int _hold(
        self, int32_t index, int32_t y0, int32_t x0, int64_t stride, int64_t begin, int32_t n_basins,
        const int32_t* limits, const Sources* sources,
    ) except -1 nogil:
        """Take the cells that may still change out of a component that is not finished.

        A cell that consists of filled holes only is dropped here: were it finished, the pixels that
        remain could take it for a hole and fill it a second time.
        """
        cdef int32_t y, x, n, b
        cdef int64_t i
        cdef int32_t* out
        cdef const uint8_t* mask
        cdef Basin* basin
        cdef BasinRun run
        cdef bint by_column
        for b in range(1, n_basins + 1):
            basin = self.basins + b
            basin.y0 = basin.x0 = 2**31 - 1
            basin.y1 = basin.x1 = basin.solid = 0
        memset(&run, 0, sizeof(run))
        while next_run(&run, self.state, self.basins, self.spans, self.n_spans):
            y = <int32_t>((run.begin - begin) // stride)
            x = <int32_t>(run.begin - begin - y * stride) + x0
            n = <int32_t>(run.end - run.begin)
            y += y0
            basin = self.basins + run.basin
            basin.y0 = min(basin.y0, y)
            basin.y1 = max(basin.y1, y + 1)
            basin.x0 = min(basin.x0, x)
            basin.x1 = max(basin.x1, x + n)
            mask = <const uint8_t*>sources.mask[y - sources.row0] + x
            for i in range(n):
                basin.solid |= mask[i] >= self.threshold
        memset(&run, 0, sizeof(run))
        while next_run(&run, self.state, self.basins, self.spans, self.n_spans):
            basin = self.basins + run.basin
            by_column = basin.x1 > limits[2] and basin.x0 > limits[3]
            if by_column or (basin.y1 > limits[0] and basin.y0 > limits[1]):
                reserve_ints(&self.held, 5)
                y = <int32_t>((run.begin - begin) // stride)
                x = <int32_t>(run.begin - begin - y * stride) + x0
                out = self.held.data + self.held.size
                out[0] = index
                out[1] = y0 + y
                out[2] = x
                out[3] = x + <int32_t>(run.end - run.begin)
                out[4] = by_column
                self.held.size += 5
                basin.area = max(basin.area, self.min_area)  # it does not count as dropped
                if self.scores:
                    self.evidence[run.basin].score = 1
            elif basin.solid:
                continue
            else:
                basin.area = 0
            memset(self.state + run.begin, 0, (run.end - run.begin) * sizeof(int32_t))
        return 0

    cdef int32_t _number(self, int32_t n_basins) noexcept nogil:
        """Replace basins by cells 1…n in raster order of the first pixel; small and doubtful ones by 0."""
        cdef int32_t b, root, n_cells = 0
        cdef int64_t s, at
        cdef Basin* basins = self.basins
        cdef int32_t* state = self.state
        for b in range(1, n_basins + 1):
            basins[b].cell = -1
            if basins[b].parent == b and (
                basins[b].area < self.min_area
                or (self.scores and self.evidence[b].score < self.score.minimum)
            ):
                basins[b].cell = 0
                self.dropped += 1
        for s in range(self.n_spans):
            for at in range(self.spans[s].begin, self.spans[s].end):
                b = state[at]
                if b <= 0:
                    continue
                if basins[b].cell < 0:
                    root = find_basin(basins, b)
                    if basins[root].cell < 0:
                        n_cells += 1
                        basins[root].cell = n_cells
                    basins[b].cell = basins[root].cell
                state[at] = basins[b].cell
        return n_cells

    cdef int _reserve(self, int64_t size) except -1 nogil:
        """Scratch for crops of ``size`` pixels."""
        cdef int64_t capacity
        if size <= self.capacity:
            return 0
        capacity = max(size, self.capacity + self.capacity // 2, 4096)
        self._free_crops()
        self.inside = <uint8_t*>calloc(capacity, 1)
        self.source = <uint8_t*>calloc(capacity, 1)
        self.level = <uint8_t*>calloc(capacity, 1)
        self.density = <uint8_t*>calloc(capacity if self.rules.min_mass > 0 else 1, 1)
        self.across = <uint16_t*>calloc(capacity, sizeof(uint16_t))
        self.state = <int32_t*>calloc(capacity, sizeof(int32_t))
        self.pixels = <int32_t*>calloc(capacity + 256, sizeof(int32_t))
        if (
            self.inside == NULL or self.source == NULL or self.level == NULL or self.density == NULL
            or self.across == NULL or self.state == NULL or self.pixels == NULL
        ):
            with gil:
                raise MemoryError(f"no memory to split a component of {size} pixels")
        self.capacity = capacity
        return 0

    cdef void _free_crops(self) noexcept nogil:
        """Give back the scratch; this alone does."""
        free(self.inside)
        free(self.source)
        free(self.level)
        free(self.density)
        free(self.across)
        free(self.state)
        free(self.pixels)
        self.inside = self.source = self.level = self.density = NULL
        self.across = NULL
        self.state = self.pixels = NULL
        self.capacity = 0


cdef void _prefetch(
    const int32_t* component, const int32_t* runs, const uintptr_t* boundary, const uintptr_t* density,
    const Sources* sources,
) noexcept nogil:
    """Ask for all that lies under a component; its rows lie too far apart for the hardware to guess."""
    cdef int64_t i, row, x0, x1
    cdef int64_t size = 4 if sources.kind == FLOAT32 else sources.kind  # UINT8 and UINT16 are their sizes
    size *= sources.channels
    for i in range(component[0], min(component[1], component[0] + EARLY)):
        row = runs[3 * i] - sources.row0
        x0, x1 = runs[3 * i + 1], runs[3 * i + 2]
        ask(<const uint8_t*>sources.mask[row] + x0, x1 - x0)
        if boundary != NULL:
            ask(<const uint8_t*>boundary[row] + x0, x1 - x0)
        if density != NULL:
            ask(<const uint8_t*>density[row] + x0, x1 - x0)
        if sources.image != NULL:
            ask(<const uint8_t*>sources.image[row] + x0 * size, (x1 - x0) * size)


cdef void _copy(target, const void* source):
    cdef uintptr_t address = target.ctypes.data
    if target.nbytes:
        memcpy(<void*>address, source, target.nbytes)
