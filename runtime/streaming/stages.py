"""The stages that a slide runs through, side by side.

::

    read ─▶ gather ─▶ infer ─▶ stitch ─▶ split ─▶ each writer    threads
      ▲        ▲         │         │        │
      │        └─ slots ─┴─────────┘        │                    batches and planes, reused
      └──── rows, band planes ◀─────────────┘                    bands, reused

Every buffer comes from a pool and goes back to it, so the slowest stage holds up all others and
memory stays what it was after the first bands. This module knows nothing of files or options.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.buffers import Recycler
from ..common.threads import Channel, Flow
from ..geometry.tiling import Band, Region
from ..instances import InstanceStream, Stats, Strip
from .bands import BandRows, TileGatherer, read_bands, row_buffer
from .batches import Flight, Slot
from .delivery import Delivery
from .journal import Journal
from .progress import EngineClock, Progress
from .regions import RegionCounter
from .setup import Setup, Sink
from .span import SpanOf, expansion_of, stream_options
from .stitch import open_stitcher

#: Bands of rows in memory in addition to those that batches in flight refer to: one being read, one being
#: split.
ROW_BUFFERS = 2
#: Bands of planes in memory: one being filled, one being split.
PLANE_BUFFERS = 2
#: Label images that are kept for use again: one is made, one waits, others are being compressed.
CANVASES = 4


class SlideRun:
    """One slide on its way through all stages.

    Parameters
    ----------
    setup
        What to run.
    sinks
        Take every strip, in order, each in a thread of its own.
    watch
        Called with each band's raw rows, shape (rows, W, channels), in order, as they are read. The
        whole slide is read for it.
    planes
        Called with each band's planes, uint8 (K, rows, W), in order.
    journal
        Has the planes of some bands, and takes those of the others.
    span
        The part of the slide to run; all of it by default.
    """

    def __init__(
        self,
        setup: Setup,
        sinks: Iterable[Sink],
        watch: Callable[[NDArray[Any]], None] | None = None,
        planes: Callable[[NDArray[np.uint8]], None] | None = None,
        journal: Journal | None = None,
        span: SpanOf | None = None,
    ) -> None:
        self._setup = setup
        self._span = span or SpanOf.all(setup)
        self._journal = journal
        self._kept = frozenset[int]() if journal is None else journal.bands
        self._watch = watch
        self._show = planes
        self._covered = setup.covered
        self._flow = Flow()
        self._engine = EngineClock()
        self._started = time.perf_counter()
        self._rows_done = self._span.y
        self._rows_resumed = self._cells = 0
        #: Sum of the scores of the cells written, and of their pixels as the model saw them.
        self.scores, self.areas = 0.0, 0
        self._flying: deque[Flight] = deque()
        self.stats = Stats()
        grid, backend, flow = setup.grid, setup.backend, self._flow
        bands = len(self._span.bands)
        slots = min(backend.in_flight + 1, -(-bands * grid.n_columns // backend.batch))
        # With fewer bands than a batch spans, the batch would wait for rows and the rows for the batch.
        rows = min(bands, ROW_BUFFERS + -(-slots * backend.batch // grid.n_columns))
        # Where tiles are left out a batch may span any number of bands: it starts while one is still free.
        self._most_bands = rows - 1 if rows < bands else rows
        heads = len(backend.spec.heads)
        self._stitcher = open_stitcher(grid, heads, setup.blend, self._covered)
        size = heads * self._stitcher.most_rows * grid.width
        self._rows = self._pool(rows, lambda: row_buffer(setup.reader, grid))
        self._planes = self._pool(min(PLANE_BUFFERS, bands), lambda: np.empty(size, np.uint8))
        self._slots = self._pool(slots, lambda: Slot(backend.new_batch(), backend.new_planes()))
        self._bands: Channel[BandRows] = flow.channel(rows)
        self._flights: Channel[Flight] = flow.channel(slots)
        # A band's rows, those of them that are finished, their planes and the buffer of these.
        self._whole: Channel[tuple[BandRows, Region, NDArray[np.uint8], NDArray[np.uint8]]] = flow.channel(
            PLANE_BUFFERS
        )
        self._canvases = Recycler(CANVASES)
        for name in ("read", "gather", "stitch", "split"):
            flow.stage(name, getattr(self, f"_{name}"))
        #: Cells by region of interest, where there are any.
        self.regions = None if setup.named is None else RegionCounter(setup.named, setup.measures.classes)
        #: Cells by class, where they are told positive.
        self.classes = setup.measures.counter()
        marks = [mark for mark in (self.classes, self.regions) if mark is not None]
        self._delivery = Delivery(flow, sinks, setup.to_full_resolution, *marks)

    def run(self, tick: Callable[[Progress], None] | None = None) -> Progress:
        """Run to the end.

        Parameters
        ----------
        tick
            Called in this thread several times a second, and once at the end.

        Returns
        -------
        Progress
            The last state.

        Raises
        ------
        BaseException
            The first error of any stage. All threads have ended and the engine is idle.
        """
        self._started = time.perf_counter()
        try:
            self._flow.run(None if tick is None else lambda: tick(self.progress()))
        finally:
            # Left over after an error: the engine must not write into freed memory.
            for flight in self._flying:
                with contextlib.suppress(Exception):
                    if flight.pending is not None:
                        flight.pending.result()
        progress = self.progress()
        if tick is not None:
            tick(progress)
        return progress

    def progress(self) -> Progress:
        """Return the present state."""
        seconds = time.perf_counter() - self._started
        stages = {name: (clock.busy, clock.wait) for name, clock in self._flow.clocks.items()}
        busy = self._engine.busy
        order = {
            "read": stages["read"],
            "gather": stages["gather"],
            "infer": (busy, max(0.0, seconds - busy)),
        }
        grid, span = self._setup.grid, self._span
        return Progress(
            (span.y1 - span.y) * grid.width,
            (self._rows_done - span.y) * grid.width,
            self._cells,
            seconds,
            order | stages,
            self._rows_resumed * grid.width,
        )

    def _pool(self, count: int, make: Callable[[], Any]) -> Channel[Any]:
        pool: Channel[Any] = self._flow.channel(count)
        for _ in range(count):
            pool.put(make())
        return pool

    def _read(self) -> None:
        # A ring may lie outside of all tiles that are looked at, beyond their halo.
        wide = (self._setup.distance or 0) > self._setup.grid.halo
        partial = self._covered.focus is not None and self._watch is None and not wide
        columns = self._covered.columns if partial else None
        span = self._span
        for source in read_bands(self._setup.reader, self._setup.grid, self._rows.get, columns, span.bands):
            if self._watch is not None and source.band.index >= span.first:
                self._watch(source.core)
            self._bands.put(source)
        self._bands.close()

    def _gather(self) -> None:
        setup = self._setup
        gatherer = TileGatherer(setup.grid, setup.choice, setup.mapping)
        flight = Flight()
        for source in self._bands:
            kept = source.band.index in self._kept
            left = [] if kept else list(self._covered.tiles(source.band))
            while True:
                room = setup.backend.batch - flight.count
                tiles, left = left[:room], left[room:]
                if tiles:
                    flight.slot = flight.slot or self._slots.get()
                    gatherer(source, tiles, flight.slot.batch[flight.count :])
                flight.parts.append((source, tiles, not left))
                flight.count += len(tiles)
                if self._ready(flight):
                    self._launch(flight)
                    flight = Flight()
                if not left:
                    break
        if flight.parts:
            self._launch(flight)
        self._flights.close()

    def _ready(self, flight: Flight) -> bool:
        """Return whether a batch must not wait for more tiles: it is full, or holds too many bands."""
        whole = sum(last for _, _, last in flight.parts)
        return flight.count in (0, self._setup.backend.batch) or whole >= self._most_bands

    def _launch(self, flight: Flight) -> None:
        if flight.slot is not None:
            self._engine.change(+1)
            with self._flow.waiting():  # for a free place in the engine
                flight.pending = self._setup.backend.submit(flight.slot.batch, flight.slot.planes)
        self._flying.append(flight)
        self._flights.put(flight)

    def _stitch(self) -> None:
        stitcher = self._stitcher
        buffer: NDArray[np.uint8] | None = None
        for flight in self._flights:
            result = self._landed(flight)
            start = 0
            for source, tiles, last in flight.parts:
                band = source.band
                rows = stitcher.rows(band)
                if fresh := buffer is None:
                    buffer = self._planes.get()
                planes = self._shaped(buffer, rows)
                if fresh:
                    self._begin(planes, band)
                if result is not None and tiles:
                    stitcher.add(result[start : start + len(tiles)], tiles, band, planes)
                start += len(tiles)
                if last:
                    stitcher.finish(band, planes)
                    self._end(planes, band, rows)
                    self._whole.put((source, rows, planes, buffer))
                    buffer = None
            if flight.slot is not None:
                self._slots.put(flight.slot)
        self._whole.close()

    def _landed(self, flight: Flight) -> NDArray[np.uint8] | None:
        """Wait for a batch and return its planes; ``None`` where there was no tile in it."""
        result = None
        if flight.pending is not None:
            with self._flow.waiting():  # for the engine
                result = flight.pending.result()
            self._engine.change(-1)
        self._flying.popleft()
        return result

    def _begin(self, planes: NDArray[np.uint8], band: Band) -> None:
        """Fill a band's planes with what is known before any tile."""
        if self._journal is not None and band.index in self._kept:
            self._journal.load(band.index, planes)
            self._rows_resumed += band.region.height
        else:
            self._stitcher.begin(band, planes)

    def _end(self, planes: NDArray[np.uint8], band: Band, rows: Region) -> None:
        """Hand a band's finished planes to whoever wants to see them."""
        if self._journal is not None and band.index not in self._kept:
            self._journal.keep(band.index, planes)
        if band.index < self._span.first:
            return
        self._rows_done = rows.y1
        if self._show is not None and rows.height:
            self._show(planes)

    def _shaped(self, buffer: NDArray[np.uint8], rows: Region) -> NDArray[np.uint8]:
        """Return the beginning of a buffer as the planes of full-width rows, (K, rows, W)."""
        shape = (len(self._setup.backend.spec.heads), rows.height, rows.width)
        return buffer[: math.prod(shape)].reshape(shape)

    def _split(self) -> None:
        instances = self._span.split or InstanceStream(**stream_options(self._setup), canvases=self._canvases)
        expansion = expansion_of(self._setup)
        with instances, expansion or contextlib.nullcontext():
            for source, rows, planes, buffer in self._whole:
                wanted = source.band.index >= self._span.first
                image = source.part(rows)
                strips = instances.push(planes, image) if wanted else []
                if expansion is not None:
                    expansion.see(rows.y, image)
                self._rows.put(source.buffer)
                self._planes.put(buffer)
                self._cells = instances.stats.cells
                while strips:
                    strip = strips.pop(0)
                    for done in (strip,) if expansion is None else expansion.push(strip):
                        self._deliver(done)
            instances.finish()
        self.stats = instances.stats
        self._delivery.close()

    def _deliver(self, strip: Strip) -> None:
        """Hand a strip to the writers."""
        self.scores += float(strip.cells.columns["score"].sum())
        self.areas += int(strip.cells.columns["area"].sum())
        self._delivery.put(strip)
