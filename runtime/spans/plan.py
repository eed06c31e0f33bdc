"""What is decided once for a slide and told to all who compute parts of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from ..backends import Backend
from ..common.spelling import option
from ..common.threads import cores
from ..errors import BackendError
from ..geometry.tiling import TileGrid
from ..options import Blend, SegmentOptions
from ..pipeline import decide, open_reader
from ..readers import SlideReader
from ..readers.scaled import ScaledReader
from ..results.folder import planes_identity
from ..results.identity import Source
from ..streaming.setup import Setup
from ..streaming.span import SpanOf
from ..writers.folder import JOURNAL, unfinished
from ..writers.outputs import check_outputs
from ..writers.pyramid import SHARD_HEIGHT, pyramid_shapes

#: Fewest pixels of a span, and most unless the user says otherwise.
LEAST_PIXELS, MOST_PIXELS = 32_000_000, 512_000_000
#: Spans for each worker: the last ones shall not keep most of them waiting.
SPANS_A_WORKER = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is decided about a slide before its first span."""

    image: str
    #: The folder of results to be made.
    folder: Path
    options: SegmentOptions
    source: Source
    #: What was decided, without what is open: see :meth:`opened`.
    settled: Setup
    #: Height, width and micrometres a pixel of what is read, where that is not the slide as it is.
    scaled: tuple[int, int, float | None] | None
    #: Height and width of the slide in pixels.
    size: tuple[int, int]
    channels: int
    #: Of its file, for viewers.
    name: str
    #: First band of each span, and the number of bands; and the rows that these are.
    bands: tuple[int, ...]
    rows: tuple[int, ...]
    #: Rows of the label image that are written together, and how many of its levels.
    label_rows: tuple[int, ...]
    label_levels: int
    #: What the parts depend on.
    identity: dict[str, Any]
    #: Engine and arithmetic that decided; all parts are computed in them.
    computing: str
    #: Seconds that it took.
    seconds: float = 0.0
    #: Tells this run from others that have left parts.
    run: str = ""

    @property
    def spans(self) -> int:
        """How many spans there are."""
        return len(self.bands) - 1

    @property
    def parts(self) -> Path:
        """The folder that parts are left in."""
        return parts_folder(self.folder)

    @contextlib.contextmanager
    def opened(self, backend: Backend, *, prepared: bool = False) -> Iterator[Setup]:
        """Open the slide again, with all as it was decided.

        Parameters
        ----------
        backend
            The open model.
        prepared
            Make it ready for the tiles.

        Raises
        ------
        BackendError
            The model runs otherwise here than where the plan was made, so that seams would show.
        """
        if prepared and (here := _computing(backend)) != self.computing:
            raise BackendError(
                f"{self.image}: the model computes with {here} on one worker and with {self.computing} on "
                f"another, whose processors differ; say {option('precision', 'fp32')}, the same on all"
            )
        with contextlib.ExitStack() as stack:
            slide: SlideReader = stack.enter_context(open_reader(self.image, self.options))
            reader = slide
            if self.scaled is not None:
                height, width, pixel_size = self.scaled
                reader = ScaledReader(slide, height, width, pixel_size=pixel_size)
            if prepared:
                stack.enter_context(backend.prepared(self.settled.grid.tile, self.settled.batch))
            scaling = self.settled.scaling
            yield replace(
                self.settled,
                reader=reader,
                backend=backend,
                workers=self.options.workers or cores(),
                unscaled=None if reader is slide else slide,
                scaling=None if scaling is None else replace(scaling, reader=reader),
            )

    def span(self, number: int) -> SpanOf:
        """Return which bands and rows a span is."""
        first, end = self.bands[number : number + 2]
        above = 0
        if self.settled.blend != "none":
            above = -(-self.settled.grid.tile // self.settled.grid.core) - 1
        y, y1 = self.rows[number : number + 2]
        return SpanOf(range(max(0, first - above), end), first, y, y1)

    def stream_options(self, backend: Backend) -> dict[str, Any]:
        """Return what whoever splits planes is told; the slide need not be open."""
        return {
            "height": self.settled.grid.height,
            "width": self.settled.grid.width,
            "heads": backend.spec.heads,
            "settings": self.settled.split,
            "image_channels": self.channels,
            "stains": self.settled.measures.stains,
            "workers": self.options.workers or cores(),
        }


def _computing(backend: Backend) -> str:
    return f"{backend.name} in {backend.precision}"


def parts_folder(folder: Path) -> Path:
    """Return where the parts of a folder of results are left."""
    return unfinished(folder) / JOURNAL / "spans"


def make_plan(
    image: str, folder: Path, options: SegmentOptions, backend: Backend, workers: int, wanted: float | None
) -> Plan:
    """Look at a slide and decide all that concerns the whole of it.

    Parameters
    ----------
    image, folder, options
        As for :func:`~cellseg.runtime.segment`.
    backend
        The open model.
    workers
        How many there are.
    wanted
        Megapixels of a span; ``None``: as suits slide and workers.

    Raises
    ------
    UsageError, ImageError, OutputError
        As from :func:`~cellseg.runtime.segment`.
    """
    started = time.perf_counter()
    with open_reader(image, options) as slide:
        source = Source.of(image)
        check_outputs(options, folder, slide.height, slide.width)
        setup = decide(slide, backend, options)
        with backend.prepared(setup.grid.tile, setup.batch):
            identity = planes_identity(setup, source)
        identity |= {"blend": setup.blend, "split": setup.split.model_dump(mode="json")}
        pixels = setup.grid.height * setup.grid.width
        bands, rows = cut_bands(setup.grid, setup.blend, span_target(pixels, workers, wanted))
        label_rows, label_levels = cut_labels(slide.height, slide.width, workers)
        reader, scaling = setup.reader, setup.scaling
        nothing = cast("Any", None)
        return Plan(
            image,
            folder,
            options,
            source,
            replace(
                setup,
                reader=nothing,
                backend=nothing,
                unscaled=None,
                scaling=None if scaling is None else replace(scaling, reader=nothing),
                damaged=slide.bad_blocks,
            ),
            None if reader is slide else (reader.height, reader.width, reader.pixel_size),
            (slide.height, slide.width),
            reader.channels,
            slide.path.name,
            bands,
            rows,
            label_rows,
            label_levels,
            identity,
            _computing(backend),
            time.perf_counter() - started,
        )


def span_target(pixels: int, workers: int, wanted: float | None) -> float:
    """Return how many pixels a span of an image shall have; ``wanted`` are megapixels."""
    if wanted is not None:
        return wanted * 1e6
    even = pixels / (SPANS_A_WORKER * max(workers, 1))
    return min(max(even, LEAST_PIXELS), MOST_PIXELS)


def cut_bands(grid: TileGrid, blend: Blend, pixels: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Cut a grid into spans of about a number of pixels.

    Returns
    -------
    bands
        First band of each span, and the number of bands.
    rows
        First row of each, and the height.
    """
    spans = max(1, min(grid.n_bands, round(grid.height * grid.width / max(pixels, 1))))
    bands, rows = [0], [0]
    for part in range(1, spans):
        band = part * grid.n_bands // spans
        y = band * grid.core - (0 if blend == "none" else grid.halo)  # as far as those above finish them
        if y > rows[-1] and band > bands[-1]:
            bands.append(band)
            rows.append(y)
    return (*bands, grid.n_bands), (*rows, grid.height)


def cut_labels(height: int, width: int, workers: int) -> tuple[tuple[int, ...], int]:
    """Cut a label image into rows that workers write apart, so that no file belongs to two of them.

    Returns
    -------
    rows
        First row of each part, and the height.
    levels
        Levels of the pyramid that the parts write; each part begins with a shard of all of these.
    """
    levels = len(pyramid_shapes(height, width))
    level = 0
    while level + 1 < levels and height > (SHARD_HEIGHT << level + 1) * max(workers - 1, 1):
        level += 1
    step = SHARD_HEIGHT << level
    step *= max(1, -(-height // (step * 2 * max(workers, 1))))
    return (*range(0, height, step), height), level + 1
