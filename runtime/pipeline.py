"""``segment()``: from an image and a model to labels, a table and outlines.

Here is decided what the stages of :mod:`cellseg.runtime.streaming.stages` run with; they do the work. Every
command and every worker comes through this function.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, get_type_hints

from numpy.typing import NDArray

from .backends import Backend, Options, open_backend
from .common.addresses import Address, place_of
from .common.names import readable
from .common.spelling import option
from .common.threads import cores
from .errors import CellsegError, ImageError, UsageError
from .geometry.coverage import Coverage
from .geometry.focus import Focus, Intersection
from .geometry.named import NamedRegions
from .geometry.regions import Polygons
from .geometry.tiling import TileGrid
from .geometry.tissue import Tissue, find_tissue
from .intensity.channels import ChannelChoice, choose
from .intensity.normalization import Normalization, measure
from .options import SegmentOptions
from .readers import ArrayReader, SlideReader, open_slide
from .readers.array import is_array
from .results.doubts import doubts
from .results.identity import Source
from .results.notes import notes_of
from .results.report import Report
from .results.result import Result
from .results.target import Memory, Target
from .sizing import Scaling, choose_scale, sheet_edge, sizes_to_look_for
from .streaming.measures import Measures
from .streaming.progress import Progress
from .streaming.setup import Setup
from .streaming.stages import SlideRun

#: A small image is divided into at least this many batches, if it has enough tiles.
FEWEST_BATCHES = 6

Image = str | os.PathLike[str] | NDArray[Any] | SlideReader
#: A file, the name of a packaged model, an open backend; ``None`` for the default model.
Model = str | os.PathLike[str] | Backend | None

_Arguments = ParamSpec("_Arguments")
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Call(SegmentOptions):
    """All that :func:`segment` takes, for its signature: the options are keywords of their own."""

    image: Image
    model: Model = None
    output: str | os.PathLike[str] | Address | None = field(default=None, kw_only=True)
    progress: Callable[[Progress], None] | None = field(default=None, kw_only=True)
    options: SegmentOptions | None = field(default=None, kw_only=True)


def _takes(
    call: Callable[_Arguments, object],
) -> Callable[[Callable[..., _Found]], Callable[_Arguments, _Found]]:
    """Return a decorator that gives a function the signature of a class, for readers and type checkers."""

    def shown(function: Callable[..., _Found]) -> Callable[_Arguments, _Found]:
        plain = get_type_hints(SegmentOptions)
        given = [
            parameter.replace(annotation=plain.get(parameter.name, parameter.annotation))
            for parameter in inspect.signature(call).parameters.values()
        ]
        # What inspect and help() look at.
        function.__signature__ = inspect.Signature(given, return_annotation="Result")  # type: ignore[attr-defined]
        return function

    return shown


@_takes(Call)
def segment(
    image: Image,
    model: Model = None,
    *,
    output: str | os.PathLike[str] | Address | None = None,
    progress: Callable[[Progress], None] | None = None,
    options: SegmentOptions | None = None,
    **keywords: Any,
) -> Result:
    """Segment the cells of an image.

    Parameters
    ----------
    image
        A path or an address such as ``s3://bucket/a.svs``, an array of shape (height, width) or
        (height, width, channels), or an open reader. Arrays of Dask, Zarr and the like are read region by
        region; pictures of PIL will do.
    model
        A file, the name of a packaged model, or an open backend, which then stays open; by default
        the packaged default model.
    output
        Folder to make for the results, a path or an address. It appears only when complete; in a store,
        ``run.json`` comes last. Without it, labels and table
        are in memory, and nothing is written. With ``resume``, finished results of the same image, model
        and options are returned as they are.
    progress
        Called several times a second in this thread. An exception raised there, as by Ctrl-C, ends
        the run and leaves nothing behind.
    options
        What else is wanted, to be used for many images.
    **keywords
        Any field of :class:`~cellseg.runtime.options.SegmentOptions`, in place of that of ``options``.

    Returns
    -------
    Result

    Raises
    ------
    UsageError
        An option is unknown or does not fit the image or the model.
    ImageError
        The image cannot be read or does not fit the model.
    ModelError, BackendError
        The model or its engine is at fault.
    OutputError
        The results cannot be written, or exist and ``overwrite`` is not set.

    Examples
    --------
    >>> import numpy as np
    >>> from cellseg.runtime import segment
    >>> result = segment(np.zeros((64, 64), np.uint8))
    >>> result.count, result.labels.shape, len(result.cells)
    (0, (64, 64), 0)
    """
    chosen = (options or SegmentOptions()).but(**keywords)
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        slide = stack.enter_context(open_reader(image, chosen))
        backend = stack.enter_context(_open_model(model, chosen))
        if output is not None and chosen.resume and not chosen.overwrite:
            from .results.finished import finished

            if (found := finished(image, output, backend, chosen)) is not None:
                return found
        _anticipate(slide, backend, chosen)
        source = Source(path=readable(slide.location)) if output is None else Source.of(image)
        target = stack.enter_context(_target(output, chosen, source, slide))
        setup = decide(slide, backend, chosen)
        stack.enter_context(backend.prepared(setup.grid.tile, setup.batch))
        made = target.open(setup)
        run = SlideRun(setup, made.sinks, made.watch, made.planes, made.journal)
        opened = time.perf_counter()
        last = run.run(progress)
        ran = time.perf_counter()
        target.finish()
        seconds = {"open": opened - started, "run": ran - opened, "finish": time.perf_counter() - ran}
        return target.commit(_report(setup, source, chosen, run, last, seconds))


def _report(
    setup: Setup,
    source: Source,
    options: SegmentOptions,
    run: SlideRun,
    last: Progress,
    seconds: Mapping[str, float],
) -> Report:
    """Say how a run went."""
    stats, known = run.stats, setup.backend.spec.diameter
    unsure = doubts(stats.cells, stats.dropped, run.scores, areas=run.areas, known=known)
    notes = notes_of(setup, last, stats, options, run.regions)
    return Report(setup, source, options, last, stats, seconds, notes, unsure, run.regions, run.classes)


def decide(slide: SlideReader, backend: Backend, options: SegmentOptions) -> Setup:
    """Decide all that must be decided of a slide before its first tile: this looks at the whole of it.

    Parameters
    ----------
    slide
        Open; it stays so as long as the setup is used.
    backend
        The open model, to be prepared for ``grid.tile`` and ``batch`` of the setup.
    options
        What is wanted.

    Returns
    -------
    Setup

    Raises
    ------
    UsageError, ImageError
        As from :func:`segment`.
    """
    pixel_size = options.pixel_size or slide.pixel_size
    choice = choose(slide.channel_names, backend.spec.channels, slide.location)
    regions = _regions(slide, options)
    measures = Measures.choose(slide, options, pixel_size)
    mapping = functools.cache(lambda: _mapping(slide, choice, backend, options))
    scaling = _scaling(slide, pixel_size, backend, regions, options, lambda: (choice, mapping()))
    reader = scaling.reader
    grid, tissue = _tiling(reader, backend, options), _tissue(reader, options)
    return Setup(
        reader=reader,
        backend=backend,
        grid=grid,
        choice=choice,
        mapping=mapping() if reader is slide else _mapping(reader, choice, backend, options),
        split=backend.spec.split_at(options.min_score),
        workers=options.workers or cores(),
        batch=_batch(grid, backend, options),
        pixel_size=pixel_size,
        unscaled=None if reader is slide else slide,
        scaling=scaling,
        measures=measures,
        distance=measures.distance(slide, reader, pixel_size),
        blend=options.blend,
        coverage=_coverage(reader, slide, grid, regions, tissue),
        regions=regions,
        tissue=tissue,
        named=None if regions is None else NamedRegions(regions, slide.height, slide.width),
    )


def open_reader(image: Image, options: SegmentOptions) -> contextlib.AbstractContextManager[SlideReader]:
    """Open the image; a reader that was given stays open."""
    if isinstance(image, SlideReader):
        return contextlib.nullcontext(image)
    if isinstance(image, str | os.PathLike):
        return open_slide(
            os.fspath(image),
            series=options.series,
            page=options.page,
            z=options.z,
            t=options.t,
            channels=options.channels,
            skip_bad_tiles=options.skip_bad_tiles,
        )
    if is_array(image):
        return ArrayReader(image, channels=options.channels)
    raise UsageError(f"segment() takes a path, an array or a reader, not {type(image).__name__}")


def _open_model(model: Model, options: SegmentOptions) -> contextlib.AbstractContextManager[Backend]:
    """Open the model; a backend that was given stays open."""
    if isinstance(model, Backend):
        if options.precision != "auto" and not model.computes_in(options.precision):
            raise UsageError(
                f"the engine that was given computes in {model.precision}, not in {options.precision}; "
                "open it with Options(precision=…)"
            )
        return contextlib.nullcontext(model)
    running = Options(precision=options.precision)
    return open_backend(model, options.device, engine=options.engine, options=running)


def _target(
    output: str | os.PathLike[str] | Address | None,
    options: SegmentOptions,
    source: Source,
    slide: SlideReader,
) -> Target:
    """Return where results go."""
    if output is None:
        return Memory()
    place = place_of(output)
    # The writers take longer to import than a picture to segment.
    if isinstance(place, Address):
        from .results.store import StoredFolder

        return StoredFolder(place, options, source, slide.height, slide.width)
    from .results.folder import ResultFolder

    return ResultFolder(place, options, source, slide.height, slide.width)


def _scaling(
    slide: SlideReader,
    pixel_size: float | None,
    backend: Backend,
    regions: Polygons | None,
    options: SegmentOptions,
    eyes: Callable[[], tuple[ChannelChoice, Normalization]],
) -> Scaling:
    """Decide at what scale the model sees the slide."""
    return choose_scale(
        slide,
        backend,
        options.diameter,
        pixel_size=pixel_size,
        rescale=options.rescale,
        eyes=eyes,
        within=None if regions is None else regions.within(slide.height, slide.width),
    )


def _tiling(reader: SlideReader, backend: Backend, options: SegmentOptions) -> TileGrid:
    """Cut the image as the user wants, or so that the fewest pixels are computed."""
    spec, wanted = backend.spec, options.tile
    low, high = backend.tiles
    if wanted is None:
        tile = max(low, min(spec.tile, high))
        grid = TileGrid.fitting(reader.height, reader.width, tile, spec.halo, spec.multiple)
        if grid.tile >= low:
            return grid
        wanted = low
    try:
        return TileGrid(reader.height, reader.width, wanted, spec.halo, spec.multiple)
    except ValueError as error:
        raise UsageError(f"model '{spec.name}': {error}") from None


def _batch(grid: TileGrid, backend: Backend, options: SegmentOptions) -> int:
    """Return the tiles of a batch: small images give every stream of the engine something to do."""
    wanted = options.batch
    if wanted is not None:
        return wanted
    return max(1, min(backend.spec.batch, backend.largest_batch, len(grid) // FEWEST_BATCHES))


def _anticipate(slide: SlideReader, backend: Backend, options: SegmentOptions) -> None:
    """Let the engine get ready for both sizes of tile where the size of the cells must be found first.

    Most slides are then read as they are. To compile takes as long as a slide of some megapixels.
    """
    pixel_size = options.pixel_size or slide.pixel_size
    if known := sizes_to_look_for(
        backend.spec, options.diameter, pixel_size=pixel_size, rescale=options.rescale
    ):
        with contextlib.suppress(CellsegError):  # what is wrong is said when it is known that it matters
            grid = _tiling(slide, backend, options)
            shapes = [(sheet_edge(slide, backend, known), 1), (grid.tile, _batch(grid, backend, options))]
            backend.anticipate(shapes)


def _regions(slide: SlideReader, options: SegmentOptions) -> Polygons | None:
    """Return the regions of interest in pixels of the slide."""
    given = options.roi
    return None if given is None else Polygons.given(given, slide.height, slide.width)


def _tissue(reader: SlideReader, options: SegmentOptions) -> Tissue | None:
    """Return where the tissue is in the reader's pixels, where that is asked for and can be told."""
    return find_tissue(reader) if options.tissue == "auto" else None


def _coverage(
    reader: SlideReader, slide: SlideReader, grid: TileGrid, regions: Polygons | None, tissue: Tissue | None
) -> Coverage:
    """Return which tiles are computed."""
    parts: list[Focus] = []
    if regions is not None:
        parts.append(regions.scaled(reader.height / slide.height, reader.width / slide.width))
    if tissue is not None:
        parts.append(tissue)
    return Coverage.of(grid, Intersection(parts) if parts else None)


def _mapping(
    reader: SlideReader, choice: ChannelChoice, backend: Backend, options: SegmentOptions
) -> Normalization:
    """Return the slide's mapping to bytes: as the user says, as the model says, or as measured."""
    levels = options.levels
    if levels is not None:
        try:
            return Normalization(float(levels[0]), float(levels[1]), reader.dtype.name)
        except ImageError as error:
            raise UsageError(f"{reader.location}: {option('levels', levels)}: {error}") from None
    if backend.spec.normalization == "none":
        return Normalization.full_scale(reader.dtype)
    sample = choice.apply(reader.sample())
    try:
        return measure(sample)
    except ImageError as error:
        raise ImageError(
            f"{reader.location}: {error}; save it with numbers, or say what is black and white with "
            f"{option('levels')}"
        ) from None
