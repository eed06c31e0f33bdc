"""Open a TensorRT plan, or do the next best thing where it does not fit.

A plan is checked against its sidecar before anything is deserialised. Where it does not fit, it is
rebuilt from the ONNX file next to it, in a process of its own and once, however many ask at the same
time; where that cannot be, the ONNX file runs on the best device there is, and the backend's note
says so.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ...common.spelling import option
from ...errors import BackendError, ModelError
from ...model import onnx_metadata
from ..base import Backend
from ..gpus import Gpu, list_gpus
from . import plans
from .plans import FLAVOURS, PlanRecord

#: The program that builds plans; it is no part of the runtime and may be missing.
BUILDER = "cellseg.export.to_tensorrt"
#: Told how far a rebuild is, 0…1, and what it does.
Progress = Callable[[float, str], None]


def open_plan(
    plan: Path,
    index: int,
    *,
    fallback: bool,
    trust: bool,
    open_onnx: Callable[[Path], Backend],
    progress: Progress | None = None,
) -> Backend:
    """Open a plan on a GPU.

    Parameters
    ----------
    plan
        The file.
    index
        Number of the GPU.
    fallback
        Rebuild a plan that does not fit, or run its ONNX file; otherwise stop.
    trust
        Run a plan whose sidecar is missing or describes another file.
    open_onnx
        Opens an ONNX file on the best device there is.
    progress
        Told of a rebuild.

    Raises
    ------
    ModelError
        The plan or its sidecar is missing or damaged.
    BackendError
        It does not fit, and nothing else can be done or may be.
    """
    gpu = next((gpu for gpu in list_gpus() if gpu.index == index), None)
    record: PlanRecord | None = None
    if not trust or plans.sidecar(plan).is_file():
        record = plans.load_record(plan)
    onnx = plan.with_suffix(".onnx") if record is None else plan.with_name(record.onnx)
    try:
        return _open_alone(plan, onnx, gpu) if record is None else _open(plan, record, gpu, trust=trust)
    except BackendError as error:
        reason = str(error)
    if not fallback:
        raise BackendError(f"{reason}; rebuild it with cellseg-export, or allow {option('fallback', 'auto')}")
    if not onnx.is_file():
        raise BackendError(f"{reason}, and there is no {onnx.name} next to it to build it from or to run")
    failure = ""
    if record is not None:
        try:
            rebuild(plan, onnx, record, gpu, progress)
            backend = _open(plan, plans.load_record(plan), gpu)
        except (BackendError, ModelError) as error:
            failure = "" if str(error) == reason else f"; {error}"
        else:
            backend.note = f"{reason}; it has been rebuilt"
            return backend
    backend = open_onnx(onnx)
    backend.note = f"{reason}{failure}: {onnx.name} runs on {backend.name} ({backend.device}) instead"
    return backend


def rebuild(
    plan: Path, onnx: Path, record: PlanRecord, gpu: Gpu | None, progress: Progress | None = None
) -> None:
    """Rebuild a plan from its ONNX file, unless another process has just done so.

    Raises
    ------
    BackendError
        It cannot be built here.
    """
    if gpu is None:
        raise BackendError("there is no GPU to build it for")
    installed = {name for name, flavour in FLAVOURS.items() if plans.installed_release(flavour) is not None}
    if not installed or importlib.util.find_spec(BUILDER) is None:
        raise BackendError("no engine is installed to build it with")
    settings = {
        "flavour": record.flavour if record.flavour in installed else None,
        "profile": record.profile.model_dump(mode="json"),
        "workspace": record.workspace,
    }
    with _one_at_a_time(plan.parent):
        with contextlib.suppress(ModelError):
            if plans.misfit(plan, plans.read_plan(plan), plans.load_record(plan), gpu) is None:
                return
        _run([sys.executable, "-m", BUILDER, str(onnx), str(plan), json.dumps(settings)], progress)


def _run(command: list[str], progress: Progress | None) -> None:
    """Run the builder; a crash of the engine in there is an error here."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                done, _, phase = line.strip().partition(" ")
                if progress is not None:
                    with contextlib.suppress(ValueError):
                        progress(float(done), phase)
            words = process.stderr.read().strip().splitlines()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise BackendError(
            f"it could not be rebuilt ({words[-1] if words else f'exit {process.returncode}'})"
        )


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, where the system has such locks; plans are replaced whole in any case."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with contextlib.suppress(OSError):  # some network folders take no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _open(plan: Path, record: PlanRecord, gpu: Gpu | None, *, trust: bool = False) -> Backend:
    """Open a plan if it fits; what is checked and what is deserialised are the same bytes."""
    from .runner import TensorRt

    data = plans.read_plan(plan)
    reason = plans.misfit(plan, data, record, gpu, trust=trust)
    if reason is not None or gpu is None:
        raise BackendError(reason or f"{plan}: a plan needs an NVIDIA GPU, and there is none here")
    spec = record.spec
    if record.parity.get("plan.passed", 1.0) < 1:  # the graph may have passed, and the plan not
        spec = spec.model_copy(update={"parity": {**spec.parity, "passed": 0.0}})
    return TensorRt(plan, data, spec, FLAVOURS[record.flavour], record.profile, gpu)


def _open_alone(plan: Path, onnx: Path, gpu: Gpu | None) -> Backend:
    """Open a plan without a sidecar, as the user insists; its specification is the ONNX file's."""
    from .runner import TensorRt

    if not plan.is_file():
        raise ModelError(f"{plan}: no such plan")
    if not onnx.is_file():
        raise ModelError(
            f"{plan}: has neither sidecar nor {onnx.name} next to it; one must say what it computes"
        )
    if gpu is None:
        raise BackendError(f"{plan}: a plan needs an NVIDIA GPU, and there is none here")
    spec = onnx_metadata.load_spec(onnx)
    installed = [flavour for flavour in FLAVOURS.values() if plans.installed_release(flavour) is not None]
    if not installed:
        ways = " or ".join(flavour.install for flavour in FLAVOURS.values())
        raise BackendError(f"{plan}: no TensorRT is installed to run it ({ways})")
    return TensorRt(plan, plans.read_plan(plan), spec, installed[0], None, gpu)
