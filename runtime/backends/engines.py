"""The table of engines: which one opens which file on which device.

A new engine is one row of :data:`ENGINES`. The rows stand in order of preference: ``auto`` takes the
first that fits the file and is ready on this machine.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..errors import BackendError, ModelError, UsageError
from ..model import onnx_metadata
from ..model.catalog import default_model, model_names
from ..model.spec import ModelSpec
from .base import Backend, Mode, Precision
from .gpus import list_gpus
from .twins import fast_twin, twin_of

#: What ``--device`` accepts, for messages.
DEVICES = "auto, cpu, cuda or cuda:N"


@dataclass(frozen=True, slots=True)
class Options:
    """How an engine should run; each engine takes from it what it knows."""

    #: ``throughput`` for slides, ``latency`` for one small picture.
    mode: Mode = "throughput"
    #: CPU threads; ``None`` for all cores.
    threads: int | None = None
    precision: Precision = "auto"
    #: What to do with a TensorRT plan that does not fit: ``auto`` rebuilds it or runs the ONNX file
    #: next to it, ``none`` stops.
    fallback: Literal["auto", "none"] = "auto"
    #: Run a TensorRT plan whose sidecar is missing or describes another file.
    trust_plan: bool = False
    #: Told how far the rebuild of a plan is, 0…1, and what it does.
    rebuilding: Callable[[float, str], None] | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """A row of the table."""

    #: As the user writes it.
    name: str
    #: File name ending of the models it runs.
    suffix: str
    #: ``cpu`` or ``cuda``.
    kind: Literal["cpu", "cuda"]
    #: Return why it cannot run here, or ``None``; must be quick and must not load the engine.
    missing: Callable[[], str | None]
    #: Read the model's specification.
    load_spec: Callable[[Path], ModelSpec]
    #: Open a model on a device.
    open: Callable[[Path, ModelSpec, str, Options], Backend]
    #: Whether a model's twin in eight bits is faster there, where the processor has the instructions.
    eight_bits: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """A line of ``cellseg-infer --devices``."""

    #: ``cpu`` or ``cuda:N``.
    device: str
    #: Name of the hardware.
    hardware: str
    engine: str
    #: File name ending of the models it runs there.
    suffix: str
    #: Why it cannot be used, or ``None``.
    missing: str | None


def _open_openvino(path: Path, spec: ModelSpec, device: str, options: Options) -> Backend:
    from .cpu_openvino import OpenVino

    return OpenVino(path, spec, mode=options.mode, threads=options.threads, precision=options.precision)


def _open_ort(path: Path, spec: ModelSpec, device: str, options: Options) -> Backend:
    from .ort import OnnxRuntime

    return OnnxRuntime(path, spec, device=device, threads=options.threads, precision=options.precision)


def _plan_spec(path: Path) -> ModelSpec:
    from .trt.plans import load_spec

    return load_spec(path)


def _open_plan(path: Path, spec: ModelSpec | None, device: str, options: Options) -> Backend:
    from .trt.opening import open_plan

    return open_plan(
        path,
        _parse_device(device)[1],
        fallback=options.fallback == "auto",
        trust=options.trust_plan,
        open_onnx=lambda onnx: open_backend(onnx, options=options),
        progress=options.rebuilding,
    )


def _plans_missing(package: str, extra: str) -> str | None:
    return _installed(package, extra) if list_gpus() else "no NVIDIA GPU"


def _installed(package: str, extra: str = "") -> str | None:
    if importlib.util.find_spec(package) is not None:
        return None
    return f"not installed (pip install 'cellseg{extra}')"


def _ort_cuda_missing() -> str | None:
    if not list_gpus():
        return "no NVIDIA GPU"
    from .ort import has_cuda

    return None if has_cuda() else "not installed (pip install 'cellseg[gpu]')"


ENGINES: tuple[Engine, ...] = (
    *(
        Engine(
            name,
            ".plan",
            "cuda",
            functools.partial(_plans_missing, name, extra),
            _plan_spec,
            _open_plan,
        )
        for name, extra in (("tensorrt", "[tensorrt]"), ("tensorrt_rtx", "[rtx]"))
    ),
    Engine("onnxruntime", ".onnx", "cuda", _ort_cuda_missing, onnx_metadata.load_spec, _open_ort),
    Engine(
        "openvino",
        ".onnx",
        "cpu",
        functools.partial(_installed, "openvino"),
        onnx_metadata.load_spec,
        _open_openvino,
        eight_bits=True,
    ),
    Engine(
        "onnxruntime",
        ".onnx",
        "cpu",
        functools.partial(_installed, "onnxruntime", "[gpu]"),
        onnx_metadata.load_spec,
        _open_ort,
    ),
)


def open_backend(
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    *,
    engine: str | None = None,
    options: Options | None = None,
) -> Backend:
    """Open a model on the best engine for it.

    Parameters
    ----------
    model
        A file (``.onnx`` or ``.plan``), the name of a packaged model, or ``None`` for the default one.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    engine
        Insist on an engine by name.
    options
        How it should run.

    Returns
    -------
    Backend
        Not yet prepared for a size. ``backend.note`` says so where ``auto`` had to do without a GPU
        that is there.

    Raises
    ------
    UsageError
        Unknown device, engine or kind of file.
    ModelError
        The file is missing, damaged or not ours.
    BackendError
        The engine is not installed or does not start on that device.
    """
    options = options or Options()
    path = resolve_model(model)
    kind, index = _parse_device(device)
    rows = _rows(path, engine, kind, device)
    if options.precision in ("int8", "bf16") and path.suffix == ".plan":
        raise UsageError(f"{path}: a plan computes in what it was built for, not in {options.precision}")
    if path.suffix == ".plan":  # its sidecar says which engine, and what to do where that is missing
        return _with_doubt(_open_plan(path, None, f"cuda:{index}", options))
    spec = rows[0].load_spec(path)
    if options.precision == "int8" and spec.precision != "int8":
        path, spec = twin_of(path, spec)
    refused: list[str] = []
    for row in rows:
        missing = row.missing()
        if missing is None:
            twin = fast_twin(path, spec) if row.eight_bits and options.precision == "auto" else None
            chosen, its_spec = twin or (path, spec)
            try:
                backend = row.open(chosen, its_spec, "cpu" if row.kind == "cpu" else f"cuda:{index}", options)
            except BackendError as error:
                if kind != "auto":
                    raise
                missing = str(error)
            else:
                # A GPU that is not there is no news; one that is there and does not work is.
                told = [text for text in refused if "no NVIDIA GPU" not in text]
                backend.note = "; ".join([*told, backend.note] if backend.note else told)
                return _with_doubt(backend)
        refused.append(f"{row.name} on {row.kind}: {missing}")
    raise BackendError(f"nothing here can run {path}: {'; '.join(refused)}")


def _with_doubt(backend: Backend) -> Backend:
    """Say at every use of a model that it was exported against the findings of its comparison."""
    if backend.spec.parity.get("passed", 1.0) < 1 and "--force" not in backend.note:
        doubt = (
            f"model '{backend.spec.name}' differs from the trained network beyond the limits of "
            "cellseg-export, which wrote it with --force: its cells are not to be relied on"
        )
        backend.note = f"{backend.note}; {doubt}" if backend.note else doubt
    return backend


def load_spec(model: str | os.PathLike[str] | None = None) -> ModelSpec:
    """Return a model's specification without opening it; parameters and errors as :func:`open_backend`."""
    path = resolve_model(model)
    return _rows(path, None, "auto", "auto")[0].load_spec(path)


def resolve_model(model: str | os.PathLike[str] | None) -> Path:
    """Return the file that a model argument means: a path, a packaged model's name, or the default."""
    if model is None:
        return default_model()
    path = Path(model)
    packaged = path.name == str(model) and str(model) in model_names()
    # A folder that happens to be called like a packaged model does not hide it.
    if not (packaged and not path.is_file()) and (path.suffix or path.exists() or len(path.parts) > 1):
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "no such file"
            raise ModelError(f"{path}: {what}; expected a model written by cellseg-export")
        return path
    return default_model(str(model))


def list_devices() -> list[Device]:
    """Return every engine on every device of this machine, usable or not, best first."""
    found = []
    for row in ENGINES:
        missing = row.missing()
        template = Device("cpu", _cpu_name(), row.name, row.suffix, missing)
        if row.kind == "cpu":
            found.append(template)
        elif gpus := list_gpus():
            found += [replace(template, device=f"cuda:{gpu.index}", hardware=gpu.name) for gpu in gpus]
        else:
            found.append(replace(template, device="cuda", hardware="none"))
    return found


def _rows(path: Path, engine: str | None, kind: str, device: str) -> list[Engine]:
    rows = [row for row in ENGINES if row.suffix == path.suffix]
    if not rows:
        known = " or ".join(dict.fromkeys(row.suffix for row in ENGINES))
        if path.suffix in (".pt", ".pth", ".ckpt"):
            raise UsageError(
                f"{path}: is a checkpoint of training, and what runs are {known} files; export it first: "
                f"cellseg-export {path}"
            )
        raise UsageError(f"{path}: unknown kind of model '{path.suffix}'; expected {known}")
    if engine is not None:
        rows = [row for row in rows if row.name == engine]
        if not rows:
            known = ", ".join(dict.fromkeys(row.name for row in ENGINES if row.suffix == path.suffix))
            raise UsageError(f"{path}: engine '{engine}' does not run {path.suffix} files; choose {known}")
    if kind != "auto":
        fitting = [row for row in rows if row.kind == kind]
        if not fitting:
            kinds = " or ".join(dict.fromkeys(row.kind for row in rows))
            raise UsageError(f"{path}: {rows[0].name} runs {path.suffix} files on {kinds}, not on {device}")
        return fitting
    return rows


def _parse_device(device: str) -> tuple[str, int]:
    kind, colon, index = device.partition(":")
    if kind == "cuda" and (not colon or index.isdecimal()):
        return kind, int(index or 0)
    if device in ("auto", "cpu"):
        return device, 0
    raise UsageError(f"unknown device '{device}'; choose {DEVICES}")


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    except OSError:
        pass
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
