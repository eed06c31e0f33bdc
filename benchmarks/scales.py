"""What becomes of cells that are smaller or larger than a model's? Every picture at several sizes.

    python benchmarks/scales.py datasets/dsb2018/val --factor 0.4 --factor 1 --factor 3 --out scales.json

Each picture of DATA/image and its labels are brought to a multiple of their size, and segmented as they
are (``--diameter none``) and with the size of their cells found (``--diameter auto``). Figures are pooled
over all pictures, as ``cellseg-eval`` does, at the size that was segmented. The model must know how large
its cells are; ``--diameter MEDIAN,LOW,HIGH`` says it in its place.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from cellseg.runtime import segment
from cellseg.runtime.backends import Backend, open_backend
from cellseg.runtime.cli import common
from cellseg.runtime.evaluation.folders import PICTURES, LabelFolder, list_files
from cellseg.runtime.evaluation.metrics import score, summarise
from cellseg.runtime.model.spec import CellDiameter
from cellseg.runtime.readers import open_slide

FOLDER = click.Path(path_type=Path)
#: Ways to read a picture.
WAYS: tuple[Literal["none", "auto"], ...] = ("none", "auto")
#: Figures that are kept.
KEPT = ("images", "cells_true", "cells_pred", "ap50", "ap75", "pq", "aji", "ap50_per_image")


def resized(array: NDArray[Any], factor: float, how: int) -> NDArray[Any]:
    """Return a picture or labels at a multiple of their size."""
    if factor == 1:
        return array
    height, width = (max(1, round(edge * factor)) for edge in array.shape[:2])
    return np.ascontiguousarray(cv2.resize(array, (width, height), interpolation=how))


def cases(data: Path, every: int) -> Iterator[tuple[NDArray[Any], NDArray[np.int32]]]:
    """Yield each so-many-th picture with its labels."""
    pictures, truth = list_files(data / "image", PICTURES, "pictures"), LabelFolder.open(data / "label")
    for stem in sorted(pictures)[::every]:
        with open_slide(pictures[stem]) as slide:
            yield np.array(slide.overview(1 << 16)), truth.read(stem).astype(np.int32)


def measure(data: Path, backend: Backend, every: int, factor: float) -> list[dict[str, Any]]:
    """Return the figures of one size, both ways."""
    scores: dict[str, list[Any]] = {way: [] for way in WAYS}
    seconds = dict.fromkeys(WAYS, 0.0)
    reasons: dict[str, int] = {}
    surveyed = pixels = 0
    for image, labels in cases(data, every):
        seen = resized(image, factor, cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
        true = resized(labels, factor, cv2.INTER_NEAREST_EXACT)
        for way in WAYS:
            started = time.process_time()
            result = segment(seen, backend, diameter=way)
            seconds[way] += time.process_time() - started
            scores[way].append(score(true, result.labels))
        sizing = result.record.sizing
        reasons[sizing.reason] = reasons.get(sizing.reason, 0) + 1
        surveyed, pixels = surveyed + sizing.pixels, pixels + seen.shape[0] * seen.shape[1]
    found = {way: summarise(each) for way, each in scores.items()}
    return [
        {"factor": factor, "every": every, "diameter": way, "cpu_s": round(seconds[way], 2)}
        | {name: found[way][name] for name in KEPT}
        | ({"reasons": reasons, "surveyed_part": surveyed / pixels} if way == "auto" else {})
        for way in WAYS
    ]


def parse(text: str | None) -> CellDiameter | None:
    """Return the sizes of ``MEDIAN,LOW,HIGH``."""
    if text is None:
        return None
    median, low, high = (float(part) for part in text.split(","))
    return CellDiameter(median=median, low=low, high=high)


@click.command("scales", cls=common.Command)
@click.argument("data", type=FOLDER)
@click.option("--engine", type=FOLDER, help="Model file; the default model where nothing is named.")
@click.option("--diameter", metavar="MEDIAN,LOW,HIGH", help="What the model is to know of its cells.")
@click.option("--factor", "factors", multiple=True, type=float, default=(0.4, 1.0, 2.0, 3.0, 4.0))
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Take each so-many-th.")
@click.option("--out", type=FOLDER, help="JSON file; figures of other sizes in it are kept.")
def main(
    data: Path,
    engine: Path | None,
    diameter: str | None,
    factors: tuple[float, ...],
    every: int,
    out: Path | None,
) -> None:
    """Score a model on the pictures of DATA at several sizes."""
    rows: list[dict[str, Any]] = []
    with open_backend(engine, "cpu") as backend:
        known = parse(diameter)
        if known is not None:
            backend.spec = backend.spec.model_copy(update={"diameter": known})
        spec = backend.spec
        assert spec.diameter is not None, "this model does not know how large its cells are"
        for factor in factors:
            for row in measure(data, backend, every, factor):
                rows.append(row)
                click.echo(
                    "  ".join(
                        f"{name} {row[name]:.3g}" for name in ("factor", "ap50", "ap75", "ap50_per_image")
                    ),
                    nl=False,
                )
                click.echo(f"  {row['diameter']}  {row.get('reasons', '')}")
    if out is None:
        return
    old = json.loads(out.read_text())["rows"] if out.exists() else []
    kept = [row for row in old if row["factor"] not in factors]
    record = {
        "model": spec.name,
        "weights_sha256": spec.weights_sha256,
        "diameter": spec.diameter.model_dump(),
        "rows": sorted(kept + rows, key=lambda row: (row["factor"], WAYS.index(row["diameter"]))),
    }
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
