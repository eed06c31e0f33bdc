"""``cellseg-infer``: images of any size in, labels, a table and outlines out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ..errors import CellsegError, UsageError
from ..options import SegmentOptions
from . import common
from .options import chosen, segment_options

if TYPE_CHECKING:
    from ..backends import Backend
    from ..results.result import Result

PROGRAM = "cellseg-infer"
#: Seconds for which ``--devices --measure`` looks at an engine.
MEASURED = 3.0


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
@segment_options
@click.option(
    "--fallback",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Where a TensorRT plan does not fit: build it anew or run its ONNX file, or stop.",
)
@click.option("--trust-plan", is_flag=True, help="Run a plan without a matching sidecar.")
@click.option("--devices", is_flag=True, help="List what can run models on this machine, and leave.")
@click.option("--measure", is_flag=True, help="With --devices: how fast each runs the model, in seconds.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@common.version_option()
def main(
    images: tuple[str, ...],
    engine: Path | None,
    model: str | None,
    output: Path,
    fallback: Literal["auto", "none"],
    trust_plan: bool,
    devices: bool,
    measure: bool,
    quiet: bool,
    **choices: Any,
) -> None:
    """Segment the cells of images and whole slides of any size.

    An IMAGE is a file (TIFF, SVS, PNG, JPEG, OME-Zarr and more), a folder or pattern of them, the URL of
    an OME-Zarr image, or a CSV table with a column 'image' and any of mpp, diameter, channels, levels,
    series, page, z, t, roi, tissue, min_score and name. Each gets a folder with labels.ome.zarr,
    cells.parquet, cells.geojson.gz for QuPath, report.html, overview.png, density.png and run.json. An
    image that fails does not stop the others.
    """
    if devices or measure:
        if not devices:
            raise UsageError("--measure goes with --devices")
        print_devices(engine or model, measure)
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
    options = chosen(choices)

    from ..backends import Options, open_backend
    from ..results.finished import finished

    running = Options(
        precision=options.precision,
        fallback=fallback,
        trust_plan=trust_plan,
        rebuilding=None if quiet else _rebuilding,
    )
    failed: list[CellsegError] = []
    with open_backend(engine or model, options.device, engine=options.engine, options=running) as opened:
        for item, name in zip(inputs, names, strict=True):
            try:
                folder, own = output / name, options.but(**item.options)
                if own.resume and not own.overwrite and finished(item.image, folder, opened, own):
                    if not quiet:
                        click.echo(f"{item.image}: done already, in {folder}")
                    continue
                result = run_one(item.image, folder, opened, own, quiet)
            except CellsegError as error:
                if len(inputs) == 1:
                    raise
                failed.append(error)
                click.echo(f"{PROGRAM}: error: {' '.join(str(error).split())}", err=True)
            else:
                if not quiet:
                    click.echo(summary(result))
    if failed:
        done = "none is done" if len(failed) == len(inputs) else "the others are done"
        # A command that could not be right for any of them is wrong itself.
        wrong = all(isinstance(error, UsageError) for error in failed)
        raise (UsageError if wrong else CellsegError)(f"{len(failed)} of {len(inputs)} images failed; {done}")


def _rebuilding(done: float, phase: str) -> None:
    click.echo(f"\rbuilding the plan anew: {done:4.0%}", nl=done >= 1, err=True)


def run_one(image: str, folder: Path, backend: Backend, options: SegmentOptions, quiet: bool) -> Result:
    """Segment one image, with a progress bar where someone is looking."""
    from ..pipeline import segment
    from .progress import ProgressBar

    console = common.console(stderr=True)
    if quiet or not console.is_terminal:
        return segment(image, backend, output=folder, options=options)
    with ProgressBar(Path(image).name, console) as bar:
        return segment(image, backend, output=folder, progress=bar.update, options=options)


def summary(result: Result) -> str:
    """Return what is printed of a finished image: cells, folder, where the time went, notes."""
    record, seconds = result.record, result.record.seconds
    megapixels = result.height * result.width / 1e6
    files = "  ".join(sorted(path.name for path in result.folder.iterdir())) if result.folder else ""
    stages = "  ".join(f"{name} {stage.busy:.1f}" for name, stage in record.stages.items())
    lines = [
        f"{record.image.path}: {result.count:,} cells in {result.folder}",
        f"  files    {files}",
        f"  seconds  {seconds.total:.1f} in all: open {seconds.open:.1f}, run {seconds.run:.1f}, "
        f"finish {seconds.finish:.1f}; {megapixels:.1f} Mpx at {record.mpx_s:.2f} Mpx/s",
        f"  busy     {stages}  (side by side; {record.bottleneck} sets the pace)",
        f"  engine   {record.engine.description}, model {record.model.name}",
        *(f"  note     {note}" for note in result.notes),
    ]
    return "\n".join(lines)


def print_devices(model: Path | str | None, measure: bool) -> None:
    """Print which engines can run which models on which devices here, what ``auto`` takes, and how fast."""
    from rich.table import Table
    from rich.text import Text

    from ..backends import list_devices

    lines = list_devices()
    table = Table(box=None, pad_edge=False)
    for title in ("device", "hardware", "backend", "models", "state"):
        table.add_column(title, overflow="fold")
    for line in lines:
        values = (line.device, line.hardware, line.engine, line.suffix, line.missing or "ready")
        table.add_row(*map(Text, values))  # an extra's name in brackets would be taken for markup
    console = common.console()
    console.print(table)
    for suffix in dict.fromkeys(line.suffix for line in lines):
        taken = next((line for line in lines if line.suffix == suffix and line.missing is None), None)
        if taken is not None:
            text = f"runs on {taken.engine} ({taken.device})"
        else:
            text = "cannot run; its ONNX file does in its place" if suffix == ".plan" else "cannot run"
        click.echo(f"auto: a {suffix} file {text}")
    if measure:
        from ..backends import Options, open_backend, resolve_model
        from ..backends.rates import rate

        path = resolve_model(model)
        for line in lines:
            if line.missing is None and line.suffix == path.suffix:
                options = Options(fallback="none")
                with open_backend(path, line.device, engine=line.engine, options=options) as backend:
                    backend.prepare(backend.spec.tile, backend.spec.batch)
                    found = rate(backend, seconds=MEASURED)
                    useful = found * (1 - 2 * backend.spec.halo / backend.tile) ** 2
                    click.echo(
                        f"{path.stem} on {backend.description}: {found:.1f} Mpx/s computed, "
                        f"{useful:.1f} useful (tiles of {backend.tile} × {backend.batch})"
                    )
