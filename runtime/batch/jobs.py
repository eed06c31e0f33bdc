"""One image of many: what is to be done with it, and what became of it."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..backends import Backend
from ..common.addresses import Address
from ..options import SegmentOptions
from ..pipeline import segment
from ..readers.fetched import SCRATCH
from ..results.result import Result
from ..streaming.progress import Progress


@dataclass(frozen=True, slots=True)
class Job:
    """An image to segment."""

    #: A path or URL.
    image: str
    #: The folder of results to make.
    folder: Path | Address
    options: SegmentOptions


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: a result, or an error."""

    job: Job
    result: Result | None = None
    error: Exception | None = None
    #: Whether an earlier run had finished it: nothing was computed.
    earlier: bool = False
    #: Where the error was raised, as Python prints it.
    trace: str = ""
    #: The worker of the cluster that did it.
    worker: str = ""
    #: Area of the median cell in pixels, where the result is in a store, for tables.
    median_area: float | None = None


def median_area(result: Result) -> float | None:
    """Return the area in pixels of the median cell of a result in a folder; ``None`` without cells."""
    from ..results.stored import read_table  # it takes long to import

    # Read apart from the result, which would keep the table of every image of the run.
    folder = result.folder
    areas = read_table(folder)["area"] if folder is not None and folder.is_dir() else ()
    return float(sorted(areas)[len(areas) // 2]) if len(areas) else None


def run_job(job: Job, backend: Backend, progress: Callable[[Progress], None] | None = None) -> Outcome:
    """Segment one image; whatever is raised inside becomes its error.

    Parameters
    ----------
    job
        The image.
    backend
        An open model.
    progress
        As for :func:`~cellseg.runtime.segment`.
    """
    options = job.options
    try:
        if options.resume and not options.overwrite:
            from ..results.finished import finished  # it takes long to import

            if found := finished(job.image, job.folder, backend, options):
                return _done(job, found, earlier=True)
        made = segment(job.image, backend, output=job.folder, progress=progress, options=options)
    # Whatever is raised inside of one image is that image's error, and the others go on.
    except Exception as error:
        return Outcome(job, error=error, trace=traceback.format_exc())
    return _done(job, made)


def _done(job: Job, result: Result, *, earlier: bool = False) -> Outcome:
    """Return the outcome of a job; of a result in a store without the copy of it that is on the disk."""
    if result.address is None:
        return Outcome(job, result, earlier=earlier)
    if result.folder is None:
        from ..results.store import fetch_table

        with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
            return _done(job, replace(result, folder=fetch_table(result, Path(scratch))), earlier=earlier)
    return Outcome(job, replace(result, folder=None), earlier=earlier, median_area=median_area(result))
