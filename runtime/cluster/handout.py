"""Images are handed out to workers and taken back as they end; what fails on one is tried on another.

What Dask does not do by itself: an image that failed for a reason that may be its worker's is tried once more
elsewhere, and images for which no worker is left are given up instead of waited for.
"""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..batch.jobs import Job, Outcome
from ..errors import BackendError, CellsegError, ExistsError, ModelError, UsageError
from .checks import LOOK
from .connect import DEATHS, TASKS, Connected
from .worker import work

#: Seconds without any worker after which what is left is given up, at least.
GONE = 60.0


@dataclass(frozen=True, slots=True)
class Task:
    """An image that was handed out."""

    job: Job
    number: int
    #: Whether there were no results of it before the run: what is there later is our own.
    fresh: bool
    #: Whether it has failed on another worker.
    failed: bool = False
    #: Addresses of the workers that may do it; none for all.
    workers: tuple[str, ...] = ()


class Handout:
    """Images with the workers of a cluster; iterating yields an outcome of each.

    Parameters
    ----------
    cluster
        As from :func:`~.connect.connect`.
    jobs
        The images by number.
    fresh
        Numbers of those that have no results yet.
    """

    def __init__(self, cluster: Connected, jobs: Mapping[int, Job], fresh: Collection[int]) -> None:
        self._cluster, self._client = cluster, cluster.client
        self._name = f"{TASKS}-{uuid.uuid4().hex}"
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._out: dict[Any, Task] = {}
        for number, job in jobs.items():
            self._give(Task(job, number, fresh=job.options.overwrite or number in fresh))

    def __iter__(self) -> Iterator[Outcome]:
        missed: float | None = None
        while self._out:
            try:
                future = self._ended.get(timeout=LOOK)
            except queue.Empty:
                alive = self._alive()
                self._free(alive)
                missed = None if alive else missed or time.monotonic()
                patience = max(GONE, self._cluster.patience)
                if missed is not None and time.monotonic() - missed > patience:
                    yield from self._give_up(f"no worker was left for {patience:g} s")
                continue
            task = self._out.pop(future, None)
            if task is None:
                continue
            outcome = _outcome(future, task.job)
            if not self._tried_elsewhere(future, task, outcome):
                yield outcome

    def cancel(self) -> None:
        """Take back what has not ended."""
        self._client.cancel(list(self._out), force=True)

    def _give(self, task: Task) -> None:
        again = ("-again" if task.workers else "-anywhere") if task.failed else ""
        future = self._client.submit(
            work,
            task.job,
            task.number,
            task.fresh,
            key=f"{self._name}-{task.number}{again}",
            pure=False,
            workers=list(task.workers) or None,
        )
        self._out[future] = task
        future.add_done_callback(self._ended.put)

    def _tried_elsewhere(self, future: Any, task: Task, outcome: Outcome) -> bool:
        """Hand an image out once more, to other workers, if its worker may be why it failed."""
        error = outcome.error
        if error is None or task.failed or isinstance(error, UsageError | ModelError | ExistsError):
            return False
        if future.status != "finished":  # killed or cancelled: no worker told of it
            return False
        here = {address for each in self._client.who_has([future]).values() for address in each}
        others = tuple(sorted(self._alive() - here))
        if not here or not others:
            return False
        self._give(replace(task, failed=True, workers=others))
        return True

    def _alive(self) -> set[str]:
        """Return the addresses of all workers; none where the scheduler does not answer."""
        try:
            return set(self._client.nthreads())
        except (OSError, RuntimeError):
            return set()

    def _free(self, alive: set[str]) -> None:
        """Let any worker do what waits for workers that have gone."""
        for future, task in list(self._out.items()):
            if task.workers and alive and alive.isdisjoint(task.workers):
                del self._out[future]
                future.cancel(force=True)
                self._give(replace(task, workers=()))

    def _give_up(self, why: str) -> Iterator[Outcome]:
        self.cancel()
        left, self._out = list(self._out.values()), {}
        for task in left:
            yield Outcome(task.job, error=BackendError(f"{task.job.image}: {why}; it was given up"))


def _outcome(future: Any, job: Job) -> Outcome:
    """Return what a task returned; what killed it, if it did."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    try:
        found: Outcome = future.result()
    except KilledWorker as error:
        deaths = getattr(error, "allowed_failures", DEATHS - 1) + 1
        text = f"{deaths} workers died on it, of too little memory or time, or by a crash; it was given up"
        return Outcome(job, error=BackendError(f"{job.image}: {text}"))
    except FutureCancelledError as error:
        lost = "scheduler" in str(error)
        text = "the scheduler was lost" if lost else f"the cluster gave it up: {error}"
        return Outcome(job, error=BackendError(f"{job.image}: {text}"))
    except CellsegError as error:
        return Outcome(job, error=error)
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Outcome(job, error=BackendError(f"{job.image}: {text}"))
    return found
