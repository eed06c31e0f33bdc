"""``cellseg-tune``: find the settings of the splitter that suit a model and a kind of picture."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ..errors import DataError, UsageError
from . import common, scoring

if TYPE_CHECKING:
    from ..backends import Backend
    from ..evaluation.folders import LabelFolder
    from ..model.spec import ModelSpec, SplitSettings
    from ..tuning.cases import Case

#: Figures that are shown before and after.
SHOWN = ("ap50", "ap75", "ap90", "pq", "dice", "count_mae", "merged", "split", "missed", "spurious")


@click.command(
    "cellseg-tune",
    cls=common.Command,
    examples=[
        ("cellseg-tune datasets/NAME/train -o mine.onnx", "Tune the default model on your pictures."),
        (
            "cellseg-tune DIR --engine new.onnx -o tuned.onnx --trials 1",
            "Learn the rules again only.",
        ),
        (
            "cellseg-tune DIR --groups index.csv --by stain",
            "What it is worth, stain by stain.",
        ),
    ],
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@common.model_options
@common.device_option
@scoring.channels_option
@scoring.diameter_option
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where to write: .onnx, the same model with the new settings, or .json, the settings alone.",
)
@scoring.group_options
@click.option("--only", metavar="VALUE", multiple=True, help="Tune on these groups only. May be repeated.")
@common.grouped("Advanced")(
    "--balance",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="How groups count: by their pictures at 0, all the same at 1.",
)
@click.option("--trials", type=click.IntRange(1), default=300, show_default=True, help="Settings to try.")
@click.option(
    "--rules/--no-rules",
    default=True,
    show_default=True,
    help="Learn which touching cells are one and how sure a cell is.",
)
@common.grouped("Advanced")(
    "--fix", metavar="NAME", multiple=True, help="Leave this setting as it is. May be repeated."
)
@common.grouped("Advanced")(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the search."
)
@common.grouped("Advanced")(
    "--jobs", type=click.IntRange(1), help="Processes; as many as there are cores by default."
)
@click.option("--overwrite", is_flag=True, help="Replace a file that stands where -o says.")
@common.version_option()
def main(
    folder: Path,
    engine: Path | None,
    model: str | None,
    device: str,
    diameter: float | Literal["auto", "none"] | None,
    channels: Sequence[int | str] | None,
    output: Path | None,
    groups: Path | None,
    by: str | None,
    only: tuple[str, ...],
    balance: float,
    trials: int,
    rules: bool,
    fix: tuple[str, ...],
    seed: int,
    jobs: int | None,
    overwrite: bool,
) -> None:
    """Tune how a model's planes are split into cells, on pictures whose cells are known.

    DIR holds image/ and label/ with files of the same names, as for cellseg-eval. The model runs once over
    each picture; then settings of the splitter are tried on what it saw, and two rules are learned from it:
    which touching cells are one, and how sure a cell is (its score). They are kept if they help on pictures
    that they were not learned from. A model that does not know how large its cells are learns it, too. The
    network stays as it is.

    Take validation pictures, and others to measure what it is worth: on the pictures that the settings
    were chosen on, figures are optimistic.
    """
    path = common.chosen_model(engine, model)
    if only and groups is None:
        raise UsageError("--only names groups; say with --groups and --by what they are")

    from ..backends import open_backend
    from ..common import files
    from ..tuning.tune import TuneOptions, tune

    options = TuneOptions(trials=trials, seed=seed, balance=balance, rules=rules, fixed=fix, jobs=jobs)
    if output is not None:
        _check_ending(output, path)
        files.refuse_existing(output, overwrite=overwrite)
    truth, group_of = scoring.open_truth(folder, groups, by)
    with files.replacing(output) if output is not None else contextlib.nullcontext() as partial:
        with open_backend(path, device) as backend:
            options.names(backend.spec)  # a setting to leave that there is not is said before the work
            cases = _cases(backend, truth, folder / "image", group_of, only, diameter, channels)
        with scoring.bars() as tell:
            found = tune(cases, backend.spec, options, tell)
        if partial is not None and output is not None:  # before anything is printed: a terminal may be gone
            _write(partial, output, path, backend.spec, found.split, cases)
    _print_settings(backend.spec.split, found.split)
    if found.lead is not None and found.split == backend.spec.split:
        gain, error = found.lead
        click.echo(
            f"the model keeps its own rules: others were better by {gain:.3f} ± {error:.3f} on "
            f"{len(cases)} pictures, too little to be sure of it on others"
        )
    columns: dict[str, dict[str, float]] = {}
    for group in found.after:
        title = f"{group}, " if group_of else ""
        columns |= {f"{title}before": found.before[group], f"{title}after": found.after[group]}
    scoring.print_figures(columns, SHOWN)
    if output is None:
        click.echo("nothing was written; name a file with -o", err=True)
    else:
        click.echo(f"written: {output}")
        if output.suffix == ".onnx":
            common.say_next("cellseg-infer", "IMAGE", "--engine", output, "-o", "results")
        else:
            common.say_next("cellseg-export", "CHECKPOINT", "--split", output)


def _write(
    partial: Path, output: Path, model: Path, spec: ModelSpec, split: SplitSettings, cases: list[Case]
) -> None:
    """Write the settings, or the model with them."""
    from ..common import files
    from ..model.onnx_metadata import respecify
    from ..sizing.measured import measure_cells

    if output.suffix == ".json":
        files.write(partial, (split.model_dump_json(indent=1) + "\n").encode())
        return
    known = spec.diameter or measure_cells(case.truth for case in cases)
    respecify(model, partial, spec.model_copy(update={"split": split, "diameter": known}))
    if spec.diameter is None:
        click.echo(f"cells: {known.median:g} pixels across; {known.low:g} to {known.high:g} are served")


def _check_ending(output: Path, model: Path) -> None:
    if output.suffix not in (".onnx", ".json"):
        raise UsageError(f"-o {output}: must end in .onnx (the model) or .json (the settings alone)")
    if output.suffix == ".onnx" and model.suffix != ".onnx":
        raise UsageError(
            f"-o {output}: {model.name} is no ONNX file; tune the one that it was built from, or write .json"
        )


def _cases(
    backend: Backend,
    truth: LabelFolder,
    pictures: Path,
    group_of: dict[str, str],
    only: tuple[str, ...],
    diameter: float | Literal["auto", "none"] | None,
    channels: Sequence[int | str] | None,
) -> list[Case]:
    """Run the model over the pictures of the wanted groups."""
    from ..readers import open_slide
    from ..tuning.cases import Case, at_scale_of, predict_planes

    files = scoring.pictures_of(truth, pictures)
    for value in only:
        if value not in group_of.values():
            found = ", ".join(sorted(set(group_of.values())))
            raise UsageError(f"--only {value}: no picture of that group; found {found}")
    files = {stem: path for stem, path in files.items() if not only or group_of[stem] in only}
    labels = {}
    for stem, path in files.items():
        labels[stem] = truth.read(stem)
        with open_slide(path) as slide:
            scoring.check_size(truth.files[stem], labels[stem].shape, path, (slide.height, slide.width))
    if not any(each.any() for each in labels.values()):
        raise DataError(f"{truth.folder}: no cell in any label image; nothing can be tuned on")
    return [
        Case(group_of.get(stem, "all"), planes, at_scale_of(planes, labels[stem]))
        for stem, planes in scoring.progress(
            predict_planes(backend, files, diameter, channels), "predicting", len(files)
        )
    ]


def _print_settings(before: SplitSettings, after: SplitSettings) -> None:
    from rich import box
    from rich.table import Table

    table = Table("setting", "before", "after", box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    old, new = _flat(before.model_dump()), _flat(after.model_dump())
    for name in dict.fromkeys([*old, *new]):
        texts = [f"{each[name]:g}" if name in each else "" for each in (old, new)]
        table.add_row(name, *texts, style=None if texts[0] == texts[1] else "bold")
    common.console().print(table)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Return all numbers of nested tables by their names."""
    numbers: dict[str, float] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            numbers |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            numbers[prefix + name] = value
    return numbers
