"""``segment_many()``: many images, one after the other or on a cluster.

Every image is on its own: what fails is named, and the others are done.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..backends import Backend, Options, open_backend
from ..batch.inputs import expand, result_names
from ..batch.jobs import Job, Outcome, run_job
from ..common.addresses import Address, place_of
from ..errors import UsageError
from ..options import SegmentOptions
from ..pipeline import Model
from .span import Span, check_span

if TYPE_CHECKING:
    from .connect import Cluster


def segment_many(
    images: Iterable[str | os.PathLike[str]],
    model: Model = None,
    *,
    output: str | os.PathLike[str] | Address,
    cluster: Cluster | None = None,
    span: Span = "auto",
    options: SegmentOptions | None = None,
    **keywords: Any,
) -> Iterator[Outcome]:
    """Segment many images, one after the other or on a cluster.

    Parameters
    ----------
    images
        As for ``cellseg-infer``: files, folders, patterns, URLs, manifests.
    model
        As for :func:`~cellseg.runtime.segment`; on a cluster a file or a name, which each worker opens once.
    output
        Each image gets a folder of its name in this one, a path or an address such as ``s3://bucket/results``.
    cluster
        ``None``: one after the other, here. Text as of ``cellseg-infer --cluster``: ``local``, ``local:4``,
        ``tcp://head:8786``, ``slurm.yml``. Or a ``dask.distributed.Client`` of your own, which stays open.
    span
        On a cluster, megapixels of the parts of an image that its workers compute, each on its own: the
        results are the same to the byte. ``auto``: as suits images and workers, only where an image is large
        and there are fewer than workers. ``none``: an image is never shared.
    options, **keywords
        As for :func:`~cellseg.runtime.segment`.

    Yields
    ------
    Outcome
        As they are ready; on a cluster in any order.

    Raises
    ------
    UsageError
        The call or the cluster is wrong; nothing was started.
    """
    chosen = (options or SegmentOptions()).but(**keywords)
    check_span(span)
    inputs = expand([os.fspath(image) for image in images])
    jobs = [
        Job(item.image, place_of(output) / name, chosen.but(**item.options))
        for item, name in zip(inputs, result_names(inputs), strict=True)
    ]
    running = Options(precision=chosen.precision)
    if cluster is None:
        with contextlib.ExitStack() as stack:
            backend = (
                model
                if isinstance(model, Backend)
                else stack.enter_context(
                    open_backend(model, chosen.device, engine=chosen.engine, options=running)
                )
            )
            for job in jobs:
                yield run_job(job, backend)
        return
    from .connect import connect
    from .run import run_jobs

    if isinstance(model, Backend):
        raise UsageError(
            "a cluster's workers open the model themselves: give a file or a name, not an open backend"
        )
    file = None if model is None else os.fspath(model)
    with connect(cluster) as connected:
        yield from run_jobs(jobs, connected, file, running=running, span=span)
