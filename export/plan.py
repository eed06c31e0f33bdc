"""The plan after the graph: built where it can be, compared with PyTorch where it can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from cellseg.runtime.backends import Options, open_backend
from cellseg.runtime.backends.gpus import list_gpus
from cellseg.runtime.backends.trt import plans
from cellseg.runtime.errors import CellsegError, ModelError

from . import parity, report, to_tensorrt
from .assemble import Exported
from .report import Say, line
from .to_tensorrt import Progress, Settings


def add_plan(
    exported: Exported,
    target: Path | None,
    settings: Settings,
    say: Say,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Path | None:
    """Build a TensorRT plan of an exported model.

    Parameters
    ----------
    target
        Where to; ``None`` takes the ONNX file's place with the ending ``.plan``, and then a plan that
        cannot be built is told, no error.
    force
        Write even a plan that differs from PyTorch.

    Returns
    -------
    Path or None
        The plan, where there is one.

    Raises
    ------
    CellsegError
        `target` was named and cannot be built.
    """
    path = target or exported.path.with_suffix(plans.SUFFIX)
    check = _comparison(exported, say, force) if list_gpus() else None
    try:
        record = to_tensorrt.build(exported.path, path, settings, progress, check)
    except CellsegError as error:
        if target is not None:
            raise
        say(line("plan", f"none: {error}"))
        return None
    capabilities = ", ".join(record.capabilities)
    say(
        line(
            "plan",
            f"{path} ({path.stat().st_size / 1e6:.2f} MB, {record.title}, {record.build_seconds:.1f} s, "
            f"for compute capability {capabilities})",
        )
    )
    if check is None:
        say(line("", "not run: there is no NVIDIA GPU here; its graph is the ONNX file compared above"))
    return path


def _comparison(exported: Exported, say: Say, force: bool) -> Callable[[Path], dict[str, float]]:
    """Return what runs a finished plan on the GPU and compares it with the trained network."""

    def check(plan: Path) -> dict[str, float]:
        with open_backend(plan, "cuda", options=Options(fallback="none")) as backend:
            planes = parity.engine_planes(backend, exported.images)
        figures = parity.compare(exported.planes, planes, exported.spec)
        passed = not report.comparison({exported.spec.precision: figures}, "the plan, on the same tiles", say)
        if not passed and not force:
            raise ModelError(
                f"{plan.name}: not written, because the plan differs from the trained network beyond its "
                "limits (see above); --force writes it all the same and records the failure next to it"
            )
        values = {f"plan.{name}": float(value) for name, value in asdict(figures).items()}
        return values | {"plan.passed": float(passed)}

    return check
