r"""Teach the default model fields that were corrected in the viewer, and score it on other patients.

    python benchmarks/teach.py datasets/monuseg --out teach --patient '(.+)_\d' --hold-out 3 --fields 5

``cellseg-infer`` finds the cells of some pictures of DATA, each of another patient. What a person would
change there is taken from the true labels: cells that are right enough stay as they are, pieces of one cell
are merged, false ones deleted, missing ones drawn. The corrections go the way they go in ``cellseg-view``,
into the GeoJSON that it saves; then come the commands that its user types: ``cellseg-train import``,
``cellseg-train finetune``, ``cellseg-export``, ``cellseg-tune``. Before and after, the pictures of patients
that were held out are scored, and it is counted how many changes a person would have to make there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from finetune import FOLDER, call, divide, evenly, pictures_of, scores_of, train
from numpy.typing import NDArray

from cellseg.runtime.cli import common
from cellseg.runtime.evaluation.contingency import Contingency
from cellseg.runtime.evaluation.folders import read_labels
from cellseg.runtime.instances.outlines import outlines, renumbered
from cellseg.runtime.view.corrections import Corrections, to_geojson
from cellseg.runtime.view.scene import Scene

#: Cells that agree so far with the truth are left as they are: a person does not draw them again.
GOOD_ENOUGH = 0.6
#: A piece of a cell lies in it with so much of its area.
INSIDE = 0.7


@dataclass
class Changes:
    """What a person changes in a field."""

    deleted: list[int] = field(default_factory=list)
    merged: list[list[int]] = field(default_factory=list)
    drawn: list[list[tuple[float, float]]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.deleted) + len(self.merged) + len(self.drawn)


def corrected_by_hand(truth: NDArray[Any], found: NDArray[np.int32]) -> Changes:
    """Return what makes of the cells that were found those that are there.

    Parameters
    ----------
    truth, found
        Label images of a field, of one shape.
    """
    overlap = Contingency.of(truth, found)
    number_found = np.unique(found[found > 0])
    number_true = np.unique(truth[truth > 0])
    right = overlap.iou >= GOOD_ENOUGH
    kept, known = set(overlap.predicted[right].tolist()), set(overlap.true[right].tolist())
    made = Changes()
    for cell in range(len(overlap.true_area)):
        if cell in known:
            continue
        of_cell = overlap.true == cell
        inside = overlap.pixels >= INSIDE * overlap.predicted_area[overlap.predicted]
        pieces = [at for at in np.flatnonzero(of_cell & inside) if int(overlap.predicted[at]) not in kept]
        shared = sum(int(overlap.pixels[at]) for at in pieces)
        whole = sum(int(overlap.predicted_area[overlap.predicted[at]]) for at in pieces)
        if len(pieces) > 1 and shared >= GOOD_ENOUGH * (overlap.true_area[cell] + whole - shared):
            made.merged.append([int(number_found[overlap.predicted[at]]) for at in pieces])
            kept |= {int(overlap.predicted[at]) for at in pieces}
            known.add(cell)
    made.deleted = [int(number_found[at]) for at in range(len(number_found)) if at not in kept]
    missing = np.isin(truth, [number_true[at] for at in range(len(number_true)) if at not in known])
    rings = outlines(renumbered(np.where(missing, truth, 0).astype(np.int32)))
    made.drawn = [[(float(x), float(y)) for x, y in ring] for ring in rings]
    return made


def found_by(images: list[Path], out: Path, *model: object) -> Iterator[tuple[Path, Path]]:
    """Run ``cellseg-infer`` on pictures and yield each with the folder of its result."""
    call("cellseg-infer", *images, *model, "-o", out, "--overwrite", "-q")
    for path in images:
        yield path, out / path.stem


def labels_of(image: Path) -> NDArray[Any]:
    """Return the true labels of a picture."""
    return read_labels(image.parent.parent / "label" / image.name)


def correct(image: Path, folder: Path, out: Path) -> Changes:
    """Write the corrected field of a picture, all of it, as the viewer saves it."""
    with Scene(folder) as scene:
        made = corrected_by_hand(labels_of(image), scene.labels_at(0, 0, scene.height, scene.width))
        corrections = Corrections(field=(0, 0, scene.width, scene.height), **vars(made))
        out.write_text(to_geojson(scene, corrections), encoding="utf-8")
    return made


def effort(images: list[Path], out: Path, *model: object) -> dict[str, float]:
    """Count the changes that pictures would take, for each hundred cells that are there."""
    made, cells = [], 0
    for image, folder in found_by(images, out, *model):
        with Scene(folder) as scene:
            made.append(corrected_by_hand(labels_of(image), scene.labels_at(0, 0, scene.height, scene.width)))
        cells += len(np.unique(labels_of(image))) - 1
    counts = {name: sum(len(getattr(each, name)) for each in made) for name in vars(Changes())}
    return {name: 100 * count / max(cells, 1) for name, count in counts.items()}


@click.command("teach", cls=common.Command)
@click.argument("data", type=FOLDER)
@click.option("--out", required=True, type=FOLDER, help="Folder for all that is made, and teach.json.")
@click.option("--fields", "count", type=click.IntRange(1), default=5, show_default=True)
@click.option("--patient", help="What names of one picture's tiles share: a regular expression with a group.")
@click.option("--hold-out", type=click.IntRange(1), default=3, help="Pictures to score on.")
@click.option(
    "--set", "more", multiple=True, metavar="KEY=VALUE", help="Change finetune, as for the trainer."
)
@click.option("--trials", type=click.IntRange(1), default=300, help="Of cellseg-tune.")
def main(
    data: Path, out: Path, count: int, patient: str | None, hold_out: int, more: tuple[str, ...], trials: int
) -> None:
    """Correct one tile each of some pictures of DATA, teach them, and score pictures that were held out."""
    data = divide(data, hold_out, patient, out / "divided")
    pictures = pictures_of((data / "train" / "image").iterdir(), patient)
    images = evenly([tiles[:1] for tiles in pictures], count)
    made, taught = [], out / "taught"
    for image, folder in found_by(images, out / "found"):
        corrected = out / f"{image.stem}.geojson"
        made.append(correct(image, folder, corrected))
        call("cellseg-train", "import", image, corrected, "-o", taught, "--overwrite")
    model = train(taught, "nuclei", out / "nuclei", more)
    tuned = out / "tuned.onnx"
    call("cellseg-tune", taught / "train", "--engine", model, "-o", tuned, "--trials", trials, "--overwrite")
    rows = []
    held_out = sorted((data / "val" / "image").iterdir())
    for way, choice in (("before", ("--model", "nuclei")), ("after", ("--engine", tuned))):
        scores = scores_of(data / "val", out, *choice)
        rows.append({"way": way, "changes": effort(held_out, out / way, *choice), **scores})
    given = {name: sum(len(getattr(each, name)) for each in made) for name in vars(Changes())}
    cells = sum(len(np.unique(labels_of(image))) - 1 for image in images)
    result = out / "teach.json"
    text = json.dumps(
        {"set": more, "fields": len(images), "cells": cells, "changes": given, "rows": rows}, indent=1
    )
    result.write_text(text + "\n", encoding="utf-8")
    click.echo(result)


if __name__ == "__main__":
    main()
