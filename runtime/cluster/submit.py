"""Workers as jobs of a batch system, by dask-jobqueue; what the system says when it refuses one is kept."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from ..common.threads import SHARE
from ..errors import BackendError, UsageError
from .where import BatchSystem

#: Class of dask-jobqueue by system.
KINDS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}


class Submitted:
    """A scheduler in this process whose workers are jobs; more are asked for as long as images wait.

    Attributes
    ----------
    cluster
        The ``dask_jobqueue.JobQueueCluster``.
    refusals
        What the batch system said to jobs that it did not take.
    """

    def __init__(self, batch: BatchSystem) -> None:
        try:
            import dask_jobqueue as jobqueue
        except ModuleNotFoundError:
            raise UsageError("batch systems need dask-jobqueue; pip install 'cellseg[cluster]'") from None
        self.refusals: list[str] = []
        self._batch = batch
        kind: Any = getattr(jobqueue, KINDS[batch.system])
        try:
            self.cluster: Any = kind(job_cls=_reporting(kind.job_cls, self.refusals), **_options(batch))
            self.cluster.adapt(minimum=1, maximum=batch.jobs)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise BackendError(f"{batch.system}: the cluster cannot be started: {_line(error)}") from None

    def complaint(self) -> str | None:
        """Return why no worker will come, as far as the batch system says; ``None`` where one may."""
        if self.refusals:
            return f"{self._batch.system} takes no job: {self.refusals[-1]}"
        jobs = [str(job.job_id) for job in self.cluster.workers.values() if getattr(job, "job_id", None)]
        if self._batch.system == "slurm" and jobs and not _alive(jobs):
            where = self._batch.logs or "this folder"
            return f"job {jobs[0]} ended before its worker was heard of; its log in {where} says why"
        return None

    def close(self) -> None:
        """End the jobs and the scheduler."""
        self.cluster.close(timeout=30)


def _options(batch: BatchSystem) -> dict[str, Any]:
    """Return what dask-jobqueue is told."""
    gpus = [f"--gres=gpu:{batch.gpus}"] if batch.gpus and batch.system == "slurm" else []
    options: dict[str, Any] = {
        "cores": 1,  # of Dask's: one image at a time
        "processes": 1,
        "memory": batch.memory,
        "walltime": batch.walltime,
        "python": batch.python or sys.executable,
        "job_extra_directives": [*gpus, *batch.directives],
        # A job may be able to see all cores of its node, where the batch system does not bind it to its own.
        "job_script_prologue": [
            *batch.before,
            f"export {SHARE}={batch.cores}",
            f"export OMP_NUM_THREADS={batch.cores}",
        ],
        # Our memory is bounded; the batch system ends a job that takes too much, and Dask would by a guess.
        "worker_extra_args": ["--memory-limit", "0"],
        "log_directory": batch.logs,
        "interface": batch.interface,
        "death_timeout": 120,
        "scheduler_options": {"dashboard_address": ":0"},  # any free port: others have clusters here too
    }
    options |= {"queue": batch.queue} if batch.queue else {}
    options |= {"account": batch.account} if batch.account and batch.system in ("slurm", "pbs") else {}
    if batch.system == "slurm":
        options["job_cpu"] = batch.cores
    elif batch.system == "pbs":
        options["resource_spec"] = f"select=1:ncpus={batch.cores}:mem={batch.memory}"
    elif batch.system == "lsf":
        options["ncpus"] = batch.cores
    return options


def _reporting(plain: Any, refusals: list[str]) -> Any:
    """Return a kind of job that notes why it could not be submitted, and is not submitted again."""
    from distributed.deploy.spec import ProcessInterface

    class Reporting(plain):  # type: ignore[misc]  # its base is known only when it runs
        async def start(self) -> None:
            try:
                await super().start()
            except (OSError, ValueError, RuntimeError) as error:
                refusals.append(_line(error))
                # A job that never comes; else Dask prints a traceback and tries again each second.
                await ProcessInterface.start(self)

    return Reporting


def _line(error: Exception) -> str:
    """Return in one line what is wrong; of a command that failed, what it printed."""
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return f"there is no command '{error.filename}' here; run this where jobs are submitted"
    _, found, printed = text.partition("stderr:\n")
    return " ".join((printed if found and printed.strip() else text).split())


def _alive(jobs: list[str]) -> bool:
    """Whether Slurm still knows one of these jobs; so it is taken to be where it cannot be asked."""
    command = ["squeue", "--noheader", "--format=%i", f"--jobs={','.join(jobs)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return bool(done.stdout.strip()) if done.returncode == 0 else "Invalid job id" not in done.stderr
