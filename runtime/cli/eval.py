"""``cellseg-eval``: how well a model, or label images made elsewhere, agree with true labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import DataError, OutputError, UsageError
from . import common

if TYPE_CHECKING:
    from ..evaluate import Score
    from ..pairs import LabelFolder

#: Endings of pictures in ``DIR/image``; what a file really holds is up to the reader.
PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".webp", ".svs", ".ndpi", ".mrxs", ".scn")
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


@click.command("cellseg-eval", cls=common.Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--engine", metavar="FILE", type=click.Path(path_type=Path), help="Model to run on DIR/image.")
@click.option("--model", metavar="NAME", help="Packaged model to run; the default where nothing is named.")
@click.option("--device", metavar="NAME", default="auto", show_default=True, help="Where the model runs.")
@click.option(
    "--labels",
    metavar="PRED_DIR",
    type=click.Path(path_type=Path),
    help="Score these label images, or results of cellseg-infer, instead of running a model.",
)
@click.option(
    "--groups", metavar="CSV", type=click.Path(path_type=Path), help="Table of images, names first."
)
@click.option("--by", metavar="COLUMN", help="Column of --groups; figures are also given for each value.")
@click.option(
    "--json", "json_path", metavar="FILE", type=click.Path(path_type=Path), help="Write all figures."
)
@common.version_option()
def main(
    folder: Path,
    engine: Path | None,
    model: str | None,
    device: str,
    labels: Path | None,
    groups: Path | None,
    by: str | None,
    json_path: Path | None,
) -> None:
    """Score cell segmentation against true labels.

    DIR holds image/ and label/ with files of the same names. Labels are pictures of one channel with 0
    for background and one number per cell (16-bit PNG, TIFF). With --labels, DIR/image is not needed.
    """
    if sum(option is not None for option in (engine, model, labels)) > 1:
        raise UsageError("--engine, --model and --labels exclude each other; give one of them")
    if (groups is None) != (by is None):
        raise UsageError(
            "--groups and --by belong together; give both, such as --groups index.csv --by stain"
        )
    if json_path is not None and not json_path.parent.is_dir():
        raise OutputError(f"{json_path}: its folder does not exist; make it first")

    from ..evaluate import summarise
    from ..pairs import LabelFolder, check_partners, read_groups

    truth = LabelFolder.open(folder / "label")
    group_of = read_groups(groups, by) if groups is not None and by is not None else {}
    for stem, path in truth.files.items():
        if groups is not None and stem not in group_of:
            raise DataError(f"{groups}: no row for {path.name}; add one for each image in {folder}")
    _note_semantic(truth)
    source: dict[str, Any]
    if labels is not None:
        predicted = LabelFolder.open(labels)
        check_partners(truth.files, predicted.files, predicted.folder)
        check_partners(predicted.files, truth.files, truth.folder)
        _note_semantic(predicted)
        scores = _score_folder(truth, predicted)
        source = {"labels": str(labels)}
    else:
        scores, source = _score_model(truth, folder / "image", engine or model, device)

    by_group: dict[str, dict[str, float]] = {}
    for group in sorted({group_of[stem] for stem in scores} if group_of else ()):
        by_group[group] = summarise([score for stem, score in scores.items() if group_of[stem] == group])
    figures = summarise(list(scores.values()))
    _print_table(figures, by_group)
    if json_path is not None:
        _write_json(json_path, {**figures, "groups": by_group, "truth": str(truth.folder), "source": source})


def _note_semantic(labels: LabelFolder) -> None:
    if labels.semantic:
        click.echo(
            f"{labels.folder}: masks without cell numbers; each connected piece counts as a cell", err=True
        )


def _score_folder(truth: LabelFolder, predicted: LabelFolder) -> dict[str, Score]:
    """Score label images by stem."""
    from ..evaluate import score

    scores = {}
    for stem in _progress(truth.files):
        true_labels, found = truth.read(stem), predicted.read(stem)
        _check_size(truth.files[stem], true_labels.shape, predicted.files[stem], found.shape)
        scores[stem] = score(true_labels, found)
    return scores


def _score_model(
    truth: LabelFolder, pictures: Path, model: Path | str | None, device: str
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Segment the picture of each label image and score it, by stem; also say what was run."""
    from ..backends import open_backend
    from ..evaluate import score
    from ..pairs import check_partners, list_files
    from ..pipeline import segment
    from ..readers import open_slide

    files = list_files(pictures, PICTURES, "pictures")
    check_partners(truth.files, files, pictures)
    check_partners(files, truth.files, truth.folder)
    sizes = {}
    for stem, path in files.items():
        with open_slide(path) as slide:
            sizes[stem] = (max(slide.height, slide.width), slide.height)
    scores = {}
    with open_backend(model, device) as backend:
        spec = backend.spec
        # By size, because the engine gets ready anew for each tile size.
        for stem in _progress(sorted(files, key=sizes.__getitem__)):
            true_labels = truth.read(stem)
            with open_slide(files[stem]) as slide:
                _check_size(truth.files[stem], true_labels.shape, files[stem], (slide.height, slide.width))
                scores[stem] = score(true_labels, segment(slide, backend).labels)
        return scores, {
            "model": spec.name,
            "weights_sha256": spec.weights_sha256,
            "split": spec.split.model_dump(),
            "engine": backend.description,
        }


def _check_size(label: Path, wanted: tuple[int, ...], path: Path, found: tuple[int, ...]) -> None:
    if wanted != found:
        raise DataError(
            f"{path}: {found[0]} rows × {found[1]} columns, but the true labels in {label} have "
            f"{wanted[0]} × {wanted[1]}; both must be of one size"
        )


def _progress(stems: Iterable[str]) -> Iterable[str]:
    from rich.progress import track

    console = common.console(stderr=True)
    return track(list(stems), "scoring", console=console, transient=True, disable=not console.is_terminal)


def _print_table(figures: Mapping[str, float], groups: Mapping[str, Mapping[str, float]]) -> None:
    """Print pooled figures of all images and of each group, and the means over images."""
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

    table = Table("", "all", "per image", *groups, box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for title, key in ROWS:
        pooled = [cell(values, key) for values in (figures, *groups.values())]
        table.add_row(title, pooled[0], cell(figures, f"{key}_per_image"), *pooled[1:])
    common.console().print(table)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    import json
    import os

    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
