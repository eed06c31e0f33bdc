"""Results in a folder that appears when it is complete."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from numpy.typing import NDArray

from ..common.names import readable
from ..options import SegmentOptions
from ..readers import SlideReader
from ..readers.area import Shrinker, Thinner
from ..streaming.journal import Journal
from ..streaming.setup import Setup
from ..writers import DensityMap, OutputFolder, Overview, Writer, write_record
from ..writers.base import Discarding
from ..writers.contents import RECORD
from ..writers.folder import JOURNAL
from ..writers.outputs import OUTPUTS, Subject
from ..writers.overview import MAX_EDGE, reduced_size
from ..writers.planes import PlanesZarr
from ..writers.report import write_report
from ..writers.summary import Summary
from .closeups import closeups_of
from .identity import Source
from .record import FileRecord
from .report import Report
from .result import Result
from .target import Opened, Target

_Kind = TypeVar("_Kind")


class ResultFolder(Target):
    """Writes the outputs that are wanted, a report and the record.

    Parameters
    ----------
    path
        The folder to make.
    options
        Which files, and whether to replace or to go on from earlier ones.
    source
        The state of the image, to which kept bands belong.
    height, width
        Size of the image in pixels.

    Raises
    ------
    OutputError
        The folder exists or cannot be made, or the image is too large for a format.
    """

    def __init__(self, path: Path, options: SegmentOptions, source: Source, height: int, width: int) -> None:
        for row in OUTPUTS:
            if row.wanted(options):
                row.check(path / row.file, height, width)
        self._stack = contextlib.ExitStack()
        self._folder = self._stack.enter_context(
            OutputFolder(path, overwrite=options.overwrite, resume=options.resume)
        )
        self._options, self._source = options, source
        self._outputs: list[Discarding] = []
        self._written: dict[Path, int] = {}

    def open(self, setup: Setup) -> Opened:
        """Start every file."""
        path = self._folder.path
        # With one band there is nothing to go on from; blended, a band needs the tiles of its neighbours.
        journal = None
        if setup.grid.n_bands > 1 and setup.blend == "none":
            journal = Journal(path / JOURNAL, planes_identity(setup, self._source))
        picture, watch = _picture(setup.slide, setup.reader)
        subject = _subject(setup, picture)
        for row in OUTPUTS:
            if row.wanted(self._options):
                self._outputs.append(self._stack.enter_context(row.make(path / row.file, subject)))
        self._outputs.append(self._stack.enter_context(Summary(*subject.size)))
        planes = [output.push for output in self._outputs if isinstance(output, PlanesZarr)]
        return Opened(
            tuple(output for output in self._outputs if isinstance(output, Writer)),
            watch,
            planes[0] if planes else None,
            journal,
        )

    def finish(self) -> None:
        """Finish every file, and take down which there are."""
        # Pictures, tables and outlines are finished side by side: nothing else is running any more.
        with ThreadPoolExecutor(len(self._outputs), "cellseg-finish") as pool:
            for done in [pool.submit(output.commit) for output in self._outputs]:
                done.result()
        for output in self._outputs:
            self._written |= output.written()

    def commit(self, report: Report) -> Result:
        """Flush all files, write the record that lists them, and give the folder its name."""
        record, path = report.record(), self._folder.path
        page, summary, overview = path / "report.html", self._one(Summary), self._one(Overview)
        self._written[page] = write_report(
            page,
            record.to_dict(),
            summary,
            overview=overview.jpeg,
            density=self._one(DensityMap).png,
            closeups=closeups_of(report.setup.slide, path, summary, overview),
        )
        files = tuple(FileRecord(**file._asdict()) for file in self._folder.seal(self._written))
        result = Result(record.model_copy(update={"files": files}), self._folder.final)
        write_record(path / RECORD, result.record.to_dict())
        self._folder.commit()
        return result

    def _one(self, kind: type[_Kind]) -> _Kind:
        """Return the output of a kind."""
        return next(output for output in self._outputs if isinstance(output, kind))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def _subject(setup: Setup, picture: NDArray[Any] | Callable[[], NDArray[Any]]) -> Subject:
    """Return what writers know of the slide."""
    slide, spec = setup.slide, setup.backend.spec
    name = readable(slide.path.name)
    return Subject(
        name=name,
        height=slide.height,
        width=slide.width,
        pixel_size=setup.pixel_size,
        channels=tuple(slide.channel_names),
        stains=() if setup.stains is None else setup.stains.names,
        space=f"{name} {spec.weights_sha256 or spec.name}",
        picture=picture,
        regions=setup.regions,
        region_names=() if setup.named is None else setup.named.names,
        heads=spec.head_names,
        seen=(setup.reader.height, setup.reader.width),
    )


def _picture(
    slide: SlideReader, seen: SlideReader
) -> tuple[NDArray[Any] | Callable[[], NDArray[Any]], Callable[[NDArray[Any]], None] | None]:
    """Return the reduced picture; or how to get it, and what must be shown the rows of the slide for it."""
    rows, columns = reduced_size(slide.height, slide.width)
    if len(slide.levels) > 1 or seen.height < rows or seen.width < columns:
        return slide.overview(MAX_EDGE), None
    thinned = Thinner(seen.height, seen.width, rows, columns)
    shrinker = Shrinker(*thinned.size, rows, columns, seen.dtype)

    def watch(band: NDArray[Any]) -> None:
        if len(fewer := thinned(band)):
            shrinker.push(fewer)

    return shrinker.result, watch


def planes_identity(setup: Setup, source: Source) -> dict[str, Any]:
    """Return all that the network's planes of a slide depend on, as plain values."""
    slide, backend, grid = setup.slide, setup.backend, setup.grid
    spec = backend.spec
    return {
        "version": metadata.version("cellseg"),
        "image": source.model_dump(exclude_none=True),
        "size": [slide.height, slide.width],
        "model": spec.weights_sha256 or spec.name,
        "heads": list(spec.head_names),
        "engine": [backend.name, backend.device, backend.description, spec.precision],
        "scaled to": [grid.height, grid.width],
        "tile": grid.tile,
        "halo": grid.halo,
        "batch": backend.batch,
        "channels": list(setup.choice.pick),
        "black and white": [setup.mapping.low, setup.mapping.high],
        "regions": None if setup.regions is None else setup.regions.digest,
        "tissue": None if setup.tissue is None else setup.tissue.digest,
    }
