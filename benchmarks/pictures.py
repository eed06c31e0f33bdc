r"""What are drawn sections and further pictures worth? A short training of each, from the same weights.

    python benchmarks/pictures.py start.onnx datasets/dsb2018 --further datasets/tissue=0.18 \
        --score datasets/dsb2018/val --score datasets/monuseg --out pictures

``nuclei.yml`` on the first data set alone, its pictures no further changed than by ``augment``; the same with
fluorescence drawn as sections and stains that move (``tissue``, ``stained``, ``stain_jitter``); and that with
further data sets, each with its share. Each is trained with every seed for as many steps. The last weights
count, with the settings and rules of those that all start from, whose own figures come first.
``cellseg-eval`` scores on each folder.

A run that was interrupted continues where it stopped; ``pictures.json`` in the folder is replaced after each.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
from finetune import FOLDER, scores_of, train_and_export

from cellseg.runtime.cli import common

#: What is switched off where pictures are learned from as they are.
LOOKS = {"tissue": 0, "stained": 0, "stain_jitter": 0}
#: Of a short training from good weights.
SHORT = {"learning_rate": 0.0008, "warmup": 20, "ema": 0.95}
#: Figures that are kept.
KEPT = ("images", "ap50", "ap75", "aji", "precision_object", "sensitivity_object")
#: Share of the first data set where there are others.
FIRST = 0.58


def data_sets(data: Path, further: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return ``dataset_path`` of the first folder and of each ``FOLDER=SHARE``."""
    found = [{"path": str(data), "share": FIRST}]
    for each in further:
        path, _, share = each.rpartition("=")
        if not path or not re.fullmatch(r"\d*\.?\d+", share):
            raise click.UsageError(f"--further {each}: wanted FOLDER=SHARE, for example datasets/tissue=0.18")
        found.append({"path": path, "share": float(share)})
    return found


@click.command("pictures", cls=common.Command)
@click.argument("start", type=FOLDER)
@click.argument("data", type=FOLDER)
@click.option("--further", multiple=True, metavar="FOLDER=SHARE", help="Another data set, with train/ alone.")
@click.option("--score", "scored", multiple=True, required=True, type=FOLDER, help="Score on this folder.")
@click.option("--out", required=True, type=FOLDER, help="Folder for the runs and pictures.json.")
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True)
@click.option("--iters", type=click.IntRange(1), default=120, show_default=True, help="Steps of 8 crops.")
@click.option("--set", "more", multiple=True, metavar="KEY=VALUE", help="Change nuclei, as for the trainer.")
def main(
    start: Path,
    data: Path,
    further: tuple[str, ...],
    scored: tuple[Path, ...],
    out: Path,
    seeds: int,
    iters: int,
    more: tuple[str, ...],
) -> None:
    """Train from START on DATA in three ways, and score each."""
    every = data_sets(data, further)
    ways: dict[str, dict[str, Any]] = {
        "pictures as they are": {"dataset_path": data, **LOOKS},
        "and drawn sections, moving stains": {"dataset_path": data},
    }
    if further:
        ways["and further pictures"] = {"dataset_path": json.dumps(every)}
    out.mkdir(parents=True, exist_ok=True)
    target = out / "pictures.json"
    rows: list[dict[str, Any]] = json.loads(target.read_text())["rows"] if target.exists() else []

    def score(way: str, seed: int, model: Path) -> None:
        figures = {}
        for folder in scored:
            scores = scores_of(folder, out, "--engine", model)
            figures["/".join(folder.parts[-2:])] = {key: scores[key] for key in KEPT}
        rows.append({"way": way, "seed": seed, "sets": figures})
        target.write_text(json.dumps({"iters": iters, "set": more, "rows": rows}, indent=1) + "\n")

    done = {(row["way"], row["seed"]) for row in rows}
    if ("the start", 0) not in done:
        score("the start", 0, start)
    for seed in range(seeds):
        for number, (way, settings) in enumerate(ways.items()):
            if (way, seed) not in done:
                settings = {"weights": start, "iters": iters, "randseed": seed, **SHORT, **settings}
                score(way, seed, train_and_export("nuclei", out / f"{number}-{seed}", settings, more))
    click.echo(target)


if __name__ == "__main__":
    main()
