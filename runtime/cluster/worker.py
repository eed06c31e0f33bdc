"""What a worker holds and does: an engine that is opened once, and one image at a time."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from distributed import Reschedule, get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from ..backends import Backend, Options, open_backend
from ..backends.gpus import list_gpus
from ..batch.jobs import Job, Outcome
from ..common.heap import steady_heap
from ..common.spelling import Language, written_as
from ..errors import CellsegError
from ..streaming.progress import Progress
from .attempt import STALL, Watch, attempt
from .sight import Sight

#: Name of the plugin at its worker, and of the events by which workers tell how far they are.
NAME = "cellseg"
#: Seconds between two such events of a worker.
PACE = 1.0


@dataclass(frozen=True, slots=True)
class Opening:
    """How workers open the model."""

    #: A file or a name; ``None`` for the default.
    model: str | None
    device: str
    engine: str | None
    running: Options
    #: Processes that share one machine's cores and GPUs; 0 where each worker has its own.
    sharers: int = 0
    #: How options are written in messages: as where the run was started.
    language: Language = "python"
    #: Seconds after which a worker whose image does not move on is taken to hang.
    patience: float = STALL
    #: What a worker must see that joins later; those that are there are asked before the run.
    sight: Sight | None = None


class EnginePlugin(WorkerPlugin):  # type: ignore[misc]  # distributed is not typed
    """Keeps the engine of a worker open for all of its images."""

    name = NAME

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self.blind = False
        self.language = opening.language
        self.patience = opening.patience

    def setup(self, worker: Any) -> None:
        """Note which of the sharers this is; the engine is opened with the first image."""
        _stop_profiling(worker)
        sight = self._opening.sight
        self.blind = sight is not None and sight.missing() is not None
        if self.blind:  # it goes before it gets work; what it may have got already, it gives back
            worker.loop.add_callback(worker.close_gracefully, restart=False, reason="blind")
        self._number = int(worker.name) if str(worker.name).isdecimal() else 0
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._backend: Backend | None = None
        sharers = self._opening.sharers
        self._share: list[int] | None = None
        if sharers > 1 and hasattr(os, "sched_getaffinity"):
            self._share = share_of(sorted(os.sched_getaffinity(0)), self._number, sharers)

    def teardown(self, worker: Any) -> None:
        """Close the engine."""
        self._stack.close()

    def backend(self) -> Backend:
        """Return the engine, opened if need be."""
        given = self._opening
        with self._lock:
            if self._share is not None:
                # The threads that this one starts do all the work, and inherit its processors.
                os.sched_setaffinity(0, self._share)
            if self._backend is None:
                steady_heap()
                device, gpus = given.device, list_gpus()
                if device in ("auto", "cuda") and gpus and given.sharers:
                    device = f"cuda:{gpus[self._number % len(gpus)].index}"
                threads = None if self._share is None else len(self._share)
                running = replace(given.running, threads=threads)
                self._backend = self._stack.enter_context(
                    open_backend(given.model, device, engine=given.engine, options=running)
                )
            return self._backend

    def __getstate__(self) -> dict[str, Any]:
        return {"_opening": self._opening, "language": self.language, "patience": self.patience}


def _stop_profiling(worker: Any) -> None:
    """Stop Dask's profiler, which looks at the stacks of all threads each 10 ms.

    Until Python 3.12, a collection of garbage in the middle of that may lock up the whole process:
    https://github.com/python/cpython/issues/106883.
    """
    if sys.version_info < (3, 12):
        for name in ("profile", "profile-cycle"):
            if (callback := worker.periodic_callbacks.pop(name, None)) is not None:
                callback.stop()


def share_of(processors: list[int], number: int, sharers: int) -> list[int]:
    """Return the processors of one of several processes: all get about as many, each its own."""
    if len(processors) < sharers:
        return processors
    begin, end = (len(processors) * part // sharers for part in (number % sharers, number % sharers + 1))
    return processors[begin:end]


def work(job: Job, number: int, fresh: bool = False) -> Outcome:
    """Segment one image on the worker that calls this; ``fresh`` as for :func:`~.attempt.attempt`."""
    worker = get_worker()
    plugin: EnginePlugin = worker.plugins[NAME]
    give_back(plugin)
    told = Teller(worker, number)
    with written_as(plugin.language):
        try:
            backend = plugin.backend()
        except CellsegError as error:
            return Outcome(job, error=error, worker=str(worker.name))
        with Watch(worker, plugin.patience) as watch:

            def note(progress: Progress) -> None:
                watch.note(progress)
                told(progress)

            return replace(attempt(job, backend, note, fresh=fresh), worker=str(worker.name))


def give_back(plugin: EnginePlugin) -> None:
    """Let another worker do a task that came to one which does not see the files."""
    if plugin.blind:
        time.sleep(1.0)
        raise Reschedule


class Teller:
    """Tells the client from time to time how far an image is: the job of this number."""

    def __init__(self, worker: Any, number: int) -> None:
        self._log: Callable[[str, Any], None] = worker.log_event
        self._about = {"job": number, "worker": str(worker.name)}
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Tell, if it is time."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PACE
            self._log(
                NAME, {**self._about, "done": progress.done, "total": progress.total, "cells": progress.cells}
            )


def release() -> str:
    """Return the release of cellseg at this worker."""
    from .connect import version

    return version()
