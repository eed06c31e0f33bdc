"""All tasks of a slide in spans, one after the other, in one process."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from ..backends import Backend
from ..options import SegmentOptions
from ..results.result import Result
from .course import SlideCourse, Task, do
from .plan import make_plan


def segment_spans(
    image: str | os.PathLike[str],
    backend: Backend,
    output: str | os.PathLike[str],
    options: SegmentOptions | None = None,
    *,
    span: float | None = None,
    workers: int = 1,
) -> Result:
    """Segment a slide in spans, as the workers of a cluster do.

    Parameters
    ----------
    image
        A path or URL.
    backend
        The open model.
    output, options
        As for :func:`~cellseg.runtime.segment`.
    span
        Megapixels of a span; by default as suits slide and workers.
    workers
        For how many the slide is cut.

    Returns
    -------
    Result
        The same as of :func:`~cellseg.runtime.segment`, to the byte, but for times and notes.

    Raises
    ------
    CellsegError
        As from there.
    """
    chosen = options or SegmentOptions()
    plan = make_plan(os.fspath(image), Path(output), chosen, backend, workers, span)
    with SlideCourse(plan) as course:
        tasks: deque[Task] = deque(course.begin())
        while tasks:
            task = tasks.popleft()
            tasks += course.landed(task, do(task, backend))
    assert course.result is not None
    return course.result
