"""Finished components into measured cells, a batch in one call without the GIL.

For each component: fill small holes, paint its runs into a crop, make the landscape, flood it from
its significant peaks, join basins that are one cell, drop small and doubtful cells, measure and
outline the rest. Nothing outside the component is looked at, so the result depends neither on the
other components nor on how the image was cut.

This file conducts; each step is a header of its name.
"""

import numpy as np
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uintptr_t
from libc.stdlib cimport free, qsort
from libc.string cimport memcpy

from cells cimport NO_IMAGE, Results, Sources, columns_of, free_results, look_at_stains, measure_crop
from crop cimport COMPACT, Crop, clear, find_spans, free_crop, make_room, place
from evidence cimport Evidence, Sums, free_evidence, gather_evidence
from flood cimport Basin, Rules, flood
from hold cimport hold
from holes cimport Holes, find_holes, free_holes
from judge cimport Judge, apply_rules, drop, number, read_rules
from landscape cimport distance, floor_one, rise, smooth
from maxima cimport find_maxima
from runs cimport Component, Limits, Run, by_place
from shading cimport Shading, ask_for, draw
from vector cimport Ints, Vector, copied, free_ints, free_vector, reserve

from .label import HELD_DTYPE
from .measure import CELL_DTYPE

#: A run of a cell: row, first and end column, and index of the cell.
CELL_RUN_DTYPE = np.dtype([(name, np.int32) for name in ("y", "x0", "x1", "cell")])
#: Limits of rows and columns behind which cells are held, and their floors.
LIMITS_DTYPE = np.dtype([(name, np.int32) for name in ("y", "y_floor", "x", "x_floor")])
#: A component that is not cut: no cell ends behind these limits.
NO_LIMITS = (2**31 - 1, -1, 2**31 - 1, -1)

cdef enum:
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
        As in :class:`cellseg.runtime.model.spec.SplitSettings`; a mass of 0 ignores the density plane.
    hole_connectivity
        4 or 8: of the background, the other one than of the components.
    join : cellseg.runtime.model.spec.JoinRule or None
        When basins that touch are joined; ``None``: never.
    score : cellseg.runtime.model.spec.ScoreRule or None
        How sure a cell is; ``None``: the score is the mean probability.
    planes : tuple of str
        Names that the rules know the planes by: mask, boundary, density.
    """

    cdef Rules rules
    cdef int32_t threshold, min_area, max_hole_area, hole_neighbours, radius
    cdef Shading shading
    cdef Judge judge
    cdef bint by_distance
    cdef uint16_t[MAX_RADIUS + 1] weights
    cdef double[256] probability
    cdef double[256] mass
    cdef uint8_t[4097] heights
    # scratch, used again for each component
    cdef Crop crop
    cdef Vector ordered, basins  # of Run, by place; of Basin
    cdef Holes holes
    cdef Ints maxima, unsorted
    cdef Evidence evidence
    # what comes of a batch
    cdef Results results
    cdef Vector held  # of HeldRun
    cdef int64_t dropped

    def __cinit__(
        self, *, int threshold, const uint8_t[::1] boundary_factor,
        const uint8_t[::1] density_factor, const uint8_t[::1] distance_height, const uint16_t[::1] weights,
        const double[::1] probability, const double[::1] mass, int persistence, int min_seed_area,
        double min_seed_mass, int min_area, int max_hole_area, int hole_connectivity,
        object join, object score, tuple planes,
    ):
        cdef int i
        read_rules(&self.judge, join, score, planes)
        self.threshold = threshold
        self.min_area = min_area
        self.max_hole_area = max_hole_area
        self.hole_neighbours = hole_connectivity
        self.rules.persistence = persistence
        self.rules.min_area = min_seed_area
        self.rules.min_mass = min_seed_mass
        self.shading.by_boundary = boundary_factor is not None
        self.shading.by_density = density_factor is not None
        self.shading.keep_density = min_seed_mass > 0
        if not 1 <= weights.shape[0] <= MAX_RADIUS + 1:
            raise ValueError(f"{weights.shape[0]} Gaussian weights; wanted 1 to {MAX_RADIUS + 1}")
        self.radius = <int32_t>weights.shape[0] - 1
        for i in range(weights.shape[0]):
            self.weights[i] = weights[i]
        for i in range(256):
            self.shading.boundary_factor[i] = boundary_factor[i] if self.shading.by_boundary else 255
            self.shading.density_factor[i] = density_factor[i] if self.shading.by_density else 255
            self.probability[i] = probability[i]
            self.mass[i] = mass[i]
        self.by_distance = distance_height is not None
        if self.by_distance:
            for i in range(4097):
                self.heights[i] = distance_height[i]

    def __dealloc__(self):
        free_crop(&self.crop)
        free(self.crop.spans)
        free_vector(&self.ordered)
        free_vector(&self.basins)
        free_holes(&self.holes)
        free_ints(&self.maxima)
        free_ints(&self.unsorted)
        free_evidence(&self.evidence)
        free_results(&self.results)
        free_vector(&self.held)

    def process(
        self,
        const Component[::1] components,
        const Run[::1] runs,
        const Limits[::1] limits,
        Py_ssize_t row0,
        const uintptr_t[::1] mask_rows,
        const uintptr_t[::1] boundary_rows,
        const uintptr_t[::1] density_rows,
        const uintptr_t[::1] image_rows,
        int image_kind,
        int channels,
        const int32_t[:, :, ::1] stain_table=None,
        int stains=0,
    ):
        """Split and measure a batch of components.

        Parameters
        ----------
        components, runs
            As from ``RunLabeler.take``; ranges in ``components`` index the whole of ``runs``.
        limits
            ``None``, or shape (n,) of :data:`LIMITS_DTYPE` for components that may still grow: a cell
            that ends behind the row limit and begins below its floor is *held*; likewise for columns.
        row0
            Row of the image that the first address belongs to.
        mask_rows, boundary_rows, density_rows, image_rows
            Addresses of rows of the planes and of the image (interleaved channels); ``None`` where
            there is none. The rows live during the call.
        image_kind
            1 for uint8, 2 for uint16, 3 for float32; 0 without an image.
        channels
            Channels of the image; 0 without one.
        stain_table, stains
            As from :meth:`cellseg.runtime.intensity.stains.Stains.table`, for an image of three channels of
            uint8 or uint16, and how many of its lanes are stains; ``None`` and 0: none.

        Returns
        -------
        cells : ndarray of :data:`cellseg.runtime.kernels.measure.CELL_DTYPE`, shape (n,)
        intensity : ndarray of float64, shape (n, channels + 2 · stains)
            Means by channel, mean optical densities by stain, largest ones by stain.
        outline : ndarray of int32, shape (P, 2)
            x and y of the corners; those of cell i end before ``outline_end[i]``.
        runs : ndarray of :data:`CELL_RUN_DTYPE`, shape (m,)
            Of every kept cell.
        held : ndarray of :data:`cellseg.runtime.kernels.label.HELD_DTYPE`, shape (k,)
            The pixels of held cells.
        dropped, filled : int
            Cells dropped as too small or doubtful, and holes filled.
        """
        cdef Sources sources
        cdef Py_ssize_t i
        sources.mask = &mask_rows[0]
        sources.boundary = &boundary_rows[0] if boundary_rows is not None else NULL
        sources.density = &density_rows[0] if density_rows is not None else NULL
        sources.image = &image_rows[0] if image_kind != NO_IMAGE else NULL
        sources.probability = self.probability
        sources.row0 = row0
        sources.kind = image_kind
        sources.channels = channels if image_kind != NO_IMAGE else 0
        look_at_stains(&sources, stain_table, stains)
        cdef Results* results = &self.results
        results.size = results.runs.size = results.outline.size = self.held.size = 0
        self.dropped = self.holes.filled = 0
        try:
            with nogil:
                for i in range(components.shape[0]):
                    if i + 1 < components.shape[0]:
                        ask_for(&components[i + 1], &runs[0], &sources)
                    self._component(
                        <int32_t>i, &components[i], &runs[components[i].run_begin],
                        &limits[i] if limits is not None else NULL, &sources,
                    )
        except BaseException:
            free_crop(&self.crop)  # it may hold what is half done
            raise
        return (
            copied(results.cells, np.empty(results.size, CELL_DTYPE)),
            copied(results.intensity, np.empty((results.size, columns_of(&sources)), np.float64)),
            copied(results.outline.data, np.empty((results.outline.size // 2, 2), np.int32)),
            copied(results.runs.data, np.empty(results.runs.size, CELL_RUN_DTYPE)),
            copied(self.held.data, np.empty(self.held.size, HELD_DTYPE)),
            self.dropped,
            self.holes.filled,
        )

    cdef int _component(
        self, int32_t index, const Component* component, const Run* runs, const Limits* limits,
        const Sources* sources,
    ) except -1 nogil:
        cdef Crop* crop = &self.crop
        cdef int32_t n_basins, n_cells
        cdef int64_t first
        place(crop, component, max(self.radius, 1))
        if <int64_t>crop.height * crop.width < self.min_area and limits == NULL:
            self.dropped += 1  # a speck: it holds no cell, however it is filled and split
            return 0
        make_room(crop, self.shading.keep_density)
        self._draw(component, runs, sources)
        self._landscape()
        find_maxima(crop, &self.maxima, &self.unsorted)
        self.basins.size = 0
        n_basins = flood(
            crop.level, crop.density, self.mass, crop.state, crop.pixels,
            self.maxima.data, <int32_t>self.maxima.size, <int32_t>crop.stride, crop.spans, crop.n_spans,
            <Basin*>reserve(&self.basins, self.maxima.size + 1, sizeof(Basin), b"basins"), &self.rules,
        )
        n_cells = self._choose(index, n_basins, limits, sources)
        first = self.results.size
        measure_crop(
            crop.state, crop.source, crop.stride, crop.begin, crop.spans, crop.n_spans, crop.y0, crop.x0,
            crop.height, n_cells, index, sources, &self.results,
        )
        self._note_scores(n_basins, first)
        clear(crop)
        return 0

    cdef int _draw(self, const Component* component, const Run* runs, const Sources* sources) except -1 nogil:
        """Fill the small holes and paint all runs and the planes under them into the crop."""
        cdef Crop* crop = &self.crop
        cdef int64_t n = component.run_end - component.run_begin
        cdef bint holes = component.holes != 0 and self.max_hole_area > 0
        if holes or crop.size > COMPACT:
            runs = self._order(runs, n)
        self.holes.fills.size = 0
        if holes:
            find_holes(
                &self.holes, runs, n, self.max_hole_area, self.hole_neighbours, self.threshold, sources
            )
        # What a hole may lie between, or nearly so, is one span.
        find_spans(crop, runs, n, 2 * crop.pad + self.max_hole_area + 16)
        draw(&self.shading, crop, runs, n, sources)
        draw(&self.shading, crop, <const Run*>self.holes.fills.data, self.holes.fills.size, sources)
        return 0

    cdef const Run* _order(self, const Run* runs, int64_t n) except? NULL nogil:
        """Return runs by row and column: themselves, or an own copy."""
        cdef int64_t i
        for i in range(1, n):
            if by_place(runs + i - 1, runs + i) > 0:
                break
        else:
            return runs
        self.ordered.size = 0
        reserve(&self.ordered, n, sizeof(Run), b"runs")
        memcpy(self.ordered.data, runs, n * sizeof(Run))
        qsort(self.ordered.data, n, sizeof(Run), by_place)
        return <const Run*>self.ordered.data

    cdef void _landscape(self) noexcept nogil:
        """Make the landscape, 1…255 inside and 0 outside, from what was painted."""
        cdef Crop* crop = &self.crop
        if self.by_distance:
            distance(
                crop.inside, crop.level, crop.across, crop.stride, crop.spans, crop.n_spans, self.heights
            )
            rise(crop.source, crop.level, crop.spans, crop.n_spans)
        if self.radius:
            smooth(
                crop.source, crop.inside, crop.level, crop.across, <uint32_t*>crop.state,
                crop.stride, crop.spans, crop.n_spans, self.weights, self.radius,
            )
        else:
            floor_one(crop.source, crop.inside, crop.level, crop.spans, crop.n_spans)

    cdef int32_t _choose(
        self, int32_t index, int32_t n_basins, const Limits* limits, const Sources* sources
    ) except -1 nogil:
        """Join basins, hold back, drop and number cells; return how many there are."""
        cdef Crop* crop = &self.crop
        cdef Basin* basins = <Basin*>self.basins.data
        if self.judge.joins or self.judge.scores:
            gather_evidence(&self.evidence, crop, basins, n_basins, self.judge.joins, sources)
            apply_rules(&self.judge, &self.evidence, basins, n_basins)
        if limits != NULL:
            hold(&self.held, crop, basins, n_basins, index, limits, self.threshold, sources)
        self.dropped += drop(&self.judge, &self.evidence, basins, n_basins, self.min_area)
        return number(crop, basins)

    cdef void _note_scores(self, int32_t n_basins, int64_t first) noexcept nogil:
        """Give the cells from ``first`` on the score of their basin, where there is a rule for it."""
        cdef const Basin* basins = <const Basin*>self.basins.data
        cdef const Sums* sums = <const Sums*>self.evidence.sums.data
        cdef int32_t b
        if not self.judge.scores:
            return
        for b in range(1, n_basins + 1):
            if basins[b].parent == b and basins[b].cell > 0:
                self.results.cells[first + basins[b].cell - 1].score = sums[b].score
