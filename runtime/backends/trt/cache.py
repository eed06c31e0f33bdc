"""Kernels that an engine compiled for this very GPU, kept next to the plan: ``m.plan.cache``.

TensorRT-RTX compiles a plan's kernels where it runs, in seconds for each size of tile. All batches in
flight share one cache of them, and the file lets the next start do without. A file of another GPU,
driver, release or plan, or a damaged one, is not used and is replaced. It knows nothing of engines:
what it keeps are bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from ...common.files import replacing, write
from ...errors import CellsegError
from ...model.spec import Record, complaint
from ..gpus import Gpu, driver_version
from .plans import Flavour

#: Version of the file's first line.
FORMAT = 1
#: What its first line may take.
_LONGEST_LINE = 4096


class CacheOwner(Record):
    """For what kernels were compiled; the first line of the file, as JSON, before the kernels."""

    format: int = FORMAT
    gpu: str
    capability: tuple[int, int]
    driver: str
    #: Engine and release, for example ``TensorRT-RTX 1.4.0.76``.
    engine: str
    plan_sha256: str
    #: Of the kernels that follow.
    sha256: str = ""

    @classmethod
    def of(cls, data: bytes, flavour: Flavour, release: str, gpu: Gpu) -> Self:
        """Say for what a plan's kernels are compiled here.

        Parameters
        ----------
        data
            The plan's bytes.
        flavour, release
            The engine that runs it.
        gpu
            Where.
        """
        return cls(
            gpu=gpu.name,
            capability=gpu.capability,
            driver=driver_version(),
            engine=f"{flavour.title} {release}",
            plan_sha256=hashlib.sha256(data).hexdigest(),
        )


def cache_file(plan: Path) -> Path:
    """Return where the kernels of a plan are kept."""
    return plan.with_name(f"{plan.name}.cache")


def load(path: Path, owner: CacheOwner) -> tuple[bytes | None, str]:
    """Return the kernels in a file, and else why they are not used: one line, or nothing to say."""
    try:
        with path.open("rb") as file:
            first = file.readline(_LONGEST_LINE)
            kernels = file.read()
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"{path}: cannot be read ({error.strerror}); kernels are compiled again"
    try:
        found = CacheOwner.model_validate_json(first)
    except ValidationError as error:
        return None, f"{path}: not used, because it is damaged or of another release ({complaint(error)})"
    if found.sha256 != hashlib.sha256(kernels).hexdigest():
        return None, f"{path}: not used, because it is damaged (its checksum differs)"
    for what in ("format", "gpu", "capability", "driver", "engine", "plan_sha256"):
        one, other = getattr(found, what), getattr(owner, what)
        if one != other:
            word = (
                "another plan" if what == "plan_sha256" else f"{what} {_text(one)}, here it is {_text(other)}"
            )
            return None, f"{path}: not used, because it was made for {word}"
    return kernels, ""


def save(path: Path, owner: CacheOwner, kernels: bytes) -> bool:
    """Write kernels, whole or not at all; return whether they could be. A plan runs without, only later."""
    head = owner.model_copy(update={"sha256": hashlib.sha256(kernels).hexdigest()})
    try:
        with replacing(path) as partial:
            write(partial, head.model_dump_json().encode() + b"\n" + kernels)
    except CellsegError:
        return False
    return True


def _text(value: object) -> str:
    return ".".join(map(str, value)) if isinstance(value, tuple) else str(value)
