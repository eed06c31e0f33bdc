"""``cellseg-infer``: images of any size in, labels, a table and outlines out."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from ..common.names import readable
from ..errors import CellsegError, UsageError
from ..options import SegmentOptions
from . import common
from .options import chosen, segment_options

if TYPE_CHECKING:
    from ..backends import Backend
    from ..results.result import Result

PROGRAM = "cellseg-infer"


@click.command(
    PROGRAM,
    cls=common.Command,
    examples=[
        (f"{PROGRAM} slide.svs", "Segment a slide; the results are in cellseg_out/slide/."),
        (
            f"{PROGRAM} scans -o results --channels DAPI --csv",
            "A folder of images, by one channel.",
        ),
        (f"{PROGRAM} slides.csv -o results --resume", "A table of images; again after a power failure."),
    ],
)
@click.argument("images", metavar="IMAGE...", nargs=-1)  # text, because some are URLs
@common.model_options
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("cellseg_out"),
    show_default=True,
    help="Results go into DIR/<image name>/.",
    cls=common.Option,
    group="Results",
)
@segment_options
@click.option(
    "--fallback",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Where a TensorRT plan does not fit: build it again or run its ONNX file, or stop.",
    cls=common.Option,
    group="Advanced",
)
@click.option(
    "--trust-plan",
    is_flag=True,
    help="Run a plan without a matching sidecar.",
    cls=common.Option,
    group="Advanced",
)
@click.option("--devices", is_flag=True, help="List what can run models on this machine, and leave.")
@click.option("--measure", is_flag=True, help="With --devices: how fast each runs the model, in seconds.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Show where in the program an image failed.")
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
    verbose: bool,
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
        from .devices import print_devices

        print_devices(common.chosen_model(engine, model), measure)
        return
    if not images:
        raise UsageError(f"no image was given; see {PROGRAM} --help")
    chosen_model = common.chosen_model(engine, model)
    from ..common.heap import steady_heap
    from .inputs import expand, result_names

    steady_heap()

    inputs = expand(images)
    names = result_names(inputs)
    options = chosen(choices)

    from ..backends import Options, open_backend

    running = Options(
        precision=options.precision,
        fallback=fallback,
        trust_plan=trust_plan,
        rebuilding=None if quiet else _rebuilding,
    )
    failed: list[Exception] = []
    with open_backend(chosen_model, options.device, engine=options.engine, options=running) as opened:
        for item, name in zip(inputs, names, strict=True):
            try:
                line = run_one(item.image, output / name, opened, options.but(**item.options), quiet)
            # Whatever is raised inside of one image is that image's error, and the others go on.
            except Exception as error:
                if len(inputs) == 1 and isinstance(error, CellsegError) and not verbose:
                    raise
                failed.append(error)
                report_error(item.image, error, verbose)
            else:
                if not quiet:
                    click.echo(line)
    if failed:
        raise_for(failed, len(inputs))


def report_error(image: str, error: Exception, verbose: bool) -> None:
    """Print one line about an image that failed, after the traceback where that is wanted."""
    if verbose:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    # Our own messages name the file that is at fault.
    where = "" if isinstance(error, CellsegError) else f"{image}: failed with "
    advice = "" if isinstance(error, CellsegError) or verbose else " (--verbose shows where)"
    click.echo(f"{PROGRAM}: error: {where}{common.one_line(error)}{advice}", err=True)


def raise_for(failed: Sequence[Exception], count: int) -> NoReturn:
    """End the command after all images, some of which failed."""
    # A command that could not be right for any of them is wrong itself.
    wrong = all(isinstance(error, UsageError) for error in failed)
    if count == 1:
        raise SystemExit(UsageError.exit_code if wrong else 1)
    done = "none is done" if len(failed) == count else "the others are done"
    raise (UsageError if wrong else CellsegError)(f"{len(failed)} of {count} images failed; {done}")


def _rebuilding(done: float, phase: str) -> None:
    click.echo(f"\rbuilding the plan again: {done:4.0%}", nl=done >= 1, err=True)


def run_one(image: str, folder: Path, backend: Backend, options: SegmentOptions, quiet: bool) -> str:
    """Segment one image, with a progress bar where someone is looking; return what to print of it."""
    from ..pipeline import segment
    from ..results.finished import finished
    from .progress import ProgressBar

    if options.resume and not options.overwrite and finished(image, folder, backend, options):
        return f"{image}: done already, in {folder}"
    console = common.console(stderr=True)
    if quiet or not console.is_terminal:
        return summary(segment(image, backend, output=folder, options=options))
    with ProgressBar(readable(Path(image).name), console) as bar:
        return summary(segment(image, backend, output=folder, progress=bar.update, options=options))


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
