"""What ``cellseg-eval`` and ``cellseg-tune`` share: folders with true labels, groups of pictures, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import DataError, UsageError
from . import common

if TYPE_CHECKING:
    from ..evaluation.folders import LabelFolder

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_Item = TypeVar("_Item")

#: Rows of the printed table: title and key.
ROWS = (
    ("images", "images"),
    ("true cells", "cells_true"),
    ("cells found", "cells_pred"),
    ("AP at IoU 0.50", "ap50"),
    ("AP at IoU 0.75", "ap75"),
    ("AP at IoU 0.90", "ap90"),
    ("AP 0.50 … 0.90", "ap_mean_50_90"),
    ("PQ", "pq"),
    ("AJI", "aji"),
    ("Dice", "dice"),
    ("IoU", "iou"),
    ("precision (pixels)", "precision"),
    ("sensitivity (pixels)", "sensitivity"),
    ("precision (cells)", "precision_object"),
    ("sensitivity (cells)", "sensitivity_object"),
    ("count error (MAE)", "count_mae"),
    ("merged", "merged"),
    ("split", "split"),
    ("missed", "missed"),
    ("inexact", "inexact"),
    ("spurious", "spurious"),
)


def _as_infer_has_it(name: str, text: str) -> Callable[[_Decorated], _Decorated]:
    """Return an option that is read and refused as that of ``cellseg-infer`` is."""
    from ..options import OPTIONS

    kind = OPTIONS[name].kind

    def read(context: click.Context, parameter: click.Parameter, given: str | None) -> Any:
        try:
            return None if given is None else kind.read(given)
        except ValueError:
            raise UsageError(f"--{name} is '{given}'; wanted {kind.wanted}") from None

    return click.option(f"--{name}", metavar=OPTIONS[name].metavar, callback=read, help=text)


def diameter_option(function: _Decorated) -> _Decorated:
    """Add the option that says how large the cells are, as ``cellseg-infer`` has it."""
    return _as_infer_has_it("diameter", "How large the cells in the pictures are, as for cellseg-infer.")(
        function
    )


def channels_option(function: _Decorated) -> _Decorated:
    """Add the option that names the channels to read, as ``cellseg-infer`` has it."""
    return _as_infer_has_it("channels", "Channels of the pictures to read, as for cellseg-infer.")(function)


def group_options(function: _Decorated) -> _Decorated:
    """Add the options that sort pictures into groups."""
    for option in (
        click.option("--by", metavar="COLUMN", help="Column of --groups; figures are given for each value."),
        click.option(
            "--groups", metavar="CSV", type=click.Path(path_type=Path), help="Table of images, names first."
        ),
    ):
        function = option(function)
    return function


def open_truth(folder: Path, groups: Path | None, by: str | None) -> tuple[LabelFolder, dict[str, str]]:
    """Open DIR/label and the table of groups.

    Returns
    -------
    The label images, and the group of each by stem; empty without a table.

    Raises
    ------
    UsageError
        One of the two options was given.
    DataError
        A folder, a file or a row is missing.
    """
    if (groups is None) != (by is None):
        raise UsageError(
            "--groups and --by belong together; give both, such as --groups index.csv --by stain"
        )
    from ..evaluation.folders import LabelFolder, read_groups

    if not (folder / "label").is_dir():
        inside = [name for name in ("val", "test", "train") if (folder / name / "label").is_dir()]
        advice = f"did you mean {folder / inside[0]}?" if inside else "it holds the true labels; see --help"
        raise DataError(f"{folder / 'label'}: no such folder; {advice}")
    truth = LabelFolder.open(folder / "label")
    group_of = read_groups(groups, by) if groups is not None and by is not None else {}
    for stem, path in truth.files.items():
        if groups is not None and stem not in group_of:
            raise DataError(f"{groups}: no row for {path.name}; add one for each image in {folder}")
    note_semantic(truth)
    return truth, group_of


def note_semantic(labels: LabelFolder) -> None:
    """Say where masks are taken for cells."""
    if labels.semantic:
        click.echo(
            f"{labels.folder}: masks without cell numbers; each connected piece counts as a cell", err=True
        )


def pictures_of(truth: LabelFolder, folder: Path) -> dict[str, Path]:
    """Return the picture of each label image by stem.

    Raises
    ------
    DataError
        A picture or a label image has no partner.
    """
    from ..evaluation.folders import PICTURES, check_partners, list_files

    files = list_files(folder, PICTURES, "pictures")
    check_partners(truth.files, files, folder)
    check_partners(files, truth.files, truth.folder)
    return files


def check_size(label: Path, wanted: tuple[int, ...], path: Path, found: tuple[int, ...]) -> None:
    """Refuse a picture that is not of its labels' size, both (rows, columns)."""
    if wanted != found:
        raise DataError(
            f"{path}: {found[0]} rows × {found[1]} columns, but the true labels in {label} have "
            f"{wanted[0]} × {wanted[1]}; both must be of one size"
        )


def progress(items: Iterable[_Item], doing: str, total: int) -> Iterable[_Item]:
    """Show a bar while `items` are worked on, where there is a terminal to show it."""
    from rich.progress import track

    console = common.console(stderr=True)
    return track(items, doing, total, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each part of a work, where there is a terminal to show it.

    Gives the function that is told a part's name, and how many of how many steps are done.
    """
    from rich.progress import Progress, TaskID

    console = common.console(stderr=True)
    tasks: dict[str, TaskID] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:

        def tell(part: str, done: int, total: int) -> None:
            if part not in tasks:
                tasks[part] = shown.add_task(part, total=total)
            shown.update(tasks[part], completed=done)

        yield tell


#: More columns than these do not fit a terminal of 80 characters; groups are rows then.
FEW = 4
#: What is shown of each then, and how it is called.
BRIEF = {
    "ap50": "AP50",
    "ap75": "AP75",
    "ap90": "AP90",
    "count_mae": "MAE",
    "merged": "merged",
    "split": "split",
    "missed": "missed",
    "spurious": "spurious",
}


def print_figures(columns: Mapping[str, Mapping[str, float]], keys: Sequence[str] = ()) -> None:
    """Print figures side by side, or one below the other where they are many.

    Parameters
    ----------
    columns
        Figures by the column's title.
    keys
        Rows to print; all of :data:`ROWS` by default.
    """
    from rich import box
    from rich.table import Table

    def cell(values: Mapping[str, float], key: str) -> str:
        if key not in values:
            return ""
        value = values[key]
        return (
            f"{value:,}"
            if isinstance(value, int)
            else f"{value:.2f}"
            if key == "count_mae"
            else f"{value:.3f}"
        )

    shown = [(title, key) for title, key in ROWS if not keys or key in keys]
    if len(columns) > FEW and keys:  # many groups and few figures: side by side they would be cut off
        brief = [key for _, key in shown if key in BRIEF]
        table = Table("", *(BRIEF[key] for key in brief), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for title, values in columns.items():
            table.add_row(title, *(cell(values, key) for key in brief))
    else:
        table = Table("", *columns, box=box.SIMPLE_HEAD)
        for title, key in shown:
            table.add_row(title, *(cell(values, key) for values in columns.values()))
    for column in table.columns[1:]:
        column.justify = "right"
    common.console().print(table)
