"""``cellseg-export``: parse and call."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from cellseg.runtime.cli import common
from cellseg.runtime.errors import UsageError

if TYPE_CHECKING:
    from cellseg.runtime.model.spec import ModelSpec

    from .to_tensorrt import Settings

#: Smallest, preferred and largest.
Sizes: TypeAlias = tuple[int, int, int]
FILE = click.Path(path_type=Path)
#: The modules that the extra ``[export]`` brings.
_EXTRA = ("torch", "onnx", "onnxscript", "yaml")


@click.command(
    "cellseg-export inspect",
    cls=common.Command,
    examples=[
        ("cellseg-export inspect mine.onnx", "What an exported model promises."),
        ("cellseg-export inspect mine.plan", "What a plan was built for."),
        ("cellseg-export inspect mine.plan.json", "The same, where only its sidecar is at hand."),
    ],
)
@click.argument("file", type=FILE)
def inspect_command(file: Path) -> None:
    """Print the specification of FILE, an exported model or a plan.

    For a plan, or its sidecar (m.plan.json), what it was built for is printed with it.
    """
    if file.suffix == ".plan" or file.name.endswith(".plan.json"):
        from cellseg.runtime.backends.trt.plans import load_record, read_sidecar

        record = load_record(file) if file.suffix == ".plan" else read_sidecar(file)
        click.echo(record.model_dump_json(indent=1))
        return
    from cellseg.runtime.model.onnx_metadata import load_spec

    click.echo(load_spec(file).to_json())


_tensorrt, _packages, _advanced = map(common.grouped, ("TensorRT", "Packages", "Advanced"))


@click.command(
    "cellseg-export",
    cls=common.Command,
    subcommands=[inspect_command],
    examples=[
        ("cellseg-export --heads mask,boundary,density", "The newest best checkpoint, with all its planes."),
        ("cellseg-export best.pt -o mine.onnx --fp16", "A checkpoint by name, in half precision."),
        ("cellseg-export inspect mine.onnx", "What a model promises."),
    ],
)
@click.argument("checkpoint", type=FILE, required=False)
@click.option("-o", "--output", type=FILE, help="ONNX file to write; next to the checkpoint by default.")
@click.option(
    "--heads",
    metavar="NAMES",
    help="Heads to keep, for example mask,boundary; mask alone by default.",
)
@click.option("--fp32", "precision", flag_value="fp32", default="fp32", help="Single precision (default).")
@click.option("--fp16", "precision", flag_value="fp16", help="Half precision where measurement allows it.")
@click.option("--int8", "precision", flag_value="int8", help="Eight bits, calibrated on real pictures.")
@_advanced("--calib", "calibration", type=FILE, metavar="DIR", help="Pictures that calibrate --int8.")
@click.option("--name", help="Name that the model goes by; the training run's by default.")
@_advanced("--parity", type=FILE, metavar="DIR", help="Pictures to compare with PyTorch on.")
@_advanced(
    "--halo",
    default="exact",
    help="exact, near (bytes off by 1, a cell in thousands) or pixels.",
    show_default=True,
)
@_advanced("--tile", metavar="PIXELS|auto", help="Preferred tile edge; auto measures it and the batch size.")
@_advanced("--batch", type=click.IntRange(1), default=1, help="Preferred batch size.", show_default=True)
@_advanced("--pixel-size", type=float, help="Micrometres a pixel of the training data.")
@_advanced(
    "--diameter",
    metavar="DIR|MEDIAN,LOW,HIGH",
    help="How large the cells are that it was trained on, in pixels, and from where to where it serves "
    "others as they are; measured where a folder of label images is named; by default those of the model "
    "that it started from.",
)
@_advanced(
    "--split",
    type=FILE,
    metavar="JSON",
    help="Settings of the splitter to ship with the model; by default those of the one that it started from.",
)
@_tensorrt("--plan", type=FILE, metavar="PATH", help="TensorRT plan to build; next to the ONNX by default.")
@_tensorrt("--no-plan", is_flag=True, help="Build no TensorRT plan.")
@_tensorrt("--flavour", type=click.Choice(["tensorrt", "tensorrt_rtx"]), help="Engine that builds the plan.")
@_tensorrt("--batch-sizes", metavar="MIN,OPT,MAX", help="Batch sizes that the plan serves.")
@_tensorrt("--tile-sizes", metavar="MIN,OPT,MAX", help="Tile edges that the plan serves.")
@_tensorrt("--workspace", type=click.FloatRange(0, min_open=True), metavar="GIB", help="Builder's memory.")
@_tensorrt("--timing-cache", type=FILE, help="File of the builder's timings (TensorRT).")
@_tensorrt("--capability", "capabilities", multiple=True, metavar="X.Y", help="Build for it (TensorRT-RTX).")
@_packages("--triton", type=FILE, metavar="DIR", help="Write a model repository for NVIDIA Triton.")
@_packages("--bioimageio", is_flag=True, help="Write a bioimage.io package next to the ONNX file.")
@_packages("--author", "authors", multiple=True, metavar="NAME", help="Author in that package.")
@_packages("--license", "license_id", metavar="SPDX", default="Apache-2.0", help="Licence in that package.")
@_advanced("--opset", type=int, default=20, help="ONNX opset.", show_default=True)
@_advanced("--force", is_flag=True, help="Write even where the comparison with PyTorch fails.")
@click.option("--overwrite", is_flag=True, help="Replace a model or plan that stands there.")
@common.version_option()
def main(
    checkpoint: Path | None,
    heads: str | None,
    halo: str,
    tile: str | None,
    diameter: str | None,
    split: Path | None,
    plan: Path | None,
    no_plan: bool,
    flavour: str | None,
    batch_sizes: str | None,
    tile_sizes: str | None,
    workspace: float | None,
    timing_cache: Path | None,
    capabilities: tuple[str, ...],
    triton: Path | None,
    bioimageio: bool,
    authors: tuple[str, ...],
    license_id: str,
    **options: Any,
) -> None:
    """Turn CHECKPOINT into one ONNX file that every engine runs, proven equal to the trained network.

    Without CHECKPOINT the newest best.pt under work_dirs is taken.
    """
    kept = None if heads is None else tuple(name.strip() for name in heads.split(",") if name.strip())
    wanted_halo = _size("--halo", halo, ("exact", "near"))
    wanted_tile = None if tile is None else _size("--tile", tile, ("auto",))
    if plan is not None and (no_plan or plan.suffix != ".plan"):
        raise UsageError(f"--plan {plan}: must end in .plan, and excludes --no-plan")
    batches, tiles = _sizes("--batch-sizes", batch_sizes), _sizes("--tile-sizes", tile_sizes)
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"needs {', '.join(missing)}, not installed here: pip install 'cellseg[export]'")
    from cellseg.runtime.common import files

    from .assemble import Request, export

    if plan is not None:
        files.refuse_existing(plan, "plan", overwrite=options["overwrite"])
    request = Request(
        checkpoint=checkpoint,
        heads=kept,
        halo=wanted_halo,  # type: ignore[arg-type]  # a word is one of those allowed
        tile=wanted_tile,  # type: ignore[arg-type]
        diameter=_diameter(diameter),
        split=None if split is None else _split_settings(split, kept or ("mask",)),
        command=shlex.join(["cellseg-export", *sys.argv[1:]]),
        **options,
    )
    exported = export(request, click.echo)
    built: Path | None = None
    if not no_plan:
        from .plan import add_plan

        settings = _plan_settings(
            exported.spec, batches, tiles, workspace, flavour, timing_cache, capabilities
        )
        built = add_plan(exported, plan, settings, click.echo, force=request.force, progress=_progress())
    if triton is not None or bioimageio:
        from .bundle import add_bundles

        add_bundles(exported, built, click.echo, triton, bioimageio, authors, license_id)
    common.say_next("cellseg-tune", *exported.next_step)


def _plan_settings(
    spec: ModelSpec,
    batches: Sizes | None,
    tiles: Sizes | None,
    gib: float | None,
    flavour: str | None,
    timing_cache: Path | None,
    capabilities: tuple[str, ...],
) -> Settings:
    """Return how a plan is built; sizes that were not given are the usual ones of the model."""
    from cellseg.runtime.backends.trt.plans import Profile

    from .to_tensorrt import Settings, default_profile

    usual = default_profile(spec)
    profile = Profile(batch=batches or usual.batch, tile=tiles or usual.tile)
    memory = None if gib is None else int(gib * 2**30)
    return Settings(flavour, profile, memory, timing_cache, capabilities)


def _progress() -> Any:
    """Return what draws the builder's progress where someone is looking."""
    if not sys.stderr.isatty():
        return None
    return lambda done, phase: click.echo(f"\rbuilding the plan: {done:4.0%}", nl=done >= 1, err=True)


def _sizes(option: str, text: str | None) -> Sizes | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise UsageError(f"{option} {text}: wanted three numbers: smallest, preferred, largest")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _size(option: str, text: str, words: tuple[str, ...]) -> int | str:
    if text in words:
        return text
    if not text.isdecimal() or (option == "--tile" and int(text) == 0):
        raise UsageError(f"{option} {text}: wanted {', '.join(words)} or a number of pixels")
    return int(text)


def _diameter(text: str | None) -> Any:
    from pydantic import ValidationError

    from cellseg.runtime.model.spec import CellDiameter, complaint

    if text is None:
        return None
    parts = text.split(",")
    if len(parts) == 1:
        from cellseg.runtime.evaluation.folders import LabelFolder
        from cellseg.runtime.sizing.measured import measure_cells

        folder = Path(text)
        labels = LabelFolder.open(folder / "label" if (folder / "label").is_dir() else folder)
        return measure_cells(labels.read(stem) for stem in labels.files)
    try:
        median, low, high = (float(part) for part in parts)
    except ValueError:
        raise UsageError(f"--diameter {text}: wanted three numbers: median, low, high; or a folder") from None
    try:
        return CellDiameter(median=median, low=low, high=high)
    except ValidationError as error:
        raise UsageError(f"--diameter {text}: {complaint(error)}") from None


def _split_settings(path: Path, heads: tuple[str, ...]) -> Any:
    from pydantic import ValidationError

    from cellseg.runtime.model.spec import HEAD_NAMES, SplitSettings

    try:
        settings = SplitSettings.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--split {path}: cannot be read ({error})") from None
    except ValidationError as error:
        first: Any = error.errors()[0]
        raise UsageError(f"--split {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if not settings.weighed <= set(heads):
        wanted = ",".join(name for name in HEAD_NAMES if name in settings.weighed)
        raise UsageError(f"--split {path}: its rules weigh more planes than are kept; add --heads {wanted}")
    return settings
