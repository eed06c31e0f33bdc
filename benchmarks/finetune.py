"""How good does the default model get with a few pictures of another kind? The commands a user would type.

    python benchmarks/finetune.py datasets/phase_t98g --out finetune --pictures 2 --pictures 5

For each number of pictures, or a few less, evenly chosen from DATA/train: ``cellseg-train finetune`` on them
from ``nuclei``, ``cellseg-export``, ``cellseg-tune`` on the same pictures, and ``cellseg-eval`` on DATA/val,
which nothing was chosen by: the last weights count, not the best ones. Next to it stand ``nuclei`` as it is,
``nuclei`` only tuned, and the same training from nothing, each on the first number of pictures given.

A training that was interrupted goes on where it stopped. ``finetune.json`` lies in the folder at the end.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from cellseg.runtime.cli import common

FOLDER = click.Path(path_type=Path)
HEADS = "mask,boundary,density"


def call(command: str, *arguments: object) -> None:
    """Run one of our commands, from this Python's folder, and end where it fails."""
    subprocess.run([Path(sys.executable).parent / command, *map(str, arguments)], check=True)


def choose(data: Path, count: int, folder: Path) -> Path:
    """Link about `count` training pictures of `data`, and its validation images, into a data set."""
    for part in ("image", "label"):
        (folder / "train" / part).mkdir(parents=True, exist_ok=True)
        files = sorted((data / "train" / part).iterdir())
        step = -(-len(files) // count)
        for path in files[(step - 1) // 2 :: step]:
            link(folder / "train" / part / path.name, path)
    link(folder / "val", data / "val")
    return folder


def link(path: Path, target: Path) -> None:
    """Make `path` a link to `target`, whatever it was before."""
    path.unlink(missing_ok=True)
    path.symlink_to(target.resolve())


def train(dataset: Path, weights: str, folder: Path) -> Path:
    """Train ``finetune`` on a data set and return the exported model."""
    settings = {"dataset_path": dataset, "weights": weights, "work_dir": folder, "val_interval": 10**6}
    call(
        "cellseg-train",
        "finetune",
        "--resume",
        *(w for k, v in settings.items() for w in ("--set", f"{k}={v}")),
    )
    model = folder / "model.onnx"
    small = ("--fp16", "--halo", "near", "--no-plan")
    call("cellseg-export", folder / "last.pt", "--heads", HEADS, *small, "-o", model)
    return model


@click.command("finetune", cls=common.Command)
@click.argument("data", type=FOLDER)
@click.option("--out", required=True, type=FOLDER, help="Folder for data sets, runs and finetune.json.")
@click.option("--pictures", "counts", multiple=True, type=click.IntRange(1), default=(5,), show_default=True)
def main(data: Path, out: Path, counts: tuple[int, ...]) -> None:
    """Fine-tune on some pictures of DATA, and score on its validation images."""
    rows: list[dict[str, Any]] = []

    def score(way: str, pictures: int, *model: object) -> None:
        call("cellseg-eval", data / "val", *model, "--json", out / "scores.json")
        rows.append({"way": way, "pictures": pictures, **json.loads((out / "scores.json").read_text())})

    def tuned(way: str, dataset: Path, *model: object) -> None:
        call("cellseg-tune", dataset / "train", *model, "-o", out / "tuned.onnx")
        score(way, len(list((dataset / "train" / "image").iterdir())), "--engine", out / "tuned.onnx")

    dataset = choose(data, counts[0], out / f"data-{counts[0]}")
    score("`nuclei` as it is", 0, "--model", "nuclei")
    tuned("`nuclei`, tuned", dataset, "--model", "nuclei")
    tuned("from nothing, tuned", dataset, "--engine", train(dataset, "null", out / f"nothing-{counts[0]}"))
    for count in counts:
        dataset = choose(data, count, out / f"data-{count}")
        tuned("from `nuclei`, tuned", dataset, "--engine", train(dataset, "nuclei", out / f"nuclei-{count}"))
    result = out / "finetune.json"
    result.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    click.echo(result)


if __name__ == "__main__":
    main()
