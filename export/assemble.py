"""One export from beginning to end: load, strip, trace, measure, compare, write.

The only module that knows the order of things. What it finds it tells through a ``say`` callable;
it knows nothing of the command line.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch

from cellseg.runtime.backends import open_backend
from cellseg.runtime.errors import ModelError, UsageError
from cellseg.runtime.spec import Head, ModelSpec, SplitSettings
from cellseg.train.models.nets import UNet

from . import files, halo, network, parity, tiles, to_onnx
from .graph import Deployable, Reference, choose_heads, cost

Precision = Literal["fp32", "fp16", "int8"]
Say = Callable[[str], None]
#: Tiles that are compared, and their edge in pixels.
PARITY_TILES, PARITY_EDGE = 24, 256
#: Pixels that are looked at for the halo, windows included.
HALO_PIXELS = 4_000_000
#: A tile keeps this share of its pixels at least, where no tile size is asked for.
USEFUL = 2 / 3


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be exported, and how."""

    #: ``None`` takes the newest ``best.pt`` under ``work_dirs``.
    checkpoint: Path | None = None
    #: ``None`` writes beside the checkpoint.
    output: Path | None = None
    #: Heads to keep; ``None`` keeps the mask alone.
    heads: tuple[str, ...] | None = None
    precision: Precision = "fp32"
    #: Name that the model goes by; ``None`` takes the training run's.
    name: str | None = None
    opset: int = to_onnx.OPSETS[0]
    #: Pictures to compare on.
    parity: Path | None = None
    #: ``exact``, ``near`` (see :class:`~cellseg.export.halo.Halo`) or pixels.
    halo: int | Literal["exact", "near"] = "exact"
    #: Preferred tile edge; ``None`` derives it from the halo.
    tile: int | None = None
    batch: int = 1
    #: Micrometres a pixel of the training data.
    pixel_size: float | None = None
    split: SplitSettings = field(default_factory=SplitSettings)
    #: Write even where the comparison fails.
    force: bool = False
    #: The command, for the record.
    command: str = ""


@dataclass(frozen=True, slots=True)
class Exported:
    """A written model."""

    path: Path
    spec: ModelSpec


def export(request: Request, say: Say) -> Exported:
    """Export as `request` says.

    Raises
    ------
    UsageError, ModelError, DataError, OutputError
        Nothing has been written, and what stood at the output before still does.
    """
    to_onnx.check_opset(request.opset)
    path = request.checkpoint or network.newest()
    trained = network.load(path)
    heads = choose_heads(trained.config.heads, request.heads)
    multiple = trained.network.multiple
    for option, value in (("--halo", request.halo), ("--tile", request.tile)):
        if isinstance(value, int) and value % multiple:
            raise UsageError(
                f"{option} {value}: must be a multiple of {multiple} for a network of this depth"
            )
    output = request.output or default_output(path, trained.name, request.precision)
    if output.suffix != ".onnx":
        raise UsageError(f"-o {output}: must end in .onnx")
    found = "" if request.checkpoint else " (the newest best.pt under work_dirs)"
    kind = "averaged weights" if trained.averaged else "weights"
    say(f"checkpoint  {path}{found}: {trained.config.model}, step {trained.step}, {kind}")

    with files.replacing(output) as partial:
        deployable = Deployable(trained.network, heads)
        reference = Reference(trained.network, heads)
        model = to_onnx.trace(
            deployable, channels=trained.config.in_channels, multiple=multiple, opset=request.opset
        )
        _report_savings(trained.network, deployable, model, trained.config.in_channels, say)

        images = tiles.gather(request.parity, trained.config, count=PARITY_TILES, edge=PARITY_EDGE, near=path)
        reach = halo.receptive_field(trained.config)
        bound = -(-reach // multiple) * multiple
        draft = ModelSpec(
            name=request.name or trained.name,
            architecture=trained.config.model,
            channels=trained.config.in_channels,
            heads=heads,
            multiple=multiple,
            halo=bound,
            receptive_field=reach,
            tile=4 * bound,
            pixel_size=request.pixel_size,
            precision=request.precision,
            split=request.split,
            provenance=_provenance(trained, request, images.source),
        )
        files.write(partial, to_onnx.finish(model, draft))
        measured = _measure_halo(partial, draft, trained, request, say)
        chosen = {"exact": measured.exact, "near": measured.near}.get(str(request.halo), request.halo)
        assert isinstance(chosen, int)
        spec = draft.model_copy(
            update={
                "halo": chosen,
                "tile": request.tile or preferred_tile(chosen, multiple),
                "batch": request.batch,
            }
        )
        spec = ModelSpec.model_validate(spec.model_dump(), strict=False)  # copies are not checked

        figures = parity.check(
            partial, spec, parity.reference_planes(reference, images.images), images.images
        )
        passed = _report_parity(figures, images.source, say)
        if not passed and not request.force:
            raise ModelError(
                f"{output}: not written, because the exported model differs from the trained one beyond its "
                "limits (see above); --force writes it all the same and records the failure in it"
            )
        spec = spec.model_copy(update={"parity": _record(figures, measured, passed)})
        files.write(partial, to_onnx.finish(model, spec))
    size = output.stat().st_size
    say(f"written     {output} ({size / 1e6:.2f} MB, {spec.precision}, heads {', '.join(spec.head_names)})")
    return Exported(output, spec)


def default_output(checkpoint: Path, name: str, precision: Precision) -> Path:
    """Return where a model goes that no place was named for: beside its checkpoint."""
    middle = "" if precision == "fp32" else f".{precision}"
    return checkpoint.parent / f"{name}{middle}.onnx"


def preferred_tile(halo_pixels: int, multiple: int) -> int:
    """Return the smallest multiple of 256 (and of `multiple`) that keeps :data:`USEFUL` of its pixels."""
    step = int(np.lcm(256, multiple))
    tile = step
    while (tile - 2 * halo_pixels) ** 2 < USEFUL * tile**2:
        tile += step
    return tile


def _report_savings(
    trained: UNet, deployable: Deployable, model: onnx.ModelProto, channels: int, say: Say
) -> None:
    heads: tuple[Head, ...] = deployable.heads
    names = list(trained.heads.heads)
    kept = [head.name for head in heads]
    gone = [name for name in names if name not in kept] or ["none"]
    edge = 8 * trained.multiple
    before, after = cost(_Bytes(trained), channels, edge), cost(deployable, channels, edge)
    counts = _operations(trained, channels), sum(to_onnx.node_counts(model).values())
    say(f"heads       kept {', '.join(kept)}; stripped {', '.join(gone)}")
    say(f"saved       {'':14}{'trained':>12}{'exported':>12}")
    rows: list[tuple[str, float, float, str]] = [
        ("operations", *counts, ",.0f"),
        ("parameters", before.parameters, to_onnx.parameters(model), ",.0f"),
        ("GFLOP/Mpx", before.gflop_per_megapixel, after.gflop_per_megapixel, ",.1f"),
    ]
    for label, one, two, form in rows:
        say(f"            {label:14}{one:>12{form}}{two:>12{form}}")


class _Bytes(torch.nn.Module):
    """The trained network as it stands, all heads, fed with bytes so that it can be counted alike."""

    def __init__(self, trained: UNet) -> None:
        super().__init__()
        self.trained = trained

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.trained((image / 255.0).permute(0, 3, 1, 2))
        return torch.cat(list(logits.values()), dim=1)


def _operations(trained: UNet, channels: int) -> int:
    """Count the tensor operations of the trained network, as PyTorch sees them."""
    image = torch.zeros(1, channels, 4 * trained.multiple, 4 * trained.multiple)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(trained, (image,))
    return sum(node.op == "call_function" for node in program.graph.nodes)


def _measure_halo(
    path: Path, spec: ModelSpec, trained: network.Trained, request: Request, say: Say
) -> halo.Halo:
    bound = spec.halo
    edge = halo.CORE + 2 * bound
    count = int(np.clip(HALO_PIXELS // edge**2, 2, 24))
    windows = tiles.gather(request.parity, trained.config, count=count, edge=edge, near=trained.path).images
    with open_backend(path, "cpu", engine="openvino") as backend:
        found = halo.measure(
            lambda images: parity.engine_planes(backend, images), windows, spec.multiple, bound
        )
    say(
        f"halo        {found.exact} px: bytes equal the whole image's ({found.pixels / 1e6:.1f} Mpx seen); "
        f"at {found.near} px none is off by more than 1; in theory {spec.receptive_field} px"
    )
    if trained.config.norm == "group":
        say("            this network normalises over the whole input: tiles of it cannot agree exactly")
    return found


def _report_parity(figures: dict[str, parity.Figures], source: str, say: Say) -> bool:
    say(f"parity      with PyTorch, on {source}")
    names = list(parity.Limits.__dataclass_fields__)
    say(f"            {'':6}" + "".join(f"{name:>17}" for name in names))
    passed = True
    for row, one in figures.items():
        limits = parity.LIMITS[row]
        say(f"            {row:6}" + "".join(f"{getattr(one, name):>17.5g}" for name in names))
        say(f"            {'limit':6}" + "".join(f"{getattr(limits, name):>17.5g}" for name in names))
        beyond = one.beyond(limits)
        for phrase in beyond:
            say(f"            {row} fails: {phrase}")
        passed &= not beyond
    return passed


def _record(figures: dict[str, parity.Figures], measured: halo.Halo, passed: bool) -> dict[str, float]:
    record: dict[str, float] = {"passed": float(passed)}
    for row, one in figures.items():
        record |= {f"{row}.{name}": float(value) for name, value in asdict(one).items()}
    return record | {"halo_exact": float(measured.exact), "halo_near": float(measured.near)}


def _provenance(trained: network.Trained, request: Request, source: str) -> dict[str, str]:
    checkpoint = Path(trained.path)
    return {
        "cellseg": importlib.metadata.version("cellseg"),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "checkpoint": f"{checkpoint.resolve().parent.name}/{checkpoint.name}",
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "step": str(trained.step),
        "command": request.command,
        "parity_tiles": source,
    }
