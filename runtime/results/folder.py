"""Results in a folder that appears when it is complete."""

from __future__ import annotations

import contextlib
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from ..options import SegmentOptions
from ..streaming.journal import Journal
from ..streaming.setup import Setup
from ..writers import OutputFolder
from ..writers.folder import JOURNAL
from ..writers.outputs import check_outputs
from .files import ResultFiles
from .identity import Source
from .picture import reduced_picture
from .report import Report
from .result import Result
from .target import Opened, Target


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
        check_outputs(options, path, height, width)
        self._stack = contextlib.ExitStack()
        self._folder = self._stack.enter_context(
            OutputFolder(path, overwrite=options.overwrite, resume=options.resume)
        )
        self._files = self._stack.enter_context(ResultFiles(self._folder.path, options))
        self._source = source

    def open(self, setup: Setup) -> Opened:
        """Start every file."""
        # With one band there is nothing to go on from; blended, a band needs the tiles of its neighbours.
        journal = None
        if setup.grid.n_bands > 1 and setup.blend == "none":
            journal = Journal(self._folder.path / JOURNAL, planes_identity(setup, self._source))
        picture, watch = reduced_picture(setup.slide, setup.reader)
        self._files.open(setup, picture)
        return Opened(self._files.sinks, watch, self._files.planes, journal)

    def finish(self) -> None:
        """Finish every file, and take down which there are."""
        self._files.finish()

    def commit(self, report: Report) -> Result:
        """Flush all files, write the record that lists them, and give the folder its name."""
        result = self._files.record(report, self._folder.final)
        self._folder.commit()
        return result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


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
