"""The course of one slide in spans: which task can be done when, whoever does it.

::

    span 0 ─┬─▶ seam ─┐
    span 1 ─┤         ├─▶ number ─▶ rows of labels, each ─▶ finish ─▶ commit
    span 2 ─┴─▶ seam ─┘

Tasks leave what they find in the unfinished folder of results, and return a few numbers. This module never
holds a pixel.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self

from ..backends import Backend
from ..common.files import writing
from ..common.names import readable
from ..instances.fragments import seam_groups
from ..results.result import Result
from ..streaming.journal import IDENTITY, compare_runs, read_run, write_durably
from ..streaming.progress import Progress
from ..writers.folder import OutputFolder
from .compute import Part, compute_seam, compute_span
from .finish import Course, finish_slide
from .labels import LABELS, begin_labels, write_labels
from .merge import number_cells
from .plan import Plan


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker can do now."""

    #: ``None`` on its way to a worker that has it.
    plan: Plan | None
    kind: Literal["span", "seam", "number", "labels", "finish"]
    #: Which of its kind.
    number: int = 0
    #: What it needs of the tasks before it.
    given: Any = None


def do(task: Task, backend: Backend, progress: Callable[[Progress], None] | None = None) -> Any:
    """Do a task; return what :meth:`SlideCourse.landed` takes.

    Parameters
    ----------
    task
        As from :class:`SlideCourse`.
    backend
        The open model.
    progress
        Told how far a span is.
    """
    plan = task.plan
    assert plan is not None
    if task.kind == "span":
        return compute_span(plan, task.number, backend, progress)
    if task.kind == "seam":
        return compute_seam(plan, task.number, task.given, backend)
    if task.kind == "number":
        cells = number_cells(plan, task.given)
        return cells, begin_labels(plan, readable(plan.name))
    if task.kind == "labels":
        return write_labels(plan, task.given, task.number)
    parts, course = task.given
    return finish_slide(plan, parts, course, backend)


class SlideCourse:
    """Hands out the tasks of a slide; a context manager that owns the folder of results.

    Parameters
    ----------
    plan
        As from :func:`~.plan.make_plan`.

    Raises
    ------
    OutputError
        The folder exists, cannot be made, or another run is writing it.
    UsageError
        It holds parts of a run with other settings.
    """

    def __init__(self, plan: Plan) -> None:
        options = plan.options
        self._folder = OutputFolder(plan.folder, overwrite=options.overwrite, resume=options.resume)
        try:
            self.plan = _begin(replace(plan, run=uuid.uuid4().hex))
        except BaseException as error:
            self._folder.__exit__(type(error), error, None)
            raise
        self._spans: dict[int, Part] = {}
        self._seams: dict[int, Part] = {}
        self._groups = 0
        self._labels: dict[str, int] = {}
        self._rows_written = 0
        self._workers: set[str] = set()
        self._started = time.perf_counter()
        #: What became of the slide, once the last task has landed and the folder has its name.
        self.result: Result | None = None

    @property
    def n_workers(self) -> int:
        """How many have had a part in it."""
        return len(self._workers)

    def begin(self) -> list[Task]:
        """Return the first tasks."""
        return [Task(self.plan, "span", number) for number in range(self.plan.spans)]

    def landed(self, task: Task, value: Any, worker: str = "") -> list[Task]:
        """Take what a task returned; return the tasks that can be done from now on.

        Parameters
        ----------
        task, value
            The task, and what :func:`do` returned.
        worker
            Who did it.
        """
        self._workers.add(worker)
        if task.kind == "span":
            self._spans[task.number] = value
            return [*self._new_seams(), *self._joined()]
        if task.kind == "seam":
            self._seams[task.number] = value
            return self._joined()
        if task.kind == "number":
            self._labels |= value[1]
            rows = range(len(self.plan.label_rows) - 1)
            return [Task(self.plan, "labels", number, self._parts()) for number in rows]
        if task.kind == "labels":
            self._labels |= value
            self._rows_written += 1
            return self._last()
        self._commit(value)
        return []

    def _new_seams(self) -> list[Task]:
        """Return the seams of which all is known now."""
        known = 0
        while known in self._spans:
            known += 1
        reaches = [part.reach for n in range(known) if (part := self._spans[n]).reach is not None]
        groups = seam_groups(self.plan.rows[: known + 1], reaches)
        tasks = [
            Task(self.plan, "seam", number, group)
            for number, group in enumerate(groups)
            if number >= self._groups
        ]
        self._groups = len(groups)
        return tasks

    def _joined(self) -> list[Task]:
        if len(self._spans) < self.plan.spans or len(self._seams) < self._groups:
            return []
        return [Task(self.plan, "number", given=self._parts())]

    def _parts(self) -> tuple[Part, ...]:
        spans, seams = self._spans, self._seams
        return (*(spans[n] for n in sorted(spans)), *(seams[n] for n in sorted(seams)))

    def _last(self) -> list[Task]:
        if self._rows_written < len(self.plan.label_rows) - 1:
            return []
        by = f" by {self.n_workers} workers" if self.n_workers > 1 else ""
        notes = [f"the image was computed in {self.plan.spans} spans{by}"]
        engines = sorted({part.engine for part in self._spans.values()})
        if len(engines) > 1:
            notes.append(
                f"spans were computed by different engines ({', '.join(engines)}): any of these alone may "
                "find other cells"
            )
        seconds = time.perf_counter() - self._started
        course = Course(seconds, self._labels, tuple(notes))
        return [Task(self.plan, "finish", given=(self._parts(), course))]

    def _commit(self, result: Result) -> None:
        """Give the folder its name."""
        if self.plan.options.labels != "zarr":
            with writing(self._folder.path / LABELS):
                shutil.rmtree(self._folder.path / LABELS)
        self._folder.commit()
        self.result = result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.__exit__(kind, error, trace)


def _begin(plan: Plan) -> Plan:
    """Make the folder of parts, or go on with one of a run that was stopped, as that one was cut."""
    folder = plan.parts
    mark = folder / IDENTITY
    identity = json.loads(json.dumps(plan.identity))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.part"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    before = read_run(mark)
    if before is not None:
        with contextlib.suppress(KeyError, TypeError):
            compare_runs(before["identity"], identity, folder.parent)
            return replace(plan, bands=tuple(before["bands"]), rows=tuple(before["rows"]))
    with writing(folder):
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    told = {"identity": identity, "bands": plan.bands, "rows": plan.rows}
    write_durably(mark, json.dumps(told, indent=1).encode())
    return plan
