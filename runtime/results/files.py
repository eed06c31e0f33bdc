"""The files of one image's results, begun, finished and recorded; the folder's name is another's care."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..common.names import readable
from ..options import SegmentOptions
from ..streaming.setup import Setup
from ..writers import DensityMap, Overview, Writer, write_record
from ..writers.base import Discarding
from ..writers.columns import Columns
from ..writers.contents import RECORD, seal
from ..writers.outputs import OUTPUTS, Subject
from ..writers.planes import PlanesZarr
from ..writers.report import write_report
from ..writers.summary import Summary
from .closeups import closeups_of
from .record import FileRecord
from .report import Report
from .result import Result

_Kind = TypeVar("_Kind")


class ResultFiles:
    """Writes the outputs that are wanted, a report and the record.

    Parameters
    ----------
    path
        The folder to write in.
    options
        Which files.
    others
        Names of the files that somebody else writes.
    """

    def __init__(self, path: Path, options: SegmentOptions, others: Collection[str] = ()) -> None:
        self.path = path
        self._options, self._others = options, others
        self._stack = contextlib.ExitStack()
        self._outputs: list[Discarding] = []
        #: Size in bytes of every file that is finished.
        self.written: dict[Path, int] = {}

    def open(self, setup: Setup, picture: NDArray[Any] | Callable[[], NDArray[Any]]) -> None:
        """Start every file."""
        subject = subject_of(setup, picture)
        for row in OUTPUTS:
            if row.wanted(self._options) and row.file not in self._others:
                self._outputs.append(self._stack.enter_context(row.make(self.path / row.file, subject)))
        self._outputs.append(self._stack.enter_context(Summary(*subject.size)))

    @property
    def sinks(self) -> tuple[Writer, ...]:
        """What takes the strips."""
        return tuple(output for output in self._outputs if isinstance(output, Writer))

    @property
    def planes(self) -> Callable[[NDArray[np.uint8]], None] | None:
        """What takes the planes of each band, where they are wanted."""
        return next((output.push for output in self._outputs if isinstance(output, PlanesZarr)), None)

    def finish(self) -> None:
        """Finish every file, and take down which there are."""
        # Pictures, tables and outlines are finished side by side: nothing else is running any more.
        with ThreadPoolExecutor(len(self._outputs), "cellseg-finish") as pool:
            for done in [pool.submit(output.commit) for output in self._outputs]:
                done.result()
        for output in self._outputs:
            self.written |= output.written()

    def record(self, report: Report, final: Path) -> Result:
        """Write the page, flush all files, and write the record that lists them.

        Parameters
        ----------
        report
            How the run went.
        final
            The name that the folder will have.
        """
        record = report.record()
        page, summary, overview = self.path / "report.html", self._one(Summary), self._one(Overview)
        self.written[page] = write_report(
            page,
            record.to_dict(),
            summary,
            overview=overview.jpeg,
            density=self._one(DensityMap).png,
            closeups=closeups_of(
                report.setup.slide, self.path, summary, overview, report.setup.measures.classes
            ),
        )
        files = tuple(FileRecord(**file._asdict()) for file in seal(self.path, self.written))
        result = Result(record.model_copy(update={"files": files}), final)
        write_record(self.path / RECORD, result.record.to_dict())
        return result

    def _one(self, kind: type[_Kind]) -> _Kind:
        """Return the output of a kind."""
        return next(output for output in self._outputs if isinstance(output, kind))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def subject_of(setup: Setup, picture: NDArray[Any] | Callable[[], NDArray[Any]]) -> Subject:
    """Return what writers know of the slide."""
    slide, spec = setup.slide, setup.backend.spec
    name = readable(slide.path.name)
    return Subject(
        name=name,
        height=slide.height,
        width=slide.width,
        columns=Columns(
            tuple(slide.channel_names),
            setup.pixel_size,
            () if setup.measures.stains is None else setup.measures.stains.names,
            setup.distance is not None,
            classes=setup.measures.classes,
            regions=() if setup.named is None else setup.named.names,
        ),
        space=f"{name} {spec.weights_sha256 or spec.name}",
        picture=picture,
        regions=setup.regions,
        heads=spec.head_names,
        seen=(setup.reader.height, setup.reader.width),
    )
