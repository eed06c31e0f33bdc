"""``cellseg-infer``: images of any size in, labels, a table and outlines out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ..errors import CellsegError, UsageError
from . import common

if TYPE_CHECKING:
    from ..backends import Backend
    from ..pipeline import SegmentOptions
    from ..results.target import Result
    from .inputs import Input

PROGRAM = "cellseg-infer"


@click.command(PROGRAM, cls=common.Command)
@click.argument("images", metavar="IMAGE...", nargs=-1)  # text, because some are URLs
@click.option("--engine", metavar="FILE", type=click.Path(path_type=Path), help="Model file to run.")
@click.option("--model", metavar="NAME", help="Packaged model to run; the default where nothing is named.")
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("cellseg_out"),
    show_default=True,
    help="Results go into DIR/<image name>/.",
)
@click.option("--overwrite", is_flag=True, help="Replace earlier results.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on where a stopped run was: skip finished images, keep finished bands of the others.",
)
@click.option("--csv", is_flag=True, help="Write the table as cells.csv too.")
@click.option(
    "--labels",
    type=click.Choice(["zarr", "tiff", "png"]),
    default="zarr",
    show_default=True,
    help="Format of the label image.",
)
@click.option("--probabilities", is_flag=True, help="Write planes.ome.zarr too: the network's planes.")
@click.option("--channels", metavar="LIST", help="Channels to read, by name or number: DAPI or 0,2.")
@click.option("--mpp", type=click.FloatRange(0, min_open=True), help="Micrometres a pixel.")
@click.option(
    "--no-rescale", is_flag=True, help="Take pixels as they are, whatever scale the model was trained at."
)
@click.option("--levels", nargs=2, type=float, metavar="BLACK WHITE", help="Raw values of black and white.")
@click.option(
    "--roi",
    metavar="FILE",
    help="Look only inside the areas of a GeoJSON file, as from QuPath; cells are cut at their edge.",
)
@click.option(
    "--tissue",
    type=click.Choice(["auto", "none"]),
    default="none",
    show_default=True,
    help="auto skips the empty glass of large stained slides; none looks everywhere.",
)
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    help="Drop cells of a lower score: less finds more cells, and more false ones.",
)
@click.option("--series", type=click.IntRange(0), help="Which image of a file with several.")
@click.option("--page", type=click.IntRange(0), help="Which page of a stack.")
@click.option("--z", type=click.IntRange(0), help="Which depth.")
@click.option("--t", type=click.IntRange(0), help="Which time.")
@click.option("--skip-bad-tiles", is_flag=True, help="Read damaged tiles as black and list them.")
@click.option("--device", metavar="NAME", default="auto", show_default=True, help="auto, cpu or cuda:N.")
@click.option("--backend", metavar="NAME", help="Insist on an engine, see --devices.")
@click.option(
    "--fallback",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Where a TensorRT plan does not fit: build it anew or run its ONNX file, or stop.",
)
@click.option("--trust-plan", is_flag=True, help="Run a plan without a matching sidecar.")
@click.option("--tile", type=click.IntRange(1), help="Edge of a tile in pixels, halo included.")
@click.option("--batch", type=click.IntRange(1), help="Tiles in a batch.")
@click.option(
    "--blend",
    type=click.Choice(["none", "hann", "gaussian"]),
    default="none",
    show_default=True,
    help="Average overlapping tiles, for models that are no good near a tile's border.",
)
@click.option("--workers", type=click.IntRange(1), help="Threads that split and measure cells.")
@click.option("--devices", is_flag=True, help="List what can run models on this machine, and leave.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@common.version_option()
def main(
    images: tuple[str, ...],
    engine: Path | None,
    model: str | None,
    output: Path,
    device: str,
    backend: str | None,
    fallback: Literal["auto", "none"],
    trust_plan: bool,
    devices: bool,
    quiet: bool,
    **choices: Any,
) -> None:
    """Segment the cells of images and whole slides of any size.

    An IMAGE is a file (TIFF, SVS, PNG, JPEG, OME-Zarr and more), a folder or pattern of them, the URL of
    an OME-Zarr image, or a CSV table with a column 'image' and any of mpp, channels, levels, series,
    page, z, t, roi, tissue, min_score and name. Each gets a folder with labels.ome.zarr, cells.parquet,
    cells.geojson.gz for QuPath, report.html, overview.png, density.png and run.json. An image that
    fails does not stop the others.
    """
    if devices:
        print_devices()
        return
    if not images:
        raise UsageError(f"no image was given; see {PROGRAM} --help")
    if engine is not None and model is not None:
        raise UsageError("--engine and --model exclude each other; give one of them")
    from ..common.heap import steady_heap
    from .inputs import expand, result_names

    steady_heap()

    inputs = expand(images)
    names = result_names(inputs)
    options = segment_options(choices)

    from ..backends import Options, open_backend

    running = Options(fallback=fallback, trust_plan=trust_plan, rebuilding=None if quiet else _rebuilding)
    failed = 0
    with open_backend(engine or model, device, engine=backend, options=running) as opened:
        for item, name in zip(inputs, names, strict=True):
            try:
                if options["resume"] and not options["overwrite"] and is_done(item, output / name, opened):
                    if not quiet:
                        click.echo(f"{item.image}: done already, in {output / name}")
                    continue
                result = run_one(item, output / name, opened, options, quiet)
            except CellsegError as error:
                if len(inputs) == 1:
                    raise
                failed += 1
                click.echo(f"{PROGRAM}: error: {' '.join(str(error).split())}", err=True)
            else:
                if not quiet:
                    click.echo(summary(result))
    if failed:
        raise CellsegError(f"{failed} of {len(inputs)} images failed; the others are done")


def segment_options(choices: dict[str, Any]) -> SegmentOptions:
    """Return the options of :func:`~cellseg.runtime.segment` that were given on the command line."""
    options = {name: value for name, value in choices.items() if value is not None}
    options["rescale"] = not options.pop("no_rescale")
    if "mpp" in options:
        options["pixel_size"] = options.pop("mpp")
    if "channels" in options:
        options["channels"] = [item.strip() for item in options["channels"].split(",")]
    return options  # type: ignore[return-value]  # the names are those of the command's parameters


def is_done(item: Input, folder: Path, backend: Backend) -> bool:
    """Whether ``folder`` holds the finished results of this image by this model.

    Raises
    ------
    UsageError
        It holds those of another image or model.
    """
    import json

    from ..writers.folder import RECORD

    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        was = str(record["image"]["path"]), str(record["model"]["weights_sha256"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{folder}: its {RECORD} cannot be read; replace it with --overwrite") from None
    now = str(item.image), str(backend.spec.weights_sha256)
    if Path(was[0]).resolve() == Path(now[0]).resolve() and was[1] == now[1]:
        return True
    raise UsageError(
        f"{folder}: holds results of {was[0]}, of another image or model than these; replace them with "
        "--overwrite or choose another folder with -o"
    )


def _rebuilding(done: float, phase: str) -> None:
    click.echo(f"\rbuilding the plan anew: {done:4.0%}", nl=done >= 1, err=True)


def run_one(item: Input, folder: Path, backend: Any, options: SegmentOptions, quiet: bool) -> Result:
    """Segment one image, with a progress bar where someone is looking."""
    from ..pipeline import segment
    from .progress import ProgressBar

    own: Any = {name: value for name, value in item.options.items() if name not in ("name", "mpp")}
    if "mpp" in item.options:
        own["pixel_size"] = item.options["mpp"]
    merged: SegmentOptions = {**options, **own}
    console = common.console(stderr=True)
    if quiet or not console.is_terminal:
        return segment(item.image, backend, output=folder, **merged)
    with ProgressBar(Path(item.image).name, console) as bar:
        return segment(item.image, backend, output=folder, progress=bar.update, **merged)


def summary(result: Result) -> str:
    """Return what is printed of a finished image: cells, folder, where the time went, notes."""
    seconds, progress = result.record["seconds"], result.progress
    megapixels = result.height * result.width / 1e6
    files = "  ".join(sorted(path.name for path in result.folder.iterdir())) if result.folder else ""
    stages = "  ".join(f"{name} {busy:.1f}" for name, (busy, _) in progress.stages.items())
    lines = [
        f"{result.record['image']['path']}: {result.count:,} cells in {result.folder}",
        f"  files    {files}",
        f"  seconds  {seconds['total']:.1f} in all: open {seconds['open']:.1f}, run {seconds['run']:.1f}, "
        f"finish {seconds['finish']:.1f}; {megapixels:.1f} Mpx at {progress.mpx_s:.2f} Mpx/s",
        f"  busy     {stages}  (side by side; {progress.bottleneck} sets the pace)",
        f"  engine   {result.record['engine']['description']}, model {result.record['model']['name']}",
        *(f"  note     {note}" for note in result.notes),
    ]
    return "\n".join(lines)


def print_devices() -> None:
    """Print which engines can run which models on which devices here."""
    from rich.table import Table

    from ..backends import list_devices

    table = Table(box=None, pad_edge=False)
    for title in ("device", "hardware", "backend", "models", "state"):
        table.add_column(title, overflow="fold")
    for line in list_devices():
        table.add_row(line.device, line.hardware, line.engine, line.suffix, line.missing or "ready")
    common.console().print(table)
