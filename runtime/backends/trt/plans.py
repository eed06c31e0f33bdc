"""What stands next to a TensorRT plan, and whether the plan fits this machine.

A plan is executable input for one release of one engine on one kind of GPU. Its sidecar,
``m.plan.json``, says which, and is checked before anything is deserialised. It is sealed: what it says of
the plan and of the model cannot change without being noticed. (A seal finds damage and edits; it is no
signature.) This module loads no engine: releases come from the installed packages' metadata, GPUs from
the driver.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from ...common.spelling import option
from ...errors import ModelError
from ...model.spec import FORMAT as SPEC_FORMAT
from ...model.spec import ModelSpec, Record, complaint
from ..gpus import Gpu

#: Version of the sidecar, counted apart from the specification's within it; a reader refuses any other.
FORMAT = 2
#: A sidecar of more bytes is none.
_LONGEST_SIDECAR = 1 << 20
#: File name ending of plans.
SUFFIX = ".plan"

FlavourName = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True, slots=True)
class Flavour:
    """One of the two engines that build and run plans: all that sets them apart."""

    #: Name of the Python module, and of the flavour in sidecars.
    name: FlavourName
    #: Name for people.
    title: str
    #: Names of the packages that bring the module, whichever was installed: with and without CUDA's number.
    distributions: re.Pattern[str]
    #: How to get it.
    install: str
    #: Whether plans are built without a GPU, for any of several compute capabilities.
    portable: bool
    #: Whether a build can be sped up by a file of earlier timings.
    timing_cache: bool


FLAVOURS: dict[str, Flavour] = {
    flavour.name: flavour
    for flavour in (
        Flavour(
            "tensorrt",
            "TensorRT",
            re.compile(r"tensorrt(_cu\d+)?(_bindings)?"),
            "pip install 'cellseg[tensorrt]'",
            portable=False,
            timing_cache=True,
        ),
        Flavour(
            "tensorrt_rtx",
            "TensorRT-RTX",
            re.compile(r"tensorrt_rtx(_cu\d+)?(_bindings)?"),
            "pip install 'cellseg[rtx]'",
            portable=True,
            timing_cache=False,
        ),
    )
}


class Profile(Record):
    """The sizes a plan was built for: smallest, preferred and largest."""

    #: Tiles in a batch.
    batch: tuple[int, int, int]
    #: Edge of a tile in pixels, halo included.
    tile: tuple[int, int, int]


def _read_only(wanted: int) -> AfterValidator:
    """Return what refuses every version but the one that this release reads."""

    def check(found: int) -> int:
        if found > wanted:
            raise ValueError(f"found {found}, written by a newer release of cellseg than this one")
        if found != wanted:
            raise ValueError(f"found {found}, which this release does not read")
        return found

    return AfterValidator(check)


class _SpecFormat(BaseModel):
    format: Annotated[int, _read_only(SPEC_FORMAT)] = SPEC_FORMAT


class _Formats(BaseModel):
    """The versions in a sidecar, whatever else it holds: the rest of another one would be blamed first."""

    format: Annotated[int, _read_only(FORMAT)] = FORMAT
    spec: _SpecFormat = _SpecFormat()


def _file_name(text: str) -> str:
    """Return the name of an ONNX file in the plan's own folder, or complain: it is opened later."""
    plain = text == PurePosixPath(text).name == PureWindowsPath(text).name and text.isprintable()
    if not plain or not text.endswith(".onnx") or len(text.encode()) > 255:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise ValueError(f"found {shown!r}, wanted the name of an .onnx file next to the plan")
    return text


class PlanRecord(Record):
    """The sidecar of a plan."""

    format: int = FORMAT
    spec: ModelSpec
    #: Name of the ONNX file it was built from, which stands next to it, and that file's SHA-256.
    onnx: Annotated[str, AfterValidator(_file_name)]
    onnx_sha256: str
    plan_sha256: str
    flavour: FlavourName
    #: Release of the engine that built it, which alone can run it.
    release: Annotated[str, Field(pattern=r"^[\w.+-]{1,64}$")]
    #: Name of the GPU that it was built on; ``None`` where it was built without one.
    gpu: str | None
    #: Compute capabilities that it was built for, for example ``8.9``.
    capabilities: tuple[Annotated[str, Field(pattern=r"^\d{1,3}\.\d$")], ...]
    profile: Profile
    precision: Literal["fp32", "fp16", "int8"]
    #: Scratch memory in bytes that the builder was allowed; ``None`` for the engine's own choice.
    workspace: int | None = None
    build_seconds: float = Field(ge=0.0)
    #: Parity with PyTorch as measured at export; ``plan.…`` where the plan itself was run.
    parity: dict[str, float] = Field(default_factory=dict)
    #: SHA-256 of everything above.
    seal: str = ""

    def sealed(self) -> Self:
        """Return the record with its seal, as it is written."""
        return self.model_copy(update={"seal": self.checksum()})

    def checksum(self) -> str:
        """Return what the seal should be."""
        values = self.model_dump(mode="json", exclude={"seal"})
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def title(self) -> str:
        """Engine and release for messages."""
        return f"{FLAVOURS[self.flavour].title} {self.release}"


def sidecar(plan: Path) -> Path:
    """Return where the record of a plan stands: ``m.plan.json`` next to ``m.plan``."""
    return plan.with_name(f"{plan.name}.json")


def load_record(plan: Path) -> PlanRecord:
    """Read the record of a plan.

    Raises
    ------
    ModelError
        There is no plan or no sidecar, or it is not one of this release.
    """
    if not plan.is_file():
        raise ModelError(f"{plan}: no such plan; cellseg-export builds one from an ONNX file")
    path = sidecar(plan)
    if not path.is_file():
        raise ModelError(
            f"{plan}: refused, because it has no sidecar {path.name} and a plan is executable input; "
            f"build it with cellseg-export, or, if you know who made it, run it with "
            f"{option('trust_plan', True)}"
        )
    return read_sidecar(path)


def read_sidecar(path: Path) -> PlanRecord:
    """Read a sidecar, whether or not its plan is there.

    Raises
    ------
    ModelError
        It cannot be read, is not one of this release, or has changed since it was written.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST_SIDECAR + 1).decode()
        if len(text) > _LONGEST_SIDECAR:
            raise ModelError(f"{path}: no sidecar of a plan: larger than {_LONGEST_SIDECAR:,} bytes")
        _Formats.model_validate_json(text)
        record = PlanRecord.model_validate_json(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{path}: cannot be read ({error}); build the plan again with cellseg-export"
        ) from None
    except ValidationError as error:
        raise ModelError(
            f"{path}: does not fit this release (format {FORMAT}): {complaint(error)}; "
            "build the plan again with cellseg-export"
        ) from None
    if record.seal != record.checksum():
        raise ModelError(
            f"{path}: changed or damaged since the plan was built (its checksum differs); "
            "build the plan again with cellseg-export"
        )
    return record


def load_spec(plan: Path) -> ModelSpec:
    """Return the specification of a plan; errors as :func:`load_record`."""
    return load_record(plan).spec


def installed_release(flavour: Flavour) -> str | None:
    """Return the installed release of an engine without importing it, or ``None``.

    Packages come under several names, from pip with CUDA's number or without, and from Linux distributions
    and containers with no metadata at all. So the module itself is asked first, as text; where it does not
    say, the metadata of whichever package may have brought it.
    """
    return _release(flavour.name)


@functools.cache
def _release(name: str) -> str | None:
    module = importlib.util.find_spec(name)
    if module is None:
        return None
    sources = [module.origin] + [
        found.origin for found in [importlib.util.find_spec(f"{name}_bindings")] if found is not None
    ]
    for source in filter(None, sources):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            said = re.search(
                r"""^__version__\s*=\s*["']([\w.+-]+)["']""", Path(source).read_text(), re.MULTILINE
            )
            if said:
                return said[1]
    pattern = FLAVOURS[name].distributions
    for package in importlib.metadata.distributions():
        if pattern.fullmatch(re.sub(r"[-_.]+", "_", package.name or "").lower()):
            return package.version
    return "of unknown release"


def read_plan(plan: Path) -> bytes:
    """Return the bytes of a plan, to be checked and then deserialised: read twice, they may differ.

    Raises
    ------
    ModelError
        It cannot be read.
    """
    try:
        return plan.read_bytes()
    except OSError as error:
        raise ModelError(f"{plan}: cannot be read ({error.strerror})") from None


def misfit(
    plan: Path, data: bytes, record: PlanRecord, gpu: Gpu | None, *, trust: bool = False
) -> str | None:
    """Return why a plan does not fit this machine, in one line that begins with its name; or ``None``.

    Parameters
    ----------
    plan
        The plan.
    data
        Its bytes, as :func:`read_plan` returned them.
    record
        Its sidecar.
    gpu
        The GPU that should run it; ``None`` for none.
    trust
        Take the plan's bytes for what the sidecar describes.
    """
    tampered = None if trust else _tampering(data, record)
    for problem in (tampered, _engine(record), _gpu(record, gpu), _stale(plan, record)):
        if problem is not None:
            return f"{plan}: {problem}"
    return None


def _tampering(data: bytes, record: PlanRecord) -> str | None:
    if hashlib.sha256(data).hexdigest() != record.plan_sha256:
        return "its bytes are not those that its sidecar describes"
    return None


def _stale(plan: Path, record: PlanRecord) -> str | None:
    onnx = plan.with_name(record.onnx)
    if onnx.is_file() and sha256(onnx) != record.onnx_sha256:
        return f"{onnx.name} has changed since it was built"
    return None


def _engine(record: PlanRecord) -> str | None:
    flavour = FLAVOURS[record.flavour]
    release = installed_release(flavour)
    if release is None:
        return f"built by {record.title}, which is not installed here ({flavour.install})"
    if release != record.release:
        return f"built by {record.title}, but {flavour.title} {release} is installed here"
    return None


def _gpu(record: PlanRecord, gpu: Gpu | None) -> str | None:
    wanted = " or ".join(record.capabilities)
    if gpu is None:
        return f"built for an NVIDIA GPU of compute capability {wanted}, and there is none here"
    found = ".".join(map(str, gpu.capability))
    if found not in record.capabilities:
        return f"built for compute capability {wanted}, but {gpu.name} has {found}"
    return None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises
    ------
    ModelError
        It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
