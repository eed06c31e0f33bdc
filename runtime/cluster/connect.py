"""A client of the cluster that was named, whatever kind it is; closed with what was started for it."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from ..backends.gpus import list_gpus
from ..common.spelling import option
from ..common.threads import cores
from ..errors import UsageError
from .submit import Submitted
from .where import Place, parse_place

#: What a user may give: text as of ``--cluster``, or a ``dask.distributed.Client``.
Cluster = Any
#: Cores that one process on a CPU makes good use of; with more, two processes are faster than one.
CORES_A_PROCESS = 8
#: Seconds in which a scheduler must answer.
PATIENCE = 10.0
#: Workers that die on an image before it is given up.
DEATHS = 3
#: What the names of our tasks begin with.
TASKS = "cellseg"


@dataclass(frozen=True, slots=True)
class Connected:
    """A cluster that answers."""

    #: The ``dask.distributed.Client``.
    client: Any
    #: One line about where the workers are.
    description: str
    #: Address of Dask's own page about the workers, where it has one.
    dashboard: str | None
    #: Processes on this machine, which share its cores and GPUs; 0 elsewhere.
    local: int = 0
    #: Seconds to wait for the first worker.
    patience: float = PATIENCE
    #: Says why no worker will come, as far as that is known.
    complaint: Callable[[], str | None] = lambda: None


@contextlib.contextmanager
def connect(cluster: Cluster) -> Iterator[Connected]:
    """Connect to a cluster, or start one.

    Parameters
    ----------
    cluster
        Text as of ``cellseg-infer --cluster``, or a ``dask.distributed.Client``, which stays open.

    Raises
    ------
    UsageError
        It cannot be what was meant: no scheduler there, a file that is not understood, no dask.
    BackendError
        It cannot be started.
    """
    try:
        import dask
        import distributed
    except ModuleNotFoundError:
        raise UsageError("clusters need dask.distributed; pip install 'cellseg[cluster]'") from None
    # Dask's own warnings speak of its inside; what matters here is said in one line.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    settings = {
        "distributed.scheduler.allowed-failures": DEATHS - 1,
        "distributed.admin.log-format": "%(message)s",
        # See EnginePlugin: what looks at all stacks each 10 ms may lock a worker up for good.
        "distributed.worker.profile.enabled": False,
        # By this more jobs are asked for at once: an image takes minutes, not the half second of a guess.
        "distributed.scheduler.default-task-durations": {TASKS: "10 minutes"},
    }
    if isinstance(cluster, distributed.Client):
        yield Connected(cluster, "a cluster of your own", _dashboard(cluster))
        return
    if not isinstance(cluster, str):
        raise UsageError(f"cluster is {type(cluster).__name__}; wanted text or a dask.distributed.Client")
    place = parse_place(cluster)
    with dask.config.set(settings), contextlib.ExitStack() as stack:
        if place.address is not None:
            client = _join(distributed, place.address)
            stack.callback(client.close)
            yield Connected(client, place.address, _dashboard(client))
        elif place.batch is not None:
            submitted = stack.enter_context(contextlib.closing(Submitted(place.batch)))
            client = stack.enter_context(distributed.Client(submitted.cluster))
            description = f"{place.batch.system}, up to {place.batch.jobs} jobs"
            yield Connected(
                client,
                description,
                _dashboard(client),
                patience=place.batch.patience,
                complaint=submitted.complaint,
            )
        else:
            count = local_processes(place)
            started = stack.enter_context(_start_local(distributed, count))
            client = stack.enter_context(distributed.Client(started))
            yield Connected(client, f"{count} processes on this machine", _dashboard(client), local=count)


def local_processes(place: Place) -> int:
    """Return how many processes this machine gets: as many as asked for, or as suit it.

    One for each GPU, or for every :data:`CORES_A_PROCESS` cores.

    Raises
    ------
    UsageError
        There are fewer cores than processes.
    """
    if not place.local:
        return len(list_gpus()) or max(1, cores() // CORES_A_PROCESS)
    if place.local > cores():
        raise UsageError(
            f"{option('cluster', f'local:{place.local}')}: there are {cores()} cores; wanted "
            f"local:{cores()} at most"
        )
    return place.local


def _start_local(distributed: Any, count: int) -> Any:
    """Start processes here. They listen on the loopback address alone."""
    return distributed.LocalCluster(
        n_workers=count,
        threads_per_worker=1,  # one image at a time; its stages have threads of their own
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",  # any free port: others have clusters here too
        memory_limit=None,  # our memory is bounded; Dask would kill by a guess
        silence_logs=logging.CRITICAL,
    )


def _join(distributed: Any, address: str) -> Any:
    try:
        with warnings.catch_warnings():
            # A table of many lines; :func:`~.checks.check_protocol` says what matters, in one.
            warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
            client = distributed.Client(address, timeout=PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(
            f"{option('cluster', address)}: no Dask scheduler answers there ({type(error).__name__}); "
            "is 'dask scheduler' running?"
        ) from None
    return client


def _dashboard(client: Any) -> str | None:
    return str(client.dashboard_link) if _has_dashboard() and client.dashboard_link else None


def _has_dashboard() -> bool:
    from importlib.util import find_spec

    return find_spec("bokeh") is not None


def version() -> str:
    """Return the release of cellseg, for workers to be compared with."""
    return f"{metadata.version('cellseg')} on Python {sys.version_info.major}.{sys.version_info.minor}"
