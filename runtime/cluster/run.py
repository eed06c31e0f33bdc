"""Jobs over a cluster's workers: checked first, then handed out, taken back in the order they end."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..backends import Options
from ..batch.jobs import Job, Outcome
from ..common.spelling import language, option
from ..errors import BackendError, CellsegError, OutputError, UsageError
from .connect import DEATHS, TASKS, Connected, version
from .slides import large_jobs, run_slides, side_by_side
from .span import Span
from .worker import NAME, EnginePlugin, Opening, look, release, work

#: Told what a worker says of the image that it is at: ``job``, ``worker``, ``done``, ``total``, ``cells``.
Tell = Callable[[dict[str, Any]], None]
#: Seconds between two looks at whether a worker can still come.
LOOK = 2.0


def run_jobs(
    jobs: Sequence[Job],
    cluster: Connected,
    model: str | None = None,
    *,
    running: Options | None = None,
    tell: Tell | None = None,
    span: Span = "auto",
) -> Iterator[Outcome]:
    """Segment images on a cluster.

    An image is one task, or several where it is large and there are fewer images than workers: see
    :mod:`cellseg.runtime.spans`. A worker that dies, or is not heard of any more, has its task done by
    another one; an image on which :data:`~.connect.DEATHS` workers died is given up.

    Parameters
    ----------
    jobs
        The images, with their folders of results: places that workers see under the same names.
    cluster
        As from :func:`~.connect.connect`.
    model
        A file or the name of a packaged model; ``None`` for the default.
    running
        How the engine runs.
    tell
        Called about once a second for each worker, from another thread.
    span
        Megapixels of the parts that workers compute of one image; ``auto``: as suits images and workers,
        ``none``: an image is never shared.

    Yields
    ------
    Outcome
        As they end.

    Raises
    ------
    UsageError
        A worker does not see an image or the output, or has another release of cellseg.
    BackendError
        No worker came.
    """
    if not jobs:
        return
    from distributed import as_completed

    client = cluster.client
    _check_workers(client, cluster, [job.image for job in jobs], {job.folder.parent for job in jobs}, model)
    first = jobs[0].options
    # What an engine reports by calling back cannot cross to another machine.
    opening = Opening(
        model,
        first.device,
        first.engine,
        replace(running or Options(), rebuilding=None),
        cluster.local,
        language(),
    )
    client.register_plugin(EnginePlugin(opening))
    if tell is not None:
        client.subscribe_topic(NAME, lambda event: tell(event[1]))
    large = large_jobs(dict(enumerate(jobs)), cluster, span)
    futures = {
        client.submit(work, job, number, key=f"{TASKS}-{uuid.uuid4().hex}-{number}", pure=False): job
        for number, job in enumerate(jobs)
        if number not in large
    }
    try:
        whole = (_outcome(future, futures[future]) for future in as_completed(list(futures)))
        yield from side_by_side(whole, run_slides(large, cluster, span, tell))
    finally:
        with contextlib.suppress(Exception):
            client.cancel(list(futures), force=True)
            if tell is not None:
                client.unsubscribe_topic(NAME)


def _outcome(future: Any, job: Job) -> Outcome:
    """Return what a task returned; what killed it, if it did."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    try:
        found: Outcome = future.result()
    except KilledWorker:
        text = (
            f"{job.image}: {DEATHS} workers died on it, of too little memory or by a crash; it was given up"
        )
        return Outcome(job, error=BackendError(text))
    except FutureCancelledError as error:
        return Outcome(job, error=BackendError(f"{job.image}: the cluster gave it up: {error}"))
    except CellsegError as error:  # the engine could not be opened
        return Outcome(job, error=error)
    except Exception as error:
        return Outcome(
            job, error=BackendError(f"{job.image}: {type(error).__name__}: {' '.join(str(error).split())}")
        )
    return found


def _check_workers(
    client: Any, cluster: Connected, images: list[str], outputs: set[Path], model: str | None
) -> None:
    """Ask every worker that is there whether it could do the work."""
    _wait_for_worker(cluster)
    _check_release(client)
    paths = [str(Path(image).absolute()) if "://" not in image else image for image in images]
    if model is not None and Path(model).exists():
        paths.append(str(Path(model).absolute()))
    for output in outputs:
        with _token(output) as token:
            for worker, (unseen, seen) in client.run(look, paths, str(token)).items():
                if not seen:
                    raise UsageError(
                        f"{output}: worker {worker} does not see it; results must go where all workers "
                        "write, such as a shared file system"
                    )
                there = [path for path in unseen if Path(path).exists()]
                if there:
                    raise UsageError(
                        f"{there[0]}: worker {worker} does not see it; images must lie where all workers "
                        "read, under the same name"
                    )


def _wait_for_worker(cluster: Connected) -> None:
    """Wait for the first worker, as long as one may come."""
    deadline = time.monotonic() + cluster.patience
    while True:
        try:
            cluster.client.wait_for_workers(1, timeout=min(LOOK, cluster.patience))
            return
        except TimeoutError:
            if complaint := cluster.complaint():
                raise BackendError(f"{cluster.description}: no worker came; {complaint}") from None
            if time.monotonic() > deadline:
                raise BackendError(
                    f"{cluster.description}: no worker came within {cluster.patience:g} s; look at the "
                    "jobs' queue and logs, or raise 'patience'"
                ) from None


def _check_release(client: Any) -> None:
    mine = version()
    advice = f"install cellseg {mine} with them"
    try:
        theirs = client.run(release)
    except Exception as error:
        raise UsageError(
            f"the workers cannot run cellseg ({type(error).__name__}: {error}); {advice}"
        ) from None
    for worker, found in theirs.items():
        if found != mine:
            raise UsageError(f"worker {worker} has cellseg {found}, here is {mine}; install the same on both")


@contextlib.contextmanager
def _token(folder: Path) -> Iterator[Path]:
    """Give a file in a folder that is gone afterwards; make the folder."""
    token = folder / f".cellseg-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        token.touch()
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror}); choose another place with {option('output')}"
        ) from None
    try:
        yield token.absolute()
    finally:
        token.unlink(missing_ok=True)
