"""One export from beginning to end: load, strip, trace, measure, compare, write.

The only module that knows the order of things. What it finds it tells through a ``say`` callable;
it knows nothing of the command line.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from cellseg.runtime.backends import Options, load_spec, open_backend
from cellseg.runtime.common import files
from cellseg.runtime.errors import ModelError, UsageError
from cellseg.runtime.model.onnx_metadata import seal
from cellseg.runtime.model.spec import METADATA_KEY, CellDiameter, Head, ModelSpec, SplitSettings
from cellseg.train.models.heads import ENCODINGS

from . import cells, fp16, halo, int8, network, parity, report, sizes, tiles, to_onnx
from .graph import Deployable, Reference, choose_heads
from .report import Say, line

Precision = Literal["fp32", "fp16", "int8"]
#: Tiles that are compared, and their edge in pixels.
PARITY_TILES, PARITY_EDGE = 24, 256
#: Of these, tiles on which half precision and INT8 are tried.
HALF_TILES = 4
#: Tiles that calibrate INT8, and the fewest that do.
CALIBRATION_TILES, FEWEST_CALIBRATION_TILES = 48, 8
#: Pixels that are looked at for the halo, windows included.
HALO_PIXELS = 4_000_000
#: A tile keeps this share of its pixels at least, where no tile size is asked for.
USEFUL = 0.65


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be exported, and how."""

    #: ``None`` takes the newest ``best.pt`` under ``work_dirs``.
    checkpoint: Path | None = None
    #: ``None`` writes next to the checkpoint.
    output: Path | None = None
    #: Heads to keep; ``None`` keeps the mask alone.
    heads: tuple[str, ...] | None = None
    precision: Precision = "fp32"
    #: Name that the model goes by; ``None`` takes the training run's.
    name: str | None = None
    opset: int = to_onnx.OPSETS[0]
    #: Pictures to compare on.
    parity: Path | None = None
    #: Pictures to calibrate INT8 with; ``None`` takes the validation images.
    calibration: Path | None = None
    #: ``exact``, ``near`` (see :class:`~cellseg.export.halo.Halo`) or pixels.
    halo: int | Literal["exact", "near"] = "exact"
    #: Preferred tile edge; ``None`` derives it from the halo, ``auto`` measures it and the batch size.
    tile: int | Literal["auto"] | None = None
    batch: int = 1
    #: Micrometres a pixel of the training data.
    pixel_size: float | None = None
    #: How large the cells of the training data are; ``None``: as the model that it started from has it.
    diameter: CellDiameter | None = None
    #: ``None``: those of the model that it started from, or such as suit the heads.
    split: SplitSettings | None = None
    #: Write even where the comparison fails.
    force: bool = False
    #: Replace a model that stands there.
    overwrite: bool = False
    #: The command, for the record.
    command: str = ""


@dataclass(frozen=True, slots=True)
class Exported:
    """A written model."""

    path: Path
    spec: ModelSpec
    #: The tiles it was compared on, uint8 (n, T, T, C), and the trained network's planes of them.
    images: NDArray[np.uint8] = field(repr=False, compare=False)
    planes: NDArray[np.uint8] = field(repr=False, compare=False)
    #: The data set that it was trained on; the first, of several.
    data: Path = Path("datasets/NAME")

    @property
    def next_step(self) -> tuple[str | Path, ...]:
        """How the splitter is tuned for it."""
        return self.data / "train", "--engine", self.path, "-o", self.path.with_suffix(".tuned.onnx")


def export(request: Request, say: Say) -> Exported:
    """Export as `request` says.

    Raises
    ------
    UsageError, ModelError, DataError, OutputError
        Nothing has been written, and what stood at the output before still does.
    """
    to_onnx.check_opset(request.opset)
    if request.precision == "int8":
        int8.check_installed()
    path = request.checkpoint or network.newest()
    trained = network.load(path)
    heads = choose_heads(trained.config.outputs, request.heads)
    multiple, channels = trained.network.multiple, trained.config.in_channels
    _check_sizes(request, multiple)
    output = request.output or default_output(path, trained.name, request.precision)
    if output.suffix != ".onnx":
        raise UsageError(f"-o {output}: must end in .onnx")
    files.refuse_existing(output, overwrite=request.overwrite)
    split = _introduce(trained, [head.name for head in heads], request, say)

    with files.replacing(output) as partial:
        deployable = Deployable(trained.network, heads)
        images = tiles.gather(request.parity, trained.config, count=PARITY_TILES, edge=PARITY_EDGE, near=path)
        traced = _in_half(deployable, images, say) if request.precision == "fp16" else deployable
        model = to_onnx.trace(traced, channels=channels, multiple=multiple, opset=request.opset)
        report.savings(trained.network, deployable, model, channels, say)
        if request.precision == "int8":
            model = _in_int8(model, trained, request, images, say)
        spec = _draft(trained, heads, split, request, images.source)
        files.write(partial, to_onnx.finish(model, spec))
        measured = _measure_halo(partial, spec, trained, request, say)
        spec = _with_sizes(spec, measured, request)
        if request.tile == "auto":
            spec = _with_fastest(partial, spec, say)

        wanted = parity.reference_planes(Reference(trained.network, heads), images.images)
        figures = parity.check(partial, spec, wanted, images.images)
        failed = report.comparison(figures, images.source, say)
        unfit = failed & {"bf16"}
        if unfit:
            say(line("", "so it runs in fp32 on processors that would compute in bf16"))
        passed = not failed - unfit
        if request.precision == "fp16" and not parity.rounds_to_half():
            say(line("", "fp16 was summed in single: onnxruntime, which rounds to half, is not installed"))
        if not passed and not request.force:
            raise ModelError(
                f"{output}: not written, because the exported model differs from the trained one beyond its "
                "limits (see above); --force writes it all the same and records the failure in it"
            )
        spec = spec.model_copy(
            update={"parity": _record(figures, measured, passed), "unfit": tuple(sorted(unfit))}
        )
        files.write(partial, to_onnx.finish(model, spec))
        seal(partial)
    size = output.stat().st_size / 1e6
    say(line("written", f"{output} ({size:.2f} MB, {spec.precision}, heads {', '.join(spec.head_names)})"))
    data = Path(trained.config.data_sets[0].path)
    return Exported(output, load_spec(output), images.images, wanted, data)


def _introduce(
    trained: network.Trained, heads: list[str], request: Request, say: Say
) -> SplitSettings | None:
    """Say what is exported; return how its planes become cells, where that is asked for or inherited."""
    found = "" if request.checkpoint else " (the newest best.pt under work_dirs)"
    kind = "averaged weights" if trained.averaged else "weights"
    if trained.mean_of:
        kind = f"mean of {len(trained.mean_of)}"
    if trained.kept:
        kind += f" with {trained.kept:.0%} of those it started from"
    say(line("checkpoint", f"{trained.path}{found}: {trained.config.model}, step {trained.step}, {kind}"))
    split = request.split
    if split is None and (split := cells.inherited_split(trained, heads)):
        say(
            line(
                "", f"its planes become cells as those of {trained.inherited['from']}, which it started from"
            )
        )
    return split


def _check_sizes(request: Request, multiple: int) -> None:
    """Refuse halo and tile sizes that cannot be, before any work is done."""
    for option, value in (("--halo", request.halo), ("--tile", request.tile)):
        if isinstance(value, int) and value % multiple:
            raise UsageError(f"{option} {value}: must be a multiple of {multiple}, as the network pools")
    if isinstance(request.halo, int):
        _check_core(request.tile, request.halo)


def _check_core(tile: int | str | None, pixels: int) -> None:
    if isinstance(tile, int) and tile <= 2 * pixels:
        raise UsageError(
            f"--tile {tile} leaves no core inside a halo of {pixels}; wanted more than {2 * pixels}"
        )


def _in_half(deployable: Deployable, images: tiles.Tiles, say: Say) -> Deployable:
    choice = fp16.choose(deployable, images.images[:HALF_TILES])
    kept = f"{', '.join(choice.single)} in single" if choice.single else "no part needs single"
    say(
        line(
            "half",
            f"{kept}; largest value {choice.largest:.4g}, bytes differ by {choice.effect:.3f} in the mean",
        )
    )
    return fp16.to_half(deployable, choice.single)


def _in_int8(
    model: onnx.ModelProto, trained: network.Trained, request: Request, images: tiles.Tiles, say: Say
) -> onnx.ModelProto:
    folder = request.calibration or tiles.validation_folder(trained.config, trained.path)
    if folder is None:
        raise UsageError(
            "--int8 is calibrated on real pictures, and the validation images of the training are not here; "
            "name a folder of pictures with --calib DIR"
        )
    shown = tiles.gather(
        folder, trained.config, count=CALIBRATION_TILES, edge=PARITY_EDGE, minimum=FEWEST_CALIBRATION_TILES
    )
    step = max(1, len(images) // HALF_TILES)
    found = int8.quantise(model, shown.images, images.images[::step], run_graph)
    kept = f"{', '.join(found.kept)} in floating point" if found.kept else "every part in INT8"
    say(line("int8", f"{kept}; calibrated on {shown.source}"))
    say(
        line(
            "",
            f"bytes differ by {found.before:.2f} in the mean with every part in INT8, now {found.after:.2f}",
        )
    )
    for part, effect in sorted(found.alone.items(), key=lambda item: -item[1]):
        say(line("", f"{part:14}{effect:8.2f} alone in INT8"))
    return found.model


def run_graph(
    model: onnx.ModelProto, images: NDArray[np.uint8], options: Options | None = None
) -> NDArray[np.uint8]:
    """Run a graph that has no specification yet on the runtime's default engine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.onnx"
        channels, planes = images.shape[-1], model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        spec = ModelSpec(
            name="trial",
            architecture="trial",
            channels=3 if channels == 3 else 1,
            heads=tuple(ENCODINGS.values())[:planes],
            multiple=1,
            halo=0,
            receptive_field=0,
        )
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        onnx.helper.set_model_props(copy, {METADATA_KEY: spec.to_json()})
        path.write_bytes(copy.SerializeToString())
        with open_backend(path, "cpu", engine="openvino", options=options) as backend:
            return parity.engine_planes(backend, images)


def _draft(
    trained: network.Trained,
    heads: tuple[Head, ...],
    split: SplitSettings | None,
    request: Request,
    parity_source: str,
) -> ModelSpec:
    """Return the specification as far as it is known: the halo is still the theoretical one."""
    multiple = trained.network.multiple
    reach = halo.receptive_field(trained.config)
    bound = -(-reach // multiple) * multiple
    return ModelSpec(
        name=request.name or trained.name,
        architecture=trained.config.model,
        channels=trained.config.in_channels,
        heads=heads,
        multiple=multiple,
        halo=bound,
        receptive_field=reach,
        tile=preferred_tile(bound, multiple),
        pixel_size=request.pixel_size,
        diameter=request.diameter or cells.inherited_diameter(trained),
        precision=request.precision,
        split=split or SplitSettings.suited([head.name for head in heads]),
        provenance=_provenance(trained, request, parity_source),
    )


def _with_sizes(spec: ModelSpec, measured: halo.Halo, request: Request) -> ModelSpec:
    pixels = getattr(measured, request.halo) if isinstance(request.halo, str) else request.halo
    _check_core(request.tile, pixels)
    tile = request.tile if isinstance(request.tile, int) else preferred_tile(pixels, spec.multiple)
    return spec.model_copy(update={"halo": pixels, "tile": tile, "batch": request.batch})


def _with_fastest(path: Path, spec: ModelSpec, say: Say) -> ModelSpec:
    with open_backend(path) as backend:
        rates = sizes.measure(backend, spec.halo)
        say(line("tile", f"Mpx/s on {backend.description}"))
    say(line("", f"{'tile':>6}{'batch':>7}{'computed':>10}{'useful':>8}"))
    for rate in rates:
        say(line("", f"{rate.tile:>6}{rate.batch:>7}{rate.computed:>10.2f}{rate.useful:>8.2f}"))
    chosen = sizes.choose(rates)
    return spec.model_copy(update={"tile": chosen.tile, "batch": chosen.batch})


def default_output(checkpoint: Path, name: str, precision: Precision) -> Path:
    """Return where a model goes that no place was named for: next to its checkpoint."""
    middle = "" if precision == "fp32" else f".{precision}"
    return checkpoint.parent / f"{name}{middle}.onnx"


def preferred_tile(halo_pixels: int, multiple: int) -> int:
    """Return the smallest multiple of 256 (and of `multiple`) that keeps :data:`USEFUL` of its pixels."""
    step = int(np.lcm(256, multiple))
    tile = step
    while (tile - 2 * halo_pixels) ** 2 < USEFUL * tile**2:
        tile += step
    return tile


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
        line(
            "halo",
            f"{found.exact} px: bytes equal the whole image's ({found.pixels / 1e6:.1f} Mpx seen); "
            f"at {found.near} px none is off by more than 1; in theory {spec.receptive_field} px",
        )
    )
    if trained.config.norm == "group":
        say(line("", "this network normalises over the whole input: tiles of it cannot agree exactly"))
    return found


def _record(figures: dict[str, parity.Figures], measured: halo.Halo, passed: bool) -> dict[str, float]:
    record: dict[str, float] = {"passed": float(passed)}
    for row, one in figures.items():
        record |= {f"{row}.{name}": float(value) for name, value in asdict(one).items()}
    return record | {"halo_exact": float(measured.exact), "halo_near": float(measured.near)}


def _provenance(trained: network.Trained, request: Request, source: str) -> dict[str, str]:
    checkpoint = Path(trained.path)
    mean = [f"{each['share']:.3g} {each['checkpoint']} {each['sha256'][:12]}" for each in trained.mean_of]
    return {
        "cellseg": importlib.metadata.version("cellseg"),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "checkpoint": f"{checkpoint.resolve().parent.name}/{checkpoint.name}",
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "step": str(trained.step),
        **({"mean_of": "; ".join(mean)} if mean else {}),
        **({"kept": f"{trained.kept:g}"} if trained.kept else {}),
        "command": request.command,
        "parity_tiles": source,
    }
