r"""How good does the default model get with a few pictures of another kind? The commands a user would type.

    python benchmarks/finetune.py datasets/phase_t98g --out finetune --pictures 2 --pictures 5
    python benchmarks/finetune.py datasets/monuseg --out finetune --patient '(.+)_\d' --hold-out 3

For each number of pictures, or a few less, evenly chosen from DATA/train: ``cellseg-train finetune`` on them
from ``nuclei``, ``cellseg-export``, ``cellseg-tune`` on the same pictures, and ``cellseg-eval`` on DATA/val,
before and after tuning. Nothing was chosen by DATA/val: the last weights count, not the best ones, and how
much of ``nuclei`` they keep is seen on the training pictures. Next to it stand ``nuclei`` as it is and only
tuned, and the same training from nothing, each on the first number of pictures given.

Files whose names agree in what ``--patient`` finds are tiles of one picture. DATA without train/ and val/ is
divided by pictures, so that no patient is on both sides.

What was interrupted goes on where it stopped. ``finetune.json`` lies in the folder at the end.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from cellseg.runtime.cli import common

FOLDER = click.Path(path_type=Path)
HEADS = "mask,boundary,density"
NUCLEI = "`nuclei`"


def call(command: str, *arguments: object) -> None:
    """Run one of our commands, from this Python's folder, and end where it fails."""
    subprocess.run([Path(sys.executable).parent / command, *map(str, arguments)], check=True)


def scores_of(data: Path, scratch: Path, *model: object) -> dict[str, Any]:
    """Return what ``cellseg-eval`` writes of a model into a file of `scratch`."""
    scores = scratch / "scores.json"
    call("cellseg-eval", data, *model, "--json", scores)
    found: dict[str, Any] = json.loads(scores.read_text())
    return found


def pictures_of(files: Iterable[Path], patient: str | None) -> list[list[Path]]:
    """Return the files of each picture, in the order of their names."""
    found: dict[str, list[Path]] = {}
    for path in sorted(files):
        match = re.match(patient, path.stem) if patient else None
        found.setdefault(match[1] if match else path.stem, []).append(path)
    return list(found.values())


def evenly(pictures: list[list[Path]], count: int) -> list[Path]:
    """Return the files of about `count` pictures, evenly chosen."""
    step = -(-len(pictures) // count)
    return [path for picture in pictures[(step - 1) // 2 :: step] for path in picture]


def divide(data: Path, hold_out: int, patient: str | None, folder: Path) -> Path:
    """Link the pictures of `data` into a data set whose val/ holds `hold_out` of them, evenly chosen."""
    for part in ("image", "label"):
        files = sorted((data / part).iterdir())
        kept = set(evenly(pictures_of(files, patient), hold_out))
        for path in files:
            target = folder / ("val" if path in kept else "train") / part
            target.mkdir(parents=True, exist_ok=True)
            link(target / path.name, path)
    return folder


def choose(data: Path, count: int, patient: str | None, folder: Path) -> Path:
    """Link about `count` training pictures of `data` into a data set, which validates on them, too."""
    for part in ("image", "label"):
        (folder / "train" / part).mkdir(parents=True, exist_ok=True)
        for path in evenly(pictures_of((data / "train" / part).iterdir(), patient), count):
            link(folder / "train" / part / path.name, path)
    link(folder / "val", folder / "train")
    return folder


def link(path: Path, target: Path) -> None:
    """Make `path` a link to `target`, whatever it was before."""
    path.unlink(missing_ok=True)
    path.symlink_to(target.resolve())


def train(dataset: Path, weights: str, folder: Path, more: Iterable[str] = ()) -> Path:
    """Train ``finetune`` on a data set and return the exported model."""
    return train_and_export("finetune", folder, {"dataset_path": dataset, "weights": weights}, more)


def train_and_export(
    config: str, folder: Path, settings: Mapping[str, object], more: Iterable[str] = ()
) -> Path:
    """Train a shipped configuration with other settings, and `more` of them, and return the exported model.

    The last weights count, so that validating in between would say nothing.
    """
    changed = {"work_dir": folder, "val_interval": 10**6, **settings}
    changed |= dict(each.split("=", 1) for each in more)
    call("cellseg-train", config, "--resume", *(w for k, v in changed.items() for w in ("--set", f"{k}={v}")))
    model = folder / "model.onnx"
    small = ("--fp16", "--halo", "near", "--no-plan")
    call("cellseg-export", folder / "last.pt", "--heads", HEADS, *small, "-o", model, "--overwrite")
    return model


@click.command("finetune", cls=common.Command)
@click.argument("data", type=FOLDER)
@click.option("--out", required=True, type=FOLDER, help="Folder for data sets, runs and finetune.json.")
@click.option("--pictures", "counts", multiple=True, type=click.IntRange(1), default=(5,), show_default=True)
@click.option("--patient", help="What names of one picture's tiles share: a regular expression with a group.")
@click.option(
    "--hold-out", type=click.IntRange(1), default=3, help="Of DATA without val/, pictures to score on."
)
@click.option("--from-nothing/--not-from-nothing", default=True, help="Also train without weights.")
@click.option(
    "--set", "more", multiple=True, metavar="KEY=VALUE", help="Change finetune, as for the trainer."
)
@click.option("--trials", type=click.IntRange(1), default=300, help="Of cellseg-tune.")
def main(
    data: Path,
    out: Path,
    counts: tuple[int, ...],
    patient: str | None,
    hold_out: int,
    from_nothing: bool,
    more: tuple[str, ...],
    trials: int,
) -> None:
    """Fine-tune on some pictures of DATA, and score on its validation images."""
    result = out / "finetune.json"
    rows: list[dict[str, Any]] = json.loads(result.read_text())["rows"] if result.exists() else []

    def score(way: str, pictures: int, *model: object) -> None:
        rows.append({"way": way, "pictures": pictures, **scores_of(data / "val", out, *model)})
        result.write_text(json.dumps({"set": more, "rows": rows}, indent=1) + "\n")

    def measured(start: str, count: int, model: Callable[[Path], tuple[object, ...]]) -> None:
        """Score what `model` makes of some pictures, as it is where that is new, and tuned on them."""
        dataset = choose(data, count, patient, out / f"data-{count}")
        pictures = len(pictures_of((dataset / "train" / "image").iterdir(), patient))
        done = {row["way"] for row in rows if row["pictures"] == pictures} | {NUCLEI}
        if {start, f"{start}, tuned"} <= done:
            return
        chosen = model(dataset)
        if start not in done:
            score(start, pictures, *chosen)
        if f"{start}, tuned" not in done:
            target = ("-o", out / "tuned.onnx", "--trials", trials, "--overwrite")
            call("cellseg-tune", dataset / "train", *chosen, *target)
            score(f"{start}, tuned", pictures, "--engine", out / "tuned.onnx")

    def trained(weights: str, count: int) -> Callable[[Path], tuple[object, ...]]:
        folder = out / f"{'nothing' if weights == 'null' else weights}-{count}"
        return lambda dataset: ("--engine", train(dataset, weights, folder, more))

    if not (data / "val").is_dir():
        data = divide(data, hold_out, patient, out / "divided")
    if not rows:
        score("`nuclei` as it is", 0, "--model", "nuclei")
    for count in counts:
        measured("from `nuclei`", count, trained("nuclei", count))
    measured(NUCLEI, counts[0], lambda _: ("--model", "nuclei"))
    if from_nothing:
        measured("from nothing", counts[0], trained("null", counts[0]))
    click.echo(result)


if __name__ == "__main__":
    main()
