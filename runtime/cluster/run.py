"""Jobs over a cluster's workers: checked first, then handed out, taken back in the order they end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ..backends import Options
from ..batch.jobs import Job, Outcome
from ..common.spelling import language
from ..writers.contents import RECORD
from ..writers.folder import taken
from .attempt import STALL
from .checks import checked_workers, patiently
from .connect import Connected
from .handout import Handout
from .slides import large_jobs, run_slides, side_by_side
from .span import Span
from .worker import NAME, EnginePlugin, Opening

#: Folders that are looked at side by side.
ASKED = 16
#: Told what a worker says of the image that it is at: ``job``, ``worker``, ``done``, ``total``, ``cells``.
Tell = Callable[[dict[str, Any]], None]


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
    :mod:`cellseg.runtime.spans`. A worker that dies, hangs or is not heard of any more has its task done by
    another one; an image on which :data:`~.connect.DEATHS` workers died is given up. One that failed is tried
    once more on another worker, which may have the disk, the memory or the driver that it takes.

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
        A worker does not see an image or the output, or has other releases.
    BackendError
        No worker came.
    """
    if not jobs:
        return
    client, tasks = cluster.client, dict(enumerate(jobs))
    with ThreadPoolExecutor(ASKED) as pool:  # a store takes its time to answer
        done = list(pool.map(lambda job: (job.folder / RECORD).is_file(), jobs))
    fresh = {number for number in tasks if not done[number]}
    for number, job in enumerate(jobs):
        if done[number] and not (job.options.overwrite or job.options.resume):
            yield Outcome(tasks.pop(number), error=taken(job.folder))
    if not tasks:
        return
    images, outputs = [job.image for job in tasks.values()], {job.folder.parent for job in tasks.values()}
    with contextlib.ExitStack() as stack:
        sight = stack.enter_context(checked_workers(cluster, images, outputs, model))
        first = jobs[0].options
        # What an engine reports by calling back cannot cross to another machine.
        opening = Opening(
            model,
            first.device,
            first.engine,
            replace(running or Options(), rebuilding=None),
            cluster.local,
            language(),
            STALL,
            sight,
        )
        patiently(lambda: client.register_plugin(EnginePlugin(opening)))
        stack.callback(_quietly, lambda: client.status == "running" and client.run_on_scheduler(_forget))
        if tell is not None:
            client.subscribe_topic(NAME, lambda event: tell(event[1]))
            stack.callback(_quietly, lambda: client.unsubscribe_topic(NAME))
        large = large_jobs(tasks, cluster, span)
        whole = {number: job for number, job in tasks.items() if number not in large}
        handed = Handout(cluster, whole, fresh)
        stack.callback(_quietly, handed.cancel)
        yield from side_by_side(iter(handed), run_slides(large, cluster, span, tell))


def _forget(dask_scheduler: Any) -> None:
    """Let workers that come after the run be none of it."""
    dask_scheduler.worker_plugins.pop(NAME, None)


def _quietly(end: Callable[[], Any]) -> None:
    """Do what may fail where the scheduler has gone."""
    with contextlib.suppress(Exception):
        end()
