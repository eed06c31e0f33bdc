"""Large images over a cluster's workers, each in spans: the tasks of all of them, as they become ready.

Nothing but a few numbers comes through here: workers leave pixels and cells in the unfinished folder of
results, where the others find them.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..batch.jobs import Job, Outcome
from ..errors import BackendError, CellsegError
from ..readers.fetched import is_fetched
from ..results.finished import has_results
from ..spans.course import SlideCourse, Task
from ..spans.plan import Plan, span_target
from .connect import DEATHS, TASKS, Connected
from .slide_tasks import do_task, measure_slide, plan_slide
from .span import Span

#: Seconds between two looks at whether there is a worker; and without any until slides are given up.
LOOK, GONE = 0.5, 60.0
#: Times that a task is tried again after an error of its own.
RETRIES = 1


def large_jobs(jobs: Mapping[int, Job], cluster: Connected, span: Span) -> dict[int, Job]:
    """Return which jobs are to be done in spans.

    By default those that keep several workers busy, where there are fewer images than workers.
    """
    client = cluster.client
    workers = len(client.nthreads())
    if span == "none" or (span == "auto" and len(jobs) >= workers):
        return {}
    # What is there already is compared or refused as a whole. Parts need a file system, and an image that is
    # fetched would be so by each worker.
    asked = {
        number: job
        for number, job in jobs.items()
        if isinstance(job.folder, Path) and not is_fetched(job.image) and not has_results(job.folder)
    }
    futures = [_submit(client, measure_slide, job) for job in asked.values()]
    sizes = client.gather(futures, errors="skip") if futures else []
    if len(sizes) < len(asked):
        return {}
    wanted = None if span == "auto" else float(span)
    # Fewer than two spans are one task with more to do.
    return {
        number: job
        for (number, job), pixels in zip(asked.items(), sizes, strict=True)
        if pixels >= 1.5 * span_target(pixels, workers, wanted)
    }


@dataclass(slots=True, eq=False)
class _Slide:
    """One image and what has been submitted of it."""

    number: int
    job: Job
    #: The plan, where a worker keeps it.
    plan: Any = None
    course: SlideCourse | None = None
    waiting: dict[Any, Task] = field(default_factory=dict)
    done: int = 0

    def close(self, error: BaseException | None) -> None:
        if self.course is not None:
            self.course.__exit__(None if error is None else type(error), error, None)


def run_slides(
    jobs: Mapping[int, Job],
    cluster: Connected,
    span: Span,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[Outcome | None]:
    """Segment images in spans.

    Parameters
    ----------
    jobs
        By number.
    cluster
        Its workers have the engine.
    span
        Megapixels of a span, or ``auto``.
    tell
        Told of spans that are done.

    Yields
    ------
    Outcome or None
        As they end; ``None`` now and then, while nothing does.
    """
    handed = _Slides(cluster, None if span in ("auto", "none") else float(span), tell)
    try:
        for number, job in jobs.items():
            handed.begin(number, job)
        yield from handed
    finally:
        handed.close()


class _Slides:
    """Slides of which tasks are handed out; iterating yields an outcome of each."""

    def __init__(
        self, cluster: Connected, wanted: float | None, tell: Callable[[dict[str, Any]], None] | None
    ) -> None:
        self._cluster, self._client = cluster, cluster.client
        self._wanted, self._tell = wanted, tell
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        #: What waits: future → its slide.
        self._out: dict[Any, _Slide] = {}
        self._slides: list[_Slide] = []

    def begin(self, number: int, job: Job) -> None:
        """Have a slide looked at."""
        slide = _Slide(number, job)
        self._slides.append(slide)
        slide.plan = self._submit(slide, plan_slide, job, len(self._client.nthreads()), self._wanted)

    def __iter__(self) -> Iterator[Outcome | None]:
        missed: float | None = None
        while self._out:
            try:
                future = self._ended.get(timeout=LOOK)
            except queue.Empty:
                missed = None if self._alive() else missed or time.monotonic()
                patience = max(GONE, self._cluster.patience)
                if missed is not None and time.monotonic() - missed > patience:
                    for slide in set(self._out.values()):
                        why = f"no worker was left for {patience:g} s; it was given up"
                        yield self._give_up(slide, BackendError(f"{slide.job.image}: {why}"))
                yield None
                continue
            if future not in self._out:
                continue  # of a slide that was given up
            slide = self._out.pop(future)
            try:
                self._landed(slide, future)
            except Exception as error:
                yield self._give_up(slide, _said(slide.job, error))
                continue
            if slide.course is not None and slide.course.result is not None:
                slide.close(None)
                count = slide.course.n_workers
                worker = f"{count} workers" if count > 1 else "1 worker"
                yield Outcome(slide.job, slide.course.result, worker=worker)

    def close(self) -> None:
        """Take back what has not ended."""
        for slide in self._slides:
            self._give_up(slide, KeyboardInterrupt())

    def _landed(self, slide: _Slide, future: Any) -> None:
        """Take what a task returned; hand out what can be done now."""
        if slide.course is None:
            slide.course = SlideCourse(future.result())
            tasks = slide.course.begin()
        else:
            task = slide.waiting.pop(future)
            value, worker = future.result()
            tasks = slide.course.landed(task, value, worker)
            if task.kind == "span":
                rows = slide.course.plan.rows
                slide.done += rows[task.number + 1] - rows[task.number]
                if self._tell is not None:
                    self._tell({"job": slide.number, "worker": worker, "landed": slide.done / rows[-1]})
        for task in tasks:
            self._hand_out(slide, slide.course.plan, task)

    def _hand_out(self, slide: _Slide, plan: Plan, task: Task) -> None:
        """Submit a task; the plan comes from the worker that has it, or is made again."""
        given = (
            slide.plan,
            {"bands": plan.bands, "rows": plan.rows, "run": plan.run},
            replace(task, plan=None),
            slide.number,
        )
        # What others wait for goes first.
        future = self._submit(slide, do_task, *given, priority=0 if task.kind == "span" else 1)
        slide.waiting[future] = task

    def _submit(self, slide: _Slide, work: Callable[..., Any], *given: Any, priority: int = 0) -> Any:
        future = _submit(self._client, work, *given, priority=priority)
        self._out[future] = slide
        future.add_done_callback(self._ended.put)
        return future

    def _give_up(self, slide: _Slide, error: BaseException) -> Outcome:
        """Take back all that waits of a slide."""
        waiting = [future for future, other in self._out.items() if other is slide]
        for future in waiting:
            del self._out[future]
        with contextlib.suppress(Exception):
            self._client.cancel(waiting, force=True)
        slide.close(error)
        return Outcome(slide.job, error=error if isinstance(error, Exception) else None)

    def _alive(self) -> bool:
        try:
            return bool(self._client.nthreads())
        except (OSError, RuntimeError):
            return False


def _submit(client: Any, work: Callable[..., Any], *given: Any, priority: int = 0) -> Any:
    key = f"{TASKS}-{uuid.uuid4().hex}"
    return client.submit(work, *given, key=key, pure=False, retries=RETRIES, priority=priority)


def _said(job: Job, error: Exception) -> Exception:
    """Return an error that says what happened in one line."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    if isinstance(error, CellsegError):
        return error
    if isinstance(error, KilledWorker):
        text = f"{DEATHS} workers died on it, of too little memory or by a crash; it was given up"
    elif isinstance(error, FutureCancelledError):
        text = f"the cluster gave it up: {error}"
    else:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return BackendError(f"{job.image}: {text}")


def side_by_side(one: Iterator[Outcome], other: Iterator[Outcome | None]) -> Iterator[Outcome]:
    """Yield the outcomes of both as they come; what is raised in one is raised here.

    Parameters
    ----------
    one
        Is waited for in a thread.
    other
        Yields ``None`` every now and then, so that it holds up nobody.
    """
    found: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()

    def take() -> None:
        try:
            for outcome in one:
                found.put(outcome)
            found.put(None)
        except BaseException as error:
            found.put(error)

    threading.Thread(target=take, name="cellseg-outcomes", daemon=True).start()
    left = True
    for outcome in other:
        while left and not found.empty():
            left = yield from _checked(found.get())
        if outcome is not None:
            yield outcome
    while left:
        left = yield from _checked(found.get())


def _checked(found: Outcome | BaseException | None) -> Generator[Outcome, None, bool]:
    """Yield an outcome, or raise an error; return whether there are more."""
    if isinstance(found, BaseException):
        raise found
    if found is not None:
        yield found
    return found is not None
