"""The stages that a slide runs through, side by side.

::

    read ─▶ gather ─▶ infer ─▶ stitch ─▶ split ─▶ write          threads
      ▲        ▲         │         │        │
      │        └─ slots ─┴─────────┘        │                    batches and planes, reused
      └──── rows, band planes ◀─────────────┘                    bands, reused

Every buffer comes from a pool and goes back to it, so the slowest stage holds up all others and
memory stays what it was after the first bands. This module knows nothing of files or options.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..backends import Backend, Pending
from ..common.buffers import Recycler
from ..common.threads import Channel, Flow
from ..geometry.coverage import Coverage
from ..geometry.focus import Polygons, Tissue
from ..geometry.tiling import Band, Region, Tile, TileGrid
from ..instances import InstanceStream, Stats, Strip
from ..instances.full_resolution import FullResolution
from ..intensity.channels import ChannelChoice
from ..intensity.normalization import Normalization
from ..model.spec import SplitSettings
from ..options import Blend
from ..readers import SlideReader
from .bands import BandRows, TileGatherer, read_bands, row_buffer, stitch_tiles
from .blend import Blender
from .journal import Journal

#: Bands of rows in memory beside those that batches on their way refer to: one being read, one being
#: split.
ROW_BUFFERS = 2
#: Bands of planes in memory: one being filled, one being split.
PLANE_BUFFERS = 2
#: Finished strips that may wait for the writers.
STRIPS = 2
#: Label images in use at once: those that wait, one being made, one being written.
CANVASES = STRIPS + 2


class Sink(Protocol):
    """What takes finished strips; every writer is one."""

    def write(self, strip: Strip) -> None:
        """Take the next strip; its labels are used again as soon as this returns."""
        ...


@dataclass(frozen=True, slots=True)
class Setup:
    """All that has been decided about a slide before its first tile."""

    #: What is read: the slide, at the model's scale where that is known.
    reader: SlideReader
    #: Prepared for ``grid.tile``.
    backend: Backend
    grid: TileGrid
    choice: ChannelChoice
    mapping: Normalization
    split: SplitSettings
    #: Threads that split and measure.
    workers: int
    #: Micrometres a pixel of the slide, where known.
    pixel_size: float | None = None
    #: The slide, where ``reader`` shows it at another scale.
    unscaled: SlideReader | None = None
    #: What is looked at, where that is not everything.
    coverage: Coverage | None = None
    #: Regions of interest in pixels of the slide, and tissue in pixels of ``reader``, where given.
    regions: Polygons | None = None
    tissue: Tissue | None = None
    #: How overlapping tiles are joined.
    blend: Blend = "none"

    @property
    def covered(self) -> Coverage:
        """Which tiles are computed."""
        covered = self.coverage or Coverage.of(self.grid)
        # Where tiles are averaged, each needs its neighbours.
        return covered if self.blend == "none" else covered.everywhere()

    @property
    def slide(self) -> SlideReader:
        """The slide at full resolution, in whose pixels all results are."""
        return self.unscaled or self.reader

    @property
    def way_back(self) -> FullResolution | None:
        """How strips become strips of the slide, where the reader shows it at another scale."""
        if self.unscaled is None:
            return None
        return FullResolution(
            self.reader.height, self.reader.width, self.unscaled.height, self.unscaled.width
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a slide is."""

    #: Pixels of the slide, and those whose planes are ready.
    total: int
    done: int
    #: Cells written.
    cells: int
    #: Seconds since the first tile.
    seconds: float
    #: Stage → (seconds busy, seconds waiting).
    stages: dict[str, tuple[float, float]]
    #: Pixels whose planes an earlier run had left.
    resumed: int = 0

    @property
    def mpx_s(self) -> float:
        """Megapixels of the slide a second, so far."""
        return (self.done - self.resumed) / 1e6 / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last tile at this rate; ``None`` before the first one."""
        computed = self.done - self.resumed
        return self.seconds * (self.total - self.done) / computed if computed else None

    @property
    def bottleneck(self) -> str:
        """The stage that has been busy longest."""
        return max(self.stages, key=lambda name: self.stages[name][0])


@dataclass(slots=True)
class _Slot:
    """A batch and the planes it becomes."""

    batch: NDArray[np.uint8]
    planes: NDArray[np.uint8]


@dataclass(slots=True)
class _Flight:
    """A batch on its way through the engine; its tiles may belong to several bands."""

    #: ``None`` while there is no tile in it.
    slot: _Slot | None = None
    #: Tiles of one band each, and whether the band has no more after these.
    parts: list[tuple[BandRows, list[Tile], bool]] = field(default_factory=list)
    count: int = 0
    pending: Pending | None = None


class _EngineClock:
    """Measures the time in which at least one batch is on its way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flying = 0
        self._since = self._busy = 0.0

    def change(self, by: int) -> None:
        """Count a batch in (1) or out (-1)."""
        with self._lock:
            now = time.perf_counter()
            if self._flying:
                self._busy += now - self._since
            self._since = now
            self._flying += by

    @property
    def busy(self) -> float:
        """Seconds so far."""
        with self._lock:
            return self._busy + (time.perf_counter() - self._since if self._flying else 0.0)


class SlideRun:
    """One slide on its way through all stages.

    Parameters
    ----------
    setup
        What to run.
    sinks
        Take every strip, in order, in one thread.
    watch
        Called with each band's raw rows, shape (rows, W, channels), in order, as they are read. The
        whole slide is read for it.
    planes
        Called with each band's planes, uint8 (K, rows, W), in order.
    journal
        Has the planes of some bands, and takes those of the others.
    """

    def __init__(
        self,
        setup: Setup,
        sinks: Iterable[Sink],
        watch: Callable[[NDArray[Any]], None] | None = None,
        planes: Callable[[NDArray[np.uint8]], None] | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._setup = setup
        self._journal = journal
        self._kept = frozenset[int]() if journal is None else journal.bands
        self._sinks = tuple(sinks)
        self._watch = watch
        self._show = planes
        self._covered = setup.covered
        self._flow = Flow()
        self._engine = _EngineClock()
        self._started = time.perf_counter()
        self._rows_done = self._rows_resumed = self._cells = 0
        #: Sum of the scores of the cells written.
        self.scores = 0.0
        self._flying: deque[_Flight] = deque()
        self.stats = Stats()
        grid, backend, flow = setup.grid, setup.backend, self._flow
        slots = min(backend.in_flight + 1, -(-len(grid) // backend.batch))
        # With fewer bands than a batch spans, the batch would wait for rows and the rows for the batch.
        rows = min(grid.rows, ROW_BUFFERS + -(-slots * backend.batch // grid.columns))
        # Where tiles are left out a batch may span any number of bands: it starts while one is still free.
        self._most_bands = rows - 1 if rows < grid.rows else rows
        heads, most_rows = len(backend.spec.heads), min(grid.core, grid.height)
        self._blender = None if setup.blend == "none" else Blender(grid, heads, setup.blend)
        if self._blender is not None:
            most_rows = self._blender.most_rows
        size = heads * most_rows * grid.width
        self._rows = self._pool(rows, lambda: row_buffer(setup.reader, grid))
        self._planes = self._pool(min(PLANE_BUFFERS, grid.rows), lambda: np.empty(size, np.uint8))
        self._slots = self._pool(slots, lambda: _Slot(backend.new_batch(), backend.new_planes()))
        self._bands: Channel[BandRows] = flow.channel(rows)
        self._flights: Channel[_Flight] = flow.channel(slots)
        # A band's rows, those of them that are finished, their planes and the buffer of these.
        self._whole: Channel[tuple[BandRows, Region, NDArray[np.uint8], NDArray[np.uint8]]] = flow.channel(
            PLANE_BUFFERS
        )
        self._strips: Channel[Strip] = flow.channel(STRIPS)
        self._canvases = Recycler(CANVASES)
        for name in ("read", "gather", "stitch", "split", "write"):
            flow.stage(name, getattr(self, f"_{name}"))

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
            for (
                flight
            ) in self._flying:  # left over after an error: the engine must not write into freed memory
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
        grid = self._setup.grid
        return Progress(
            grid.height * grid.width,
            self._rows_done * grid.width,
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
        partial = self._covered.focus is not None and self._watch is None
        columns = self._covered.columns if partial else None
        for source in read_bands(self._setup.reader, self._setup.grid, self._rows.get, columns):
            if self._watch is not None:
                self._watch(source.core)
            self._bands.put(source)
        self._bands.close()

    def _gather(self) -> None:
        setup = self._setup
        gatherer = TileGatherer(setup.grid, setup.choice, setup.mapping)
        flight = _Flight()
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
                    flight = _Flight()
                if not left:
                    break
        if flight.parts:
            self._launch(flight)
        self._flights.close()

    def _ready(self, flight: _Flight) -> bool:
        """Return whether a batch must not wait for more tiles: it is full, or holds too many bands."""
        whole = sum(last for _, _, last in flight.parts)
        return flight.count in (0, self._setup.backend.batch) or whole >= self._most_bands

    def _launch(self, flight: _Flight) -> None:
        if flight.slot is not None:
            self._engine.change(+1)
            with self._flow.waiting():  # for a free place in the engine
                flight.pending = self._setup.backend.submit(flight.slot.batch, flight.slot.planes)
        self._flying.append(flight)
        self._flights.put(flight)

    def _stitch(self) -> None:
        grid = self._setup.grid
        blender = self._blender
        buffer: NDArray[np.uint8] | None = None
        for flight in self._flights:
            result = None
            if flight.pending is not None:
                with self._flow.waiting():  # for the engine
                    result = flight.pending.result()
                self._engine.change(-1)
            self._flying.popleft()
            begin = 0
            for source, tiles, last in flight.parts:
                band = source.band
                fresh = buffer is None
                if buffer is None:
                    buffer = self._planes.get()
                rows = band.region if blender is None else blender.rows(band)
                planes = self._shaped(buffer, rows)
                if fresh and blender is None:
                    self._begin(planes, band)
                if result is not None and tiles:
                    part = result[begin : begin + len(tiles)]
                    if blender is None:
                        stitch_tiles(part, tiles, band, grid.halo, planes)
                        for tile in tiles:
                            self._covered.cut(planes, tile)
                    else:
                        blender.add(part, tiles, band, planes)
                begin += len(tiles)
                if last:
                    if blender is not None:
                        blender.finish(band, planes)
                        self._covered.clear(planes, rows)
                    self._end(planes, band, rows)
                    self._whole.put((source, rows, planes, buffer))
                    buffer = None
            if flight.slot is not None:
                self._slots.put(flight.slot)
        self._whole.close()

    def _begin(self, planes: NDArray[np.uint8], band: Band) -> None:
        """Fill a band's planes with what is known before any tile."""
        if self._journal is not None and band.index in self._kept:
            self._journal.load(band.index, planes)
            self._rows_resumed += band.region.height
        else:
            self._covered.blank(planes, band)

    def _end(self, planes: NDArray[np.uint8], band: Band, rows: Region) -> None:
        """Hand a band's finished planes to whoever wants to see them."""
        if self._journal is not None and band.index not in self._kept:
            self._journal.keep(band.index, planes)
        self._rows_done = rows.y1
        if self._show is not None and rows.height:
            self._show(planes)

    def _shaped(self, buffer: NDArray[np.uint8], rows: Region) -> NDArray[np.uint8]:
        """Return the beginning of a buffer as the planes of full-width rows, (K, rows, W)."""
        shape = (len(self._setup.backend.spec.heads), rows.height, rows.width)
        return buffer[: math.prod(shape)].reshape(shape)

    def _split(self) -> None:
        setup = self._setup
        instances = InstanceStream(
            setup.grid.height,
            setup.grid.width,
            setup.backend.spec.heads,
            setup.split,
            image_channels=setup.reader.channels,
            workers=setup.workers,
            canvases=self._canvases,
        )
        with instances:
            for source, rows, planes, buffer in self._whole:
                strips = instances.push(planes, source.part(rows))
                self._rows.put(source.buffer)
                self._planes.put(buffer)
                for strip in strips:
                    self._strips.put(strip)
            for strip in instances.finish():
                self._strips.put(strip)
        self.stats = instances.stats
        self._strips.close()

    def _write(self) -> None:
        back = self._setup.way_back
        for strip in self._strips:
            written = strip if back is None else back.strip(strip)
            for sink in self._sinks:
                sink.write(written)
            self._canvases.give(strip.labels)
            self._cells += len(strip.cells)
            self.scores += float(strip.cells.columns["score"].sum())
