"""One image of many: what is to be done with it, and what became of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..backends import Backend
from ..options import SegmentOptions
from ..pipeline import segment
from ..results.result import Result
from ..streaming.progress import Progress


@dataclass(frozen=True, slots=True)
class Job:
    """An image to segment."""

    #: A path or URL.
    image: str
    #: The folder of results to make.
    folder: Path
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
                return Outcome(job, found, earlier=True)
        made = segment(job.image, backend, output=job.folder, progress=progress, options=options)
    # Whatever is raised inside of one image is that image's error, and the others go on.
    except Exception as error:
        return Outcome(job, error=error, trace=traceback.format_exc())
    return Outcome(job, made)
