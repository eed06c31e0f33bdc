"""``cellseg-tune``: what it writes, and one clear line where it cannot."""

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cellseg.runtime.backends import load_spec
from cellseg.runtime.cli.tune import main
from cellseg.runtime.model.spec import CellDiameter, SplitSettings

from . import conftest

CELLS = np.zeros((48, 64), np.uint16)
CELLS[4:20, 4:20], CELLS[24:44, 8:28], CELLS[6:18, 40:60] = 1, 2, 3

refused = partial(conftest.refused, "cellseg-tune")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="cellseg-tune")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures of cells whose rims are dim, and a table that names their stain."""
    folder = tmp_path / "data"
    for name in ("image", "label"):
        (folder / name).mkdir(parents=True)
    for index, name in enumerate("ab"):
        picture = np.where(CELLS > 0, 90, 20).astype(np.uint8)
        picture[cv2.erode((CELLS > 0).astype(np.uint8), np.ones((5, 5))) > 0] = 220
        picture[46, 3 + index] = 240
        cv2.imwrite(str(folder / "image" / f"{name}.png"), picture)
        cv2.imwrite(str(folder / "label" / f"{name}.png"), CELLS)
    (folder / "index.csv").write_text("name,stain\na.png,dark\nb.png,bright\n")
    return folder


def test_writes_the_model_with_better_settings(data: Path, bright_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "tuned.onnx"
    options = ("--engine", bright_model, "--trials", 100, "--jobs", 1, "-o", output)
    result = run(data, *options, "--groups", data / "index.csv", "--by", "stain")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"written: {output}"
    before, after = load_spec(bright_model), load_spec(output)
    assert after.split.mask_threshold < 90 < before.split.mask_threshold
    assert after == before.model_copy(update={"split": after.split, "diameter": after.diameter})
    # Of circles as large as the cells of 16 × 16, 20 × 20 and 12 × 20 pixels, the middle one.
    assert after.diameter == CellDiameter(median=18.1, low=9.0, high=36.1)
    assert "cells: 18.1 pixels across; 9 to 36.1 are served" in result.stdout
    assert "bright, before" in result.stdout
    assert f"next: cellseg-infer IMAGE --engine {output} -o results\n" in result.stderr
    (row,) = (line.split() for line in result.stdout.splitlines() if "IoU 0.75" in line)
    assert float(row[-1]) > float(row[-2])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    again = run(data, "--engine", output, "--trials", 1, "-o", output, "--overwrite")  # in its own place
    assert again.exit_code == 0, again.output
    assert load_spec(output) == after
    assert "pixels across" not in again.stdout, "what a model knows is kept"
    larger = run(data, "--engine", output, "--trials", 1, "--diameter", 9.05)
    assert larger.exit_code == 0, larger.output


def test_writes_settings_alone_or_nothing(data: Path, bright_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "split.json"
    options = ("--engine", bright_model, "--trials", 20, "--jobs", 1, "--fix", "mask_threshold")
    result = run(data, *options, "-o", target)
    assert result.exit_code == 0, result.output
    assert f"next: cellseg-export CHECKPOINT --split {target}\n" in result.stderr
    found = SplitSettings.model_validate(json.loads(target.read_text()))
    assert found.mask_threshold == load_spec(bright_model).split.mask_threshold
    target.unlink()
    result = run(data, *options, "--groups", data / "index.csv", "--by", "stain", "--only", "dark")
    assert result.exit_code == 0, result.output
    assert "nothing was written" in result.stderr
    assert "bright" not in result.stdout
    assert not target.exists()


def test_learns_rules_unless_told_not_to(bright_model: Path, tmp_path: Path) -> None:
    """Stains are as large as cells and only dimmer; a threshold that is fixed lets both pass."""
    for index in range(5):
        picture = np.where(CELLS > 0, 230, 20).astype(np.uint8)
        picture[28:44, 36 + index : 54 + index] = 170
        for name, each in (("image", picture), ("label", CELLS)):
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), each)
    target = tmp_path / "split.json"
    options = ("--engine", bright_model, "--trials", 1, "--jobs", 1, "--fix", "mask_threshold", "-o", target)
    options = (*options, "--overwrite")
    result = run(tmp_path, *options)
    assert result.exit_code == 0, result.output
    found = SplitSettings.model_validate(json.loads(target.read_text()))
    assert found.score is not None
    assert found.score.minimum > 0
    assert "score.minimum" in result.stdout
    (row,) = (line.split() for line in result.stdout.splitlines() if "IoU 0.50" in line)
    assert (float(row[-2]), float(row[-1])) == (0.75, 1)
    result = run(tmp_path, *options, "--no-rules")
    assert result.exit_code == 0, result.output
    found = SplitSettings.model_validate(json.loads(target.read_text()))
    assert found.join is found.score is None


def test_what_cannot_be_is_said_before_any_work(data: Path, bright_model: Path, tmp_path: Path) -> None:
    model = ("--engine", bright_model)
    refused(run(data, *model, "--model", "nuclei"), "exclude each other", code=2)
    refused(run(data, *model, "--only", "dark"), "--groups and --by", code=2)
    refused(run(data, *model, "-o", tmp_path / "m.plan"), "m.plan: must end in .onnx", code=2)
    refused(run(data, *model, "-o", tmp_path), "must end in", code=2)
    refused(run(data, *model, "--fix", "colour"), "--fix colour: this model has", "mask_threshold", code=2)
    refused(run(data, *model, "--diameter", "-1"), "--diameter is '-1'; wanted", "auto or none", code=2)
    refused(run(data, *model, "--diameter", 20), "model 'bright' does not say how large", code=2)
    table = ("--groups", data / "index.csv", "--by", "stain")
    refused(run(data, *model, *table, "--only", "red"), "--only red: no picture", "bright, dark", code=2)
    refused(run(tmp_path / "none", *model), "none/label: no such folder")
    plan = tmp_path / "m.plan"
    plan.write_bytes(b"x")
    refused(run(data, "--engine", plan, "-o", tmp_path / "t.onnx"), "m.plan is no ONNX file", code=2)


def test_data_that_do_not_serve_are_named(data: Path, bright_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "tuned.onnx"
    output.write_bytes(b"kept")
    options = ("--engine", bright_model, "-o", output)
    refused(run(data, *options), "tuned.onnx: exists already; replace it with --overwrite", code=2)
    options = (*options, "--overwrite")
    cv2.imwrite(str(data / "image" / "b.png"), np.zeros((9, 64), np.uint8))
    refused(run(data, *options), "b.png: 9 rows × 64 columns", "48 × 64")
    (data / "image" / "b.png").unlink()
    refused(run(data, *options), "b.png without a partner")
    (data / "label" / "b.png").unlink()
    cv2.imwrite(str(data / "label" / "a.png"), np.zeros_like(CELLS))
    refused(run(data, *options), "no cell in any label image")
    assert output.read_bytes() == b"kept"
