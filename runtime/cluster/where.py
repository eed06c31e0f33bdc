"""What ``--cluster`` names: this machine, a Dask scheduler that runs, or a batch system."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..common.bounded import brief, read_bytes
from ..common.spelling import option
from ..errors import UsageError

#: What is accepted, for messages.
WANTED = "local, local:N, a Dask scheduler such as tcp://head:8786, or a YAML file for a batch system"
_ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://\S+")


class BatchSystem(BaseModel):
    """A batch system whose jobs are the workers: the content of ``slurm.yml``, read by dask-jobqueue."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    system: Literal["slurm", "pbs", "lsf", "sge"]
    #: Jobs at most; there are fewer when there are fewer images.
    jobs: int = Field(ge=1, le=10_000)
    #: Cores and memory of a job.
    cores: int = Field(ge=1, default=4)
    memory: str = "16GB"
    #: GPUs of a job: asked for as Slurm's ``--gres=gpu:N``; elsewhere say it in ``directives``.
    gpus: int = Field(ge=0, default=0)
    walltime: str = "04:00:00"
    queue: str | None = None
    account: str | None = None
    #: More lines for the head of the job, without ``#SBATCH``.
    directives: tuple[str, ...] = ()
    #: Commands before the worker starts, such as ``module load cuda``.
    before: tuple[str, ...] = ()
    #: Python on the nodes; by default the one that runs this.
    python: str | None = None
    #: Network interface through which jobs reach this machine, such as ``ib0``.
    interface: str | None = None
    #: Folder for the jobs' logs.
    logs: str | None = None
    #: Seconds to wait for the first job to start.
    patience: float = Field(gt=0, default=3600.0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where workers are: exactly one of the three."""

    #: Processes on this machine; 0 for as many as suit it.
    local: int | None = None
    address: str | None = None
    batch: BatchSystem | None = None


def parse_place(text: str) -> Place:
    """Read the value of ``--cluster``.

    Raises
    ------
    UsageError
        It names none of the three, or the file is not understood.
    """
    word, colon, count = text.partition(":")
    if word == "local":
        if not colon:
            return Place(local=0)
        if not re.fullmatch(r"[1-9]\d{0,3}", count):
            raise UsageError(
                f"{option('cluster', text)}: wanted a number of processes from 1 behind 'local:'"
            )
        return Place(local=int(count))
    if _ADDRESS.fullmatch(text):
        return Place(address=text)
    path = Path(text)
    if path.suffix.lower() in (".yml", ".yaml"):
        return Place(batch=read_batch(path))
    raise UsageError(f"{option('cluster', text)}: wanted {WANTED}")


def read_batch(path: Path) -> BatchSystem:
    """Read the description of a batch system.

    Raises
    ------
    UsageError
        The file cannot be read, or holds a key or value that is not understood.
    """
    import yaml

    try:
        found: Any = yaml.safe_load(read_bytes(path, 1 << 16))
    except (OSError, EOFError, ValueError, RecursionError, yaml.YAMLError) as error:
        text = getattr(error, "strerror", None) or getattr(error, "problem", None) or str(error)
        raise UsageError(f"{path}: cannot be read: {' '.join(str(text).split())}") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path}: holds {brief(found)}; wanted keys such as 'system: slurm' and 'jobs: 8'")
    given = {str(key): tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    try:
        return BatchSystem.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise UsageError(
                f"{path}: unknown key '{where}'; known are {', '.join(BatchSystem.model_fields)}"
            ) from None
        raise UsageError(f"{path}: {where}: {first['msg'].lower()}; found {brief(first['input'])}") from None
