"""What a worker does of a slide that is computed in spans: measure, plan, and the tasks of its course."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import get_worker

from ..backends import Backend
from ..batch.jobs import Job
from ..common.spelling import written_as
from ..errors import CellsegError
from ..pipeline import open_reader
from ..spans.course import Task, do
from ..spans.plan import Plan, make_plan
from ..streaming.progress import Progress
from .attempt import Watch
from .worker import NAME, EnginePlugin, Teller, give_back


def measure_slide(job: Job) -> int:
    """Return how many pixels an image has; 0 where it cannot be read, which is said elsewhere."""
    try:
        with open_reader(job.image, job.options) as slide:
            return slide.height * slide.width
    except (CellsegError, OSError):
        return 0


def plan_slide(job: Job, workers: int, wanted: float | None) -> Plan:
    """Decide what concerns the whole of a slide: see :func:`~cellseg.runtime.spans.plan.make_plan`."""
    assert isinstance(job.folder, Path)
    with _engine() as (worker, backend), Watch(worker, worker.plugins[NAME].patience):
        return make_plan(job.image, job.folder, job.options, backend, workers, wanted)


def do_task(plan: Plan, changed: Mapping[str, Any], task: Task, number: int) -> tuple[Any, str]:
    """Do a task of a slide.

    Parameters
    ----------
    plan
        As its worker made it.
    changed
        What the course has changed of it.
    task
        Without its plan.
    number
        Of the job, for those who are told of its progress.

    Returns
    -------
    value, worker
        What :func:`~cellseg.runtime.spans.course.do` returned, and the name of this worker.
    """
    here = replace(plan, **changed)
    pixels = here.rows[-1] * here.settled.grid.width
    with _engine() as (worker, backend):
        told = Teller(worker, number)
        watch = Watch(worker, worker.plugins[NAME].patience)

        def tell(progress: Progress) -> None:
            watch.note(progress)
            told(replace(progress, total=pixels))

        with watch:
            return do(replace(task, plan=here), backend, tell), str(worker.name)


@contextmanager
def _engine() -> Iterator[tuple[Any, Backend]]:
    """Give this worker and its engine; messages are written as where the run was started."""
    worker = get_worker()
    plugin: EnginePlugin = worker.plugins[NAME]
    give_back(plugin)
    with written_as(plugin.language):
        yield worker, plugin.backend()
