"""``cellseg-infer``: images of any size in, labels, a table and outlines out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from ..common.addresses import Address, place_of
from ..common.names import readable
from ..errors import CellsegError, UsageError
from . import common
from .options import chosen, segment_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..backends import Options
    from ..batch.jobs import Job, Outcome
    from ..cluster.span import Span
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
@common.grouped("Results")(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(),  # text, because some are URLs
    default="cellseg_out",
    show_default=True,
    help="Results go into DIR/<image name>/; DIR may be s3://bucket/results and the like.",
)
@segment_options
@common.grouped("Advanced")(
    "--fallback",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Where a TensorRT plan does not fit: build it again or run its ONNX file, or stop.",
)
@common.grouped("Advanced")("--trust-plan", is_flag=True, help="Run a plan without a matching sidecar.")
@click.option("--devices", is_flag=True, help="List what can run models on this machine, and leave.")
@click.option("--measure", is_flag=True, help="With --devices: how fast each runs the model, in seconds.")
@click.option(
    "--cluster",
    metavar="WHERE",
    help="Share images out: local, local:N, a Dask scheduler's address, or a YAML file for a batch system.",
)
@common.grouped("Advanced")(
    "--span",
    metavar="MPX",
    default="auto",
    show_default=True,
    help="With --cluster: megapixels of the parts of one image that workers share, or none.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Say more: stages, engine, and where an image failed.")
@common.version_option()
def main(
    images: tuple[str, ...],
    engine: Path | None,
    model: str | None,
    output: str,
    fallback: Literal["auto", "none"],
    trust_plan: bool,
    devices: bool,
    measure: bool,
    cluster: str | None,
    span: str,
    quiet: bool,
    verbose: bool,
    **choices: Any,
) -> None:
    """Segment the cells of images and whole slides of any size.

    An IMAGE is a file (TIFF, SVS, PNG, JPEG, OME-Zarr and more), a folder or pattern of them, the same at
    an address such as s3://bucket/slides, or a CSV table with a column 'image' and any of mpp, diameter,
    channels, levels, series, page, z, t, roi, tissue, stains, expand, positive, min_score and name. Each gets
    a folder with labels.ome.zarr, cells.parquet, cells.geojson.gz for QuPath, report.html, overview.png,
    density.png and run.json. An image that fails does not stop the others.
    """
    if devices or measure:
        if not devices:
            raise UsageError("--measure goes with --devices")
        from .devices import print_devices

        print_devices(common.chosen_model(engine, model), measure)
        return
    # The few products of small matrices here need no threads, which numpy would start and let spin.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with common.starting():
        from ..backends import Options
        from ..batch.inputs import expand, result_names
        from ..batch.jobs import Job
        from ..cluster.span import parse_span
    shared = parse_span(span)
    if cluster is None and shared != "auto":
        raise UsageError(f"--span {span} goes with --cluster: one process needs no parts")
    if not images:
        raise UsageError(f"no image was given; see {PROGRAM} --help")
    chosen_model = common.chosen_model(engine, model)
    inputs = expand(images)
    names = result_names(inputs)
    options = chosen(choices)
    place = place_of(output)
    jobs = [
        Job(item.image, place / name, options.but(**item.options))
        for item, name in zip(inputs, names, strict=True)
    ]
    running = Options(
        precision=options.precision,
        fallback=fallback,
        trust_plan=trust_plan,
        rebuilding=None if quiet else _rebuilding,
    )
    outcomes = (
        _here(jobs, chosen_model, running, quiet)
        if cluster is None
        else _over(cluster, jobs, chosen_model, running, quiet, shared)
    )
    finish(told(outcomes, quiet, verbose, alone=len(jobs) == 1), place, quiet)


def _here(jobs: list[Job], model: str | Path | None, running: Options, quiet: bool) -> Iterator[Outcome]:
    """Segment one image after the other, with a progress bar where someone is looking."""
    from ..backends import open_backend
    from ..batch.jobs import run_job
    from ..common.heap import steady_heap

    steady_heap()
    first = jobs[0].options
    with contextlib.ExitStack() as stack:
        with common.starting():
            from .progress import ProgressBar

            console = common.console(stderr=True)
            backend = open_backend(model, first.device, engine=first.engine, options=running)
        if not main.ends_process:
            stack.enter_context(backend)
        for job in jobs:
            if quiet or not console.is_terminal:
                yield run_job(job, backend)
                continue
            with ProgressBar(readable(Path(job.image).name), console) as bar:
                outcome = run_job(job, backend, bar.update)
            yield outcome


def _over(
    cluster: str, jobs: list[Job], model: str | Path | None, running: Options, quiet: bool, span: Span
) -> Iterator[Outcome]:
    """Segment images on a cluster, with a line for each worker where someone is looking."""
    from ..cluster.connect import connect
    from .crowd import Crowd

    console = common.console(stderr=True)
    shown = not quiet and console.is_terminal
    names = [readable(Path(job.image).name) for job in jobs]
    with connect(cluster) as connected, Crowd(names, console if shown else None) as crowd:
        from ..cluster.run import run_jobs

        if not quiet:
            page = f"; its page: {connected.dashboard}" if connected.dashboard else ""
            what = "1 image" if len(jobs) == 1 else f"{len(jobs)} images"
            click.echo(f"{what} on {connected.description}{page}", err=True)
        file = None if model is None else str(model)
        tell = crowd.tell if shown else None
        for outcome in run_jobs(jobs, connected, file, running=running, tell=tell, span=span):
            crowd.ended(outcome)
            yield outcome


def told(outcomes: Iterable[Outcome], quiet: bool, verbose: bool, *, alone: bool) -> list[Outcome]:
    """Say of each image what became of it, as soon as it is known; return all."""
    done: list[Outcome] = []
    notes: set[str] = set()
    for outcome in outcomes:
        done.append(outcome)
        if outcome.error is not None:
            if alone and isinstance(outcome.error, CellsegError) and not verbose:
                raise outcome.error
            report_error(outcome, verbose)
        elif not quiet:
            assert outcome.result is not None
            earlier = f"{outcome.job.image}: done already, in {outcome.job.folder}"
            click.echo(earlier if outcome.earlier else summary(outcome.result, verbose, notes))
    return done


def finish(outcomes: list[Outcome], output: Path | Address, quiet: bool) -> None:
    """Write the files about all images, and end the command where some failed."""
    if len(outcomes) > 1:
        from ..batch.summary import PAGE, TABLE, write_summary

        written = write_summary(outcomes, output)
        for path in (output / PAGE, output / TABLE):
            if path not in written:
                click.echo(f"{PROGRAM}: {path} was not written by cellseg and is kept as it is", err=True)
        if written and not quiet:
            click.echo(f"all of them: {', '.join(map(str, reversed(written)))}")
    if failed := [outcome.error for outcome in outcomes if outcome.error is not None]:
        raise_for(failed, len(outcomes))
    shown = output if len(outcomes) > 1 else outcomes[0].job.folder
    if not quiet and isinstance(shown, Path):
        common.say_next("cellseg-view", shown)


def report_error(outcome: Outcome, verbose: bool) -> None:
    """Print one line about an image that failed, after the traceback where that is wanted."""
    error = outcome.error
    assert error is not None
    if verbose:
        click.echo(outcome.trace, err=True, nl=False)
    # Our own messages name the file that is at fault.
    where = "" if isinstance(error, CellsegError) else f"{outcome.job.image}: failed with "
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


def summary(result: Result, verbose: bool, said: set[str]) -> str:
    """Return what is printed of a finished image: one line, and what the user should know.

    Parameters
    ----------
    result
        The image's.
    verbose
        Whether to add files, seconds of each stage and the engine.
    said
        Notes that were printed for other images: they are counted, not said again. Those of this one are
        added.
    """
    record, seconds = result.record, result.record.seconds
    new = [note for note in result.notes if note not in said]
    again = len(result.notes) - len(new)
    said.update(new)
    as_above = f" ({again} note{'s' * (again > 1)} as above)" if again else ""
    lines = [
        f"{record.image.path}: {result.count:,} cells{_density(result)} in "
        f"{result.address or result.folder}, {seconds.total:.1f} s{as_above}"
    ]
    if verbose:
        files = "  ".join(sorted({file.path.partition("/")[0] for file in record.files} | {"run.json"}))
        stages = "  ".join(f"{name} {stage.busy:.1f}" for name, stage in record.stages.items())
        lines += [
            f"  files    {files}",
            f"  seconds  open {seconds.open:.1f}, run {seconds.run:.1f}, finish {seconds.finish:.1f}; "
            f"{result.height * result.width / 1e6:.1f} Mpx at {record.mpx_s:.2f} Mpx/s",
            f"  busy     {stages}  (side by side; {record.bottleneck} sets the pace)",
            f"  engine   {record.engine.description}, model {record.model.name}",
        ]
    lines += [f"  {'doubt' if note in record.doubts else 'note ':9}{note}" for note in new]
    return "\n".join(lines)


def _density(result: Result) -> str:
    """Return cells per mm² of what was looked at, where the scale is known."""
    scale, part = result.record.image.pixel_size_um, result.record.focus.looked_at_part
    area = result.height * result.width * part * ((scale or 0) / 1000) ** 2
    return f", {result.count / area:,.0f} per mm²," if area else ""
