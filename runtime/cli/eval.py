"""``cellseg-eval``: how well a model, or label images made elsewhere, agree with true labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from ..errors import OutputError, UsageError
from ..options import PrecisionChoice
from . import common, scoring

if TYPE_CHECKING:
    from ..evaluation.folders import LabelFolder
    from ..evaluation.metrics import Score


@click.command(
    "cellseg-eval",
    cls=common.Command,
    examples=[
        ("cellseg-eval datasets/NAME/val", "Run the default model on datasets/NAME/val/image and score it."),
        (
            "cellseg-eval DIR --engine mine.onnx --json mine.json",
            "Another model, all figures kept.",
        ),
        ("cellseg-eval DIR --labels cellseg_out", "Score what cellseg-infer has found before."),
    ],
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@common.model_options
@common.device_option
@click.option(
    "--labels",
    metavar="PRED_DIR",
    type=click.Path(path_type=Path),
    help="Score these label images, or results of cellseg-infer, instead of running a model.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(PrecisionChoice)),
    default="auto",
    show_default=True,
    help="Arithmetic that the model runs in.",
)
@scoring.channels_option
@scoring.diameter_option
@scoring.group_options
@click.option(
    "--json", "json_path", metavar="FILE", type=click.Path(path_type=Path), help="Write all figures."
)
@common.version_option()
def main(
    folder: Path,
    engine: Path | None,
    model: str | None,
    device: str,
    diameter: float | Literal["auto", "none"] | None,
    channels: Sequence[int | str] | None,
    labels: Path | None,
    precision: PrecisionChoice,
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
    if labels is not None and diameter is not None:
        raise UsageError("--diameter is for a model; with --labels none runs")
    if labels is not None and channels is not None:
        raise UsageError("--channels is for a model; with --labels none runs")
    if json_path is not None and not json_path.parent.is_dir():
        raise OutputError(f"{json_path}: its folder does not exist; make it first")

    from ..common import files
    from ..evaluation.folders import LabelFolder, check_partners
    from ..evaluation.metrics import summarise

    truth, group_of = scoring.open_truth(folder, groups, by)
    source: dict[str, Any]
    if labels is not None:
        predicted = LabelFolder.open(labels)
        check_partners(truth.files, predicted.files, predicted.folder)
        check_partners(predicted.files, truth.files, truth.folder)
        scoring.note_semantic(predicted)
        scores = _score_folder(truth, predicted)
        source = {"labels": str(labels)}
    else:
        chosen = common.chosen_model(engine, model)
        scores, source = _score_model(truth, folder / "image", chosen, device, precision, diameter, channels)

    by_group: dict[str, dict[str, float]] = {}
    for group in sorted({group_of[stem] for stem in scores} if group_of else ()):
        by_group[group] = summarise([score for stem, score in scores.items() if group_of[stem] == group])
    figures = summarise(list(scores.values()))
    per_image = {
        key.removesuffix("_per_image"): value for key, value in figures.items() if key.endswith("_per_image")
    }
    if json_path is not None:  # before anything is printed: a terminal may fail
        record = {**figures, "groups": by_group, "truth": str(truth.folder), "source": source}
        with files.replacing(json_path, "json") as partial:
            files.write(partial, (json.dumps(record, indent=1) + "\n").encode(), "json")
    scoring.print_figures({"all": figures, "per image": per_image, **by_group})


def _score_folder(truth: LabelFolder, predicted: LabelFolder) -> dict[str, Score]:
    """Score label images by stem."""
    from ..evaluation.metrics import score

    scores = {}
    for stem in scoring.progress(truth.files, "scoring", len(truth.files)):
        true_labels, found = truth.read(stem), predicted.read(stem)
        scoring.check_size(truth.files[stem], true_labels.shape, predicted.files[stem], found.shape)
        scores[stem] = score(true_labels, found)
    return scores


def _score_model(
    truth: LabelFolder,
    pictures: Path,
    model: Path,
    device: str,
    precision: PrecisionChoice,
    diameter: float | Literal["auto", "none"] | None,
    channels: Sequence[int | str] | None,
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Segment the picture of each label image and score it, by stem; also say what was run."""
    from ..backends import Options, open_backend
    from ..evaluation.metrics import score
    from ..pipeline import segment
    from ..readers import by_size, open_slide

    files = scoring.pictures_of(truth, pictures)
    scores = {}
    with open_backend(model, device, options=Options(precision=precision)) as backend:
        spec = backend.spec
        for stem in scoring.progress(by_size(files), "scoring", len(files)):
            true_labels = truth.read(stem)
            with open_slide(files[stem], channels=channels) as slide:
                scoring.check_size(
                    truth.files[stem], true_labels.shape, files[stem], (slide.height, slide.width)
                )
                scores[stem] = score(true_labels, segment(slide, backend, diameter=diameter).labels)
        return scores, {
            "model": spec.name,
            "weights_sha256": spec.weights_sha256,
            "split": spec.split.model_dump(),
            "diameter": diameter,
            "channels": None if channels is None else list(channels),
            "engine": backend.description,
        }
