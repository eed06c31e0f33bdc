"""One image on a worker, where an earlier worker may have been cut short: killed, hung, cut off."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from ..backends import Backend
from ..batch.jobs import Job, Outcome, run_job
from ..common.pulse import beats
from ..errors import ExistsError, InUseError
from ..streaming.progress import Progress

#: Seconds in which an image neither moves on nor ends before its worker is taken to hang.
STALL = 900.0
#: Seconds that one waits for a folder that another worker, believed dead, still holds.
HELD = 60.0


def attempt(job: Job, backend: Backend, progress: Callable[[Progress], None], *, fresh: bool) -> Outcome:
    """Segment one image; whatever is raised inside becomes its error.

    Parameters
    ----------
    job, backend, progress
        As for :func:`~cellseg.runtime.batch.jobs.run_job`.
    fresh
        Whether there were no results when the run began: a worker that died after it had finished them, and
        before it could say so, made those that are there now.
    """
    deadline = time.monotonic() + HELD
    while True:
        outcome = run_job(job, backend, progress)
        if not isinstance(outcome.error, InUseError) or time.monotonic() > deadline:
            break
        time.sleep(1.0)
    if fresh and isinstance(outcome.error, ExistsError):
        found = run_job(replace(job, options=job.options.but(resume=True)), backend, progress)
        outcome = replace(found, job=job, earlier=False)
    return outcome


class Watch:
    """Ends this process when the image, or the part of it, that it is at no longer moves on.

    Its nanny starts another.

    A thread that hangs, in a driver or on a disk that does not answer, cannot be ended otherwise, and Dask
    sees a worker that is alive.

    Parameters
    ----------
    worker
        The ``dask.distributed.Worker``; one without a nanny is left alone, as nobody would start it again.
    patience
        Seconds.
    """

    def __init__(self, worker: Any, patience: float) -> None:
        self._patience = patience
        self._over = threading.Event()
        self._told: tuple[int, int] = (-1, -1)
        self._at: tuple[int, ...] = ()
        self._since = time.monotonic()
        self._thread = threading.Thread(target=self._look, name="cellseg-watch", daemon=True)
        self._watches = getattr(worker, "nanny", None) is not None

    def note(self, progress: Progress) -> None:
        """Note how far the image is."""
        self._told = progress.done, progress.cells

    def stalled(self) -> bool:
        """Whether nothing has moved since long: no progress was told, nothing was read or written."""
        if (at := (*self._told, beats())) != self._at:
            self._at, self._since = at, time.monotonic()
        return time.monotonic() - self._since > self._patience

    def _look(self) -> None:
        while not self._over.wait(min(5.0, self._patience / 4)):
            if self.stalled():
                os._exit(75)

    def __enter__(self) -> Self:
        if self._watches:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
