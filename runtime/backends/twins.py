"""A model's twin in eight bits: which file it is, and when it runs in the model's place.

``cellseg-export --int8`` writes ``m.int8.onnx`` next to ``m.onnx``. It is the same network, with the same
settings; only its arithmetic differs, and what that costs was measured at export.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelError, UsageError
from ..model import onnx_metadata
from ..model.spec import ModelSpec

#: Of the cells that the trained network finds on the pictures of the export, the share (F1 at IoU 0.5)
#: that a twin must find as well, to run where nobody asked for it.
AGREEMENT = 0.995
#: What a twin may have otherwise than its model.
OWN = {"precision", "unfit", "weights_sha256", "provenance", "parity"}
#: Instructions that multiply bytes several times as fast as other processors do (x86).
INSTRUCTIONS = {"avx512_vnni", "avx_vnni", "amx_int8"}
CPUINFO = Path("/proc/cpuinfo")


def twin_of(path: Path, spec: ModelSpec) -> tuple[Path, ModelSpec]:
    """Return a model's twin, for a user who asks for it.

    Raises
    ------
    UsageError
        There is none.
    ModelError
        It is of another checkpoint, or was exported with other settings.
    """
    twin = path.with_name(f"{path.stem}.int8{path.suffix}")
    if not twin.is_file():
        raise UsageError(
            f"{path}: computes in {spec.precision}, and no twin in eight bits, {twin.name}, is next to it; "
            "cellseg-export --int8 writes one"
        )
    found = onnx_metadata.load_spec(twin)
    key = "checkpoint_sha256"
    if found.precision != "int8" or found.provenance.get(key) != spec.provenance.get(key):
        raise ModelError(
            f"{twin}: not the twin of {path.name} in eight bits; export both from one checkpoint"
        )
    here, there = spec.model_dump(exclude=OWN), found.model_dump(exclude=OWN)
    if here != there:
        name = next(name for name in here if here[name] != there[name])
        raise ModelError(
            f"{twin}: its {name} is not that of {path.name}, which was tuned or exported later; export it "
            "again with --int8"
        )
    return twin, found


def fast_twin(path: Path, spec: ModelSpec) -> tuple[Path, ModelSpec] | None:
    """Return a model's twin where it is faster here and finds the same cells, or ``None``.

    The processor must multiply bytes quickly, and the twin must agree with the trained network on
    :data:`AGREEMENT` of the cells. One that does not suit is as good as none.
    """
    if spec.precision == "int8" or not multiplies_bytes():
        return None
    try:
        twin, found = twin_of(path, spec)
    except (UsageError, ModelError):
        return None
    passed = found.parity.get("passed", 0.0) == 1 and found.parity.get("int8.f1_50", 0.0) >= AGREEMENT
    return (twin, found) if passed else None


def multiplies_bytes() -> bool:
    """Tell whether the processor has instructions for sums of products of bytes; known on Linux, x86."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not INSTRUCTIONS.isdisjoint(flags.split())
