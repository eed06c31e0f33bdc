"""``segment()``: from an image and a model to labels, a table and outlines.

Here is decided what the stages of :mod:`cellseg.runtime.streaming.stages` run with; they do the work. Every
command and every worker comes through this function.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from .backends import Backend, open_backend
from .common.threads import cores
from .errors import ImageError, UsageError
from .geometry.coverage import Coverage
from .geometry.focus import Focus, Overlap, Polygons, RegionsLike, Tissue, find_tissue
from .geometry.tiling import TileGrid
from .intensity.channels import ChannelChoice, choose
from .intensity.normalization import Normalization, measure
from .model.spec import SplitSettings
from .readers import ArrayReader, SlideReader, open_slide
from .readers.open import SlideOptions
from .readers.scaled import at_scale
from .results.target import LabelFormat, Memory, Report, Result, ResultFolder, Target
from .streaming.blend import check_blend
from .streaming.stages import Progress, Setup, SlideRun

#: A small image is cut into so many batches where it has the tiles.
FEWEST_BATCHES = 6

Image = str | os.PathLike[str] | NDArray[Any] | SlideReader


class SegmentOptions(TypedDict, total=False):
    """What :func:`segment` can be told beside image, model and output; all may be left out."""

    #: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    device: str
    #: Insist on an engine by name.
    engine: str | None
    #: Edge of a tile in pixels, halo included; by default what the model prefers, or less where that
    #: wastes fewer pixels.
    tile: int | None
    #: Tiles in a batch; by default what the model prefers.
    batch: int | None
    #: Threads that split and measure; by default one for each core.
    workers: int | None
    #: Names or numbers of the channels to read.
    channels: Sequence[int | str] | None
    #: Which image, plane, depth and time of a file with several.
    series: int | None
    page: int | None
    z: int | None
    t: int | None
    #: Read damaged tiles as zero and list them instead of raising.
    skip_bad_tiles: bool
    #: Micrometres a pixel, where the file does not say or is wrong.
    pixel_size: float | None
    #: Bring the image to the scale the model was trained at, where both are known; the default.
    rescale: bool
    #: Raw values that map to black and white, instead of the slide's percentiles.
    levels: tuple[float, float] | None
    #: How overlapping tiles are joined: ``none`` keeps their cores, which is exact; ``hann`` and
    #: ``gaussian`` average them, for models that are no good near a tile's border.
    blend: str
    #: Regions of interest in full-resolution pixels: a GeoJSON file, or polygons, each an array of shape
    #: (n, 2) with x and y, or a list of such rings. Only pixels whose centre lies in one count: cells are
    #: cut at the edge.
    roi: RegionsLike | None
    #: ``auto`` skips the empty glass of stained slides, found in the overview; ``none``, the default,
    #: looks everywhere.
    tissue: Literal["auto", "none"]
    #: Drop cells of a lower score (0…1), in place of what the model says.
    min_score: float | None
    #: With an output folder: write ``planes.ome.zarr`` too, the network's own planes at the scale at
    #: which it saw the image.
    probabilities: bool
    #: With an output folder: write ``cells.csv`` too.
    csv: bool
    #: With an output folder: format of the label image, ``zarr``, ``tiff`` or ``png``.
    labels: LabelFormat
    #: With an output folder: replace earlier results.
    overwrite: bool
    #: With an output folder: go on from what a stopped run left there, and leave the finished bands
    #: of this one if it is stopped.
    resume: bool


def segment(
    image: Image,
    model: str | os.PathLike[str] | Backend | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Unpack[SegmentOptions],
) -> Result:
    """Segment the cells of an image.

    Parameters
    ----------
    image
        A path, an array of shape (height, width) or (height, width, channels), or an open reader.
    model
        A file, the name of a packaged model, or an open backend, which then stays open; by default
        the packaged default model.
    output
        Folder to make for the results. It appears only when complete. Without it, labels and table
        are in memory, and nothing is written.
    progress
        Called several times a second in this thread. An exception raised there, as by Ctrl-C, ends
        the run and leaves nothing behind.
    **options
        See :class:`SegmentOptions`.

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
    if unknown := sorted(set(options) - set(SegmentOptions.__annotations__)):
        known = ", ".join(SegmentOptions.__annotations__)
        raise UsageError(f"segment() has no option '{unknown[0]}'; it has {known}")
    blend = check_blend(options.get("blend", "none"))
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        slide = stack.enter_context(_open_reader(image, options))
        backend = stack.enter_context(_open_model(model, options))
        pixel_size = options.get("pixel_size") or slide.pixel_size
        reader = _at_model_scale(slide, pixel_size, backend, options)
        choice = choose(reader.channel_names, backend.spec.channels, reader.path)
        grid = _tiling(reader, backend, options)
        regions, tissue = _regions(slide, options), _tissue(reader, options)
        target: Target = (
            Memory()
            if output is None
            else ResultFolder(
                Path(output),
                overwrite=options.get("overwrite", False),
                csv=options.get("csv", False),
                labels=options.get("labels", "zarr"),
                resume=options.get("resume", False),
                probabilities=options.get("probabilities", False),
            )
        )
        stack.enter_context(target)
        backend.prepare(grid.tile, _batch(grid, backend, options))
        setup = Setup(
            reader=reader,
            backend=backend,
            grid=grid,
            choice=choice,
            mapping=_mapping(reader, choice, backend, options),
            split=_splitting(backend, options),
            workers=options.get("workers") or cores(),
            pixel_size=pixel_size,
            unscaled=None if reader is slide else slide,
            blend=blend,
            coverage=_coverage(reader, slide, grid, regions, tissue),
            regions=regions,
            tissue=tissue,
        )
        sinks = target.open(setup)
        run = SlideRun(setup, sinks, target.watch, target.show, target.journal)
        opened = time.perf_counter()
        last = run.run(progress)
        ran = time.perf_counter()
        target.finish()
        seconds = {"open": opened - started, "run": ran - opened, "finish": time.perf_counter() - ran}
        report = Report(setup, last, run.stats, seconds, _notes(setup, last, options))
        return target.commit(report)


def _open_reader(image: Image, options: SegmentOptions) -> contextlib.AbstractContextManager[SlideReader]:
    """Open the image; a reader that was given stays open."""
    if isinstance(image, SlideReader):
        return contextlib.nullcontext(image)
    if isinstance(image, str | os.PathLike):
        wanted: SlideOptions = {
            "series": options.get("series"),
            "page": options.get("page"),
            "z": options.get("z"),
            "t": options.get("t"),
            "channels": options.get("channels"),
            "skip_bad_tiles": options.get("skip_bad_tiles", False),
        }
        return open_slide(os.fspath(image), **wanted)
    if isinstance(image, np.ndarray):
        return ArrayReader(image, channels=options.get("channels"))
    raise UsageError(f"segment() takes a path, an array or a reader, not {type(image).__name__}")


def _open_model(
    model: str | os.PathLike[str] | Backend | None, options: SegmentOptions
) -> contextlib.AbstractContextManager[Backend]:
    """Open the model; a backend that was given stays open."""
    if isinstance(model, Backend):
        return contextlib.nullcontext(model)
    return open_backend(model, options.get("device", "auto"), engine=options.get("engine"))


def _at_model_scale(
    slide: SlideReader, pixel_size: float | None, backend: Backend, options: SegmentOptions
) -> SlideReader:
    """Return the slide as the model wants to see it."""
    wanted = backend.spec.pixel_size
    if wanted is None or pixel_size is None or not options.get("rescale", True):
        return slide
    return at_scale(slide, wanted, pixel_size)


def _tiling(reader: SlideReader, backend: Backend, options: SegmentOptions) -> TileGrid:
    """Cut the image as the user wants, or so that the fewest pixels are computed."""
    spec, wanted = backend.spec, options.get("tile")
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


def _splitting(backend: Backend, options: SegmentOptions) -> SplitSettings:
    """Return how planes become cells: as the model says, but for the smallest score."""
    split, wanted = backend.spec.split, options.get("min_score")
    if wanted is None:
        return split
    if not 0 <= wanted <= 1:
        raise UsageError(f"min_score is {wanted:g}; wanted 0 to 1")
    if split.score is None:
        raise UsageError(
            f"model '{backend.spec.name}' has not learned to score cells; cellseg-tune teaches it from "
            "pictures with known cells"
        )
    rule = split.score.model_copy(update={"minimum": float(wanted)})
    return split.model_copy(update={"score": rule})


def _batch(grid: TileGrid, backend: Backend, options: SegmentOptions) -> int:
    """Return the tiles of a batch: small images give every stream of the engine something to do."""
    wanted = options.get("batch")
    if wanted is not None:
        return wanted
    return max(1, min(backend.spec.batch, backend.largest_batch, len(grid) // FEWEST_BATCHES))


def _regions(slide: SlideReader, options: SegmentOptions) -> Polygons | None:
    """Return the regions of interest in pixels of the slide."""
    given = options.get("roi")
    return None if given is None else Polygons.given(given, slide.height, slide.width)


def _tissue(reader: SlideReader, options: SegmentOptions) -> Tissue | None:
    """Return where the tissue is in the reader's pixels, where that is asked for and can be told."""
    wanted = options.get("tissue", "none")
    if wanted not in ("auto", "none"):
        raise UsageError(f"tissue is {wanted!r}; wanted 'auto' or 'none'")
    return find_tissue(reader) if wanted == "auto" else None


def _coverage(
    reader: SlideReader, slide: SlideReader, grid: TileGrid, regions: Polygons | None, tissue: Tissue | None
) -> Coverage:
    """Return which tiles are computed."""
    parts: list[Focus] = []
    if regions is not None:
        parts.append(regions.scaled(reader.height / slide.height, reader.width / slide.width))
    if tissue is not None:
        parts.append(tissue)
    return Coverage.of(grid, Overlap(parts) if parts else None)


def _mapping(
    reader: SlideReader, choice: ChannelChoice, backend: Backend, options: SegmentOptions
) -> Normalization:
    """Return the slide's mapping to bytes: as the user says, as the model says, or as measured."""
    levels = options.get("levels")
    if levels is not None:
        try:
            return Normalization(float(levels[0]), float(levels[1]), reader.dtype.name)
        except ImageError as error:
            raise UsageError(f"{reader.path}: --levels {levels[0]:g} {levels[1]:g}: {error}") from None
    if backend.spec.normalization == "none":
        return Normalization.full_scale(reader.dtype)
    sample = choice.apply(reader.sample())
    try:
        return measure(sample)
    except ImageError as error:
        raise ImageError(
            f"{reader.path}: {error}; save it with numbers, or say what is black and white with --levels"
        ) from None


def _notes(setup: Setup, last: Progress, options: SegmentOptions) -> tuple[str, ...]:
    """Return what the user should know about this run, one line each."""
    slide, spec = setup.slide, setup.backend.spec
    notes = [*slide.notes]
    if setup.backend.note:
        notes.append(setup.backend.note)
    if setup.pixel_size is None:
        notes.append("the image does not say how large a pixel is: sizes are in pixels; give it with --mpp")
    elif setup.unscaled is not None:
        notes.append(
            f"the image has {setup.pixel_size:.4g} µm a pixel and was brought to the model's "
            f"{spec.pixel_size:.4g}; results are in pixels of the image"
        )
    if last.resumed:
        notes.append(f"{last.resumed / last.total:.0%} of the image had been done by a run that was stopped")
    if options.get("resume") and setup.blend != "none":
        notes.append("bands of averaged tiles are not kept: interrupted, this image starts over")
    covered = setup.covered
    if options.get("tissue") == "auto" and setup.tissue is None:
        notes.append("glass is looked for on large bright-field slides only: none was skipped here")
    if covered.focus is not None:
        notes.append(
            f"{covered.part:.1%} of the image was looked at, {len(setup.grid) - covered.count} of "
            f"{len(setup.grid)} tiles were skipped"
        )
    if setup.regions is not None and setup.regions.n_empty:
        total = setup.regions.n_empty + len(setup.regions.polygons)
        notes.append(
            f"{setup.regions.n_empty} of the {total} regions of interest are empty and were left out"
        )
    if bad := slide.bad_blocks:
        notes.append(f"{len(bad)} damaged tiles were read as zero, the first: {bad[0]}")
    return tuple(notes)
