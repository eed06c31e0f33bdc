"""``cellseg-train``: parse, check, train; or average, or import annotations."""

from __future__ import annotations

import logging
import math
import os
import sys
from pathlib import Path
from typing import TextIO

import click

from cellseg.runtime.cli import common
from cellseg.runtime.errors import BackendError, CellsegError, UsageError

#: Configurations in the package, usable by their bare names.
SHIPPED = Path(__file__).parent / "configs"


@click.command(
    "cellseg-train mean",
    cls=common.Command,
    examples=[
        ("cellseg-train mean a.pt b.pt -o mean.pt", "Average two trainings that began alike."),
        ("cellseg-train mean a.pt b.pt --shares 2,1 -o mean.pt", "The first counts twice."),
        ("cellseg-train mean work_dirs/run/*.pt -o mean.pt", "All checkpoints of one training."),
    ],
)
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Checkpoint to write.")
@click.option("--shares", metavar="A,B,…", help="How much each counts; all the same by default.")
def mean_command(checkpoints: tuple[Path, ...], output: Path, shares: str | None) -> None:
    """Average the weights of CHECKPOINTS into one.

    They are of one network, from trainings that began with the same weights, or from one training. Such a
    mean is often better than each of them, and costs nothing at inference. Find out with cellseg-export
    and cellseg-eval.
    """
    counts = _shares(shares, len(checkpoints))
    if output.is_dir() or output.suffix != ".pt":
        raise UsageError(f"-o {output}: wanted a file that ends in .pt")
    from . import checkpoint
    from .weights.average import average

    state = average(checkpoints, counts)
    checkpoint.save(output, state, "choose another place with -o")
    click.echo(output)
    common.say_next("cellseg-export", output)


@click.command(
    "cellseg-train import",
    cls=common.Command,
    examples=[
        ("cellseg-train import slide.svs cells.geojson -o datasets/NAME", "Regions drawn in QuPath."),
        ("cellseg-train import slide.svs cells.geojson -o datasets/NAME --regions Region", "By their class."),
        ("cellseg-train import a.tif a.geojson -o datasets/NAME --channels DAPI", "One channel of several."),
    ],
)
@click.argument("slide", type=click.Path(path_type=Path))
@click.argument("annotations", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Data set: datasets/NAME."
)
@click.option(
    "--regions", metavar="NAME", help="Name or class of the annotations in which every cell is marked."
)
@click.option("--whole-cells", is_flag=True, help="Of QuPath cells take the whole, not the nucleus.")
@click.option(
    "--val", type=float, default=0.2, show_default=True, help="Share of the regions that goes to validation."
)
@click.option("--channels", metavar="LIST", help="Channels to take, by name or number: DAPI or 0,2.")
@click.option("--series", type=click.IntRange(0), help="Which image of a file with several.")
@click.option("--overwrite", is_flag=True, help="Replace pictures of the same regions.")
def import_command(
    slide: Path,
    annotations: Path,
    output: Path,
    regions: str | None,
    whole_cells: bool,
    val: float,
    channels: str | None,
    series: int | None,
    overwrite: bool,
) -> None:
    """Cut the annotated regions of SLIDE into training pictures.

    ANNOTATIONS is GeoJSON from QuPath or cellseg-view: cells, and rectangles in which every cell is marked.
    Several slides may go into one data set.
    """
    from .data.annotations import import_annotations

    wanted = None if channels is None else [part.strip() for part in channels.split(",")]
    done = import_annotations(
        slide,
        annotations,
        output,
        regions=regions,
        nuclei=not whole_cells,
        val=val,
        overwrite=overwrite,
        reading={"channels": wanted, "series": series},
    )
    click.echo(
        f"{output}: {len(done.train)} pictures to train on, {len(done.val)} to validate, {done.cells:,} cells"
    )
    for note in done.notes:
        click.echo(f"  note     {note}")
    common.say_next("cellseg-train", "finetune", "--set", f"dataset_path={output}")


@click.command(
    "cellseg-train",
    cls=common.Command,
    subcommands=[mean_command, import_command],
    examples=[
        ("cellseg-train finetune --set dataset_path=datasets/NAME", "Teach the default model your pictures."),
        ("cellseg-train my.yml --preview 8", "See what it would be trained on, and stop."),
        ("cellseg-train my.yml --resume", "Go on after an interruption."),
    ],
)
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of CONFIG.")
@click.option("--resume", is_flag=True, help="Go on where this run stopped.")
@click.option("--overwrite", is_flag=True, help="Start over in a folder that holds a run.")
@click.option("--devices", type=click.IntRange(1), help="GPUs, or CPU processes, to train on.")
@click.option(
    "--preview",
    type=click.IntRange(1),
    metavar="N",
    help="Write a picture of N training samples with their targets, and stop.",
)
@common.version_option()
def main(
    config: Path,
    overrides: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    devices: int | None,
    preview: int | None,
) -> None:
    """Train the network that CONFIG describes.

    CONFIG is a YAML file, or the name of a shipped configuration: finetune, nuclei, phase, fast, paper.
    """
    from .config import load

    path = config if config.exists() or config.suffix else SHIPPED / f"{config}.yml"
    if not path.exists() and path.parent == SHIPPED:
        names = ", ".join(sorted(each.stem for each in SHIPPED.glob("*.yml")))
        raise click.UsageError(f"{config}: no such file, and no shipped configuration ({names})")
    extra = (("resume=true",) if resume else ()) + ((f"devices={devices}",) if devices else ())
    checked = load(path, overrides + extra)
    folder = Path(checked.work_dir or Path("work_dirs") / path.stem)
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    _log_to_stderr()
    if preview:
        from .data.crops import CropSource
        from .data.samples import read_dataset
        from .running.pictures import preview as draw
        from .running.pictures import write

        picture = folder / "preview.png"
        write(picture, draw(CropSource(read_dataset(checked)[0], checked), preview))
        click.echo(picture)
        return
    import torch

    from .running.loop import train

    try:
        best = train(checked, folder, overwrite=overwrite)
    except torch.OutOfMemoryError:
        raise BackendError(
            f"the GPU's memory is full; lower batch_size (now {checked.batch_size}) or crop ({checked.crop})"
        ) from None
    except CellsegError as error:
        if rank:  # every process fails alike; the first one says why
            raise SystemExit(error.exit_code) from None
        raise
    if rank == 0:
        click.echo(best)
        common.say_next("cellseg-export", best, "--heads", ",".join(checked.outputs))


def _shares(text: str | None, count: int) -> list[float]:
    try:
        shares = [1.0] * count if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if len(shares) != count or not all(0 < share < math.inf for share in shares):
        raise UsageError(f"--shares {text}: wanted {count} positive numbers, one for each checkpoint")
    return shares


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at that moment: a progress bar replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _log_to_stderr() -> None:
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.getLogger("cellseg").handlers = [handler]


if __name__ == "__main__":  # for torchrun, and for the processes that Fabric starts
    main()
