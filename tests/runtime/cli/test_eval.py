"""``cellseg-eval`` on label folders: figures, groups, files, and one clear line where it cannot."""

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result

from cellseg.runtime.cli.eval import main
from cellseg.runtime.model.onnx_metadata import load_spec, respecify
from cellseg.runtime.model.spec import CellDiameter

from . import conftest

CELLS = np.zeros((24, 32), np.uint16)
CELLS[2:10, 2:10], CELLS[12:20, 4:14], CELLS[3:9, 20:30] = 1, 2, 3

refused = partial(conftest.refused, "cellseg-eval")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="cellseg-eval")


def write(folder: Path, **labels: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in labels.items():
        assert cv2.imwrite(str(folder / f"{name}.png"), array)
    return folder


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    write(tmp_path / "truth" / "label", a=CELLS, b=CELLS, c=CELLS)
    return tmp_path / "truth"


@pytest.fixture
def found(tmp_path: Path) -> Path:
    return write(tmp_path / "found", a=CELLS, b=CELLS * (CELLS > 1), c=np.zeros_like(CELLS))


def test_figures_table_and_json(truth: Path, found: Path, tmp_path: Path) -> None:
    table = tmp_path / "index.csv"
    table.write_text("name,stain\na.png,dark\nb.png,dark\nc.png,bright\n")
    target = tmp_path / "figures.json"
    result = run(truth, "--labels", found, "--groups", table, "--by", "stain", "--json", target)
    assert result.exit_code == 0, result.output
    figures = json.loads(target.read_text())
    wanted = "ap50 ap75 ap90 ap_mean_50_90 pq aji dice iou precision sensitivity count_mae images"
    assert {*wanted.split(), "cells_true", "cells_pred", "ap50_per_image"} <= set(figures)
    assert figures["ap50"] == pytest.approx(5 / 9)
    assert figures["ap50_per_image"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert figures["count_mae"] == pytest.approx(4 / 3)
    assert (figures["images"], figures["cells_true"], figures["cells_pred"]) == (3, 9, 5)
    assert set(figures["groups"]) == {"dark", "bright"}
    assert figures["groups"]["dark"]["ap50"] == pytest.approx(5 / 6)
    assert figures["groups"]["bright"]["dice"] == 0
    head = result.stdout.splitlines()[1].split()
    assert head == ["all", "per", "image", "bright", "dark"]
    assert any(
        line.split() == ["PQ", "0.714", "0.600", "0.000", "0.909"] for line in result.stdout.splitlines()
    )
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_semantic_masks_are_named_once(truth: Path, tmp_path: Path) -> None:
    mask = (CELLS > 0).astype(np.uint8) * 255
    found = write(tmp_path / "masks", a=mask, b=mask, c=mask)
    target = tmp_path / "figures.json"
    result = run(truth, "--labels", found, "--json", target)
    assert result.exit_code == 0
    assert result.stderr.count("masks without cell numbers") == 1
    assert str(found) in result.stderr
    assert json.loads(target.read_text())["ap95"] == 1


def test_missing_folders(truth: Path, found: Path, tmp_path: Path) -> None:
    refused(run(tmp_path / "nowhere", "--labels", found), "nowhere/label: no such folder")
    refused(run(truth, "--labels", tmp_path / "nowhere"), "nowhere: no such folder")
    refused(run(truth, "--labels", tmp_path), f"{tmp_path}: no label images found")


def test_missing_partners(truth: Path, found: Path) -> None:
    (found / "b.png").rename(found / "d.png")
    refused(run(truth, "--labels", found), "label: b.png without a partner", f"in {found}")
    (found / "b.png").write_bytes((found / "a.png").read_bytes())
    refused(run(truth, "--labels", found), f"{found}: d.png without a partner", "truth/label")


def test_size_mismatch(truth: Path, found: Path) -> None:
    write(found, b=CELLS[:20])
    refused(run(truth, "--labels", found), "b.png: 20 rows × 32 columns", "24 × 32", "one size")


@pytest.mark.parametrize("array", [np.zeros((24, 32, 3), np.uint8), np.full((24, 32), 0.5, np.float32)])
def test_labels_of_another_kind(truth: Path, found: Path, array: np.ndarray) -> None:
    (found / "b.png").unlink()
    cv2.imwrite(str(found / "b.tif"), array)
    refused(run(truth, "--labels", found), f"b.tif: found {array.dtype}", "wanted one integer channel")


def test_damaged_label_leaves_no_json(truth: Path, found: Path, tmp_path: Path) -> None:
    (found / "c.png").write_bytes(b"")
    refused(run(truth, "--labels", found, "--json", tmp_path / "f.json"), "c.png: cannot be read")
    assert not (tmp_path / "f.json").exists()


def test_groups_must_fit(truth: Path, found: Path, tmp_path: Path) -> None:
    table = tmp_path / "index.csv"
    table.write_text("name,stain\na,dark\nb,dark\n")
    refused(run(truth, "--labels", found, "--groups", table, "--by", "stain"), "index.csv: no row for c.png")
    refused(run(truth, "--labels", found, "--groups", table, "--by", "x"), "no column 'x'; found name, stain")
    refused(run(truth, "--labels", found, "--groups", table), "--groups and --by belong together", code=2)


def test_usage(truth: Path, found: Path, tmp_path: Path) -> None:
    refused(run(truth, "--labels", found, "--model", "nuclei"), "exclude each other", code=2)
    refused(run(truth, "--labels", found, "--json", tmp_path / "no" / "f.json"), "its folder does not exist")
    refused(run(), "Missing argument 'DIR'", code=2)


@pytest.fixture
def pictures(truth: Path) -> Path:
    """``truth`` with pictures in which the cells are bright: grey, RGB and 16-bit."""
    grey = np.where(CELLS > 0, 200, 20).astype(np.uint8)
    write(truth / "image", a=grey, b=np.dstack([grey] * 3), c=grey.astype(np.uint16) * 200)
    return truth


def test_runs_a_model(pictures: Path, bright_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    result = run(pictures, "--engine", bright_model, "--json", target)
    assert result.exit_code == 0, result.output
    figures = json.loads(target.read_text())
    assert (figures["images"], figures["cells_true"], figures["cells_pred"]) == (3, 9, 9)
    assert figures["ap95"] == figures["dice"] == 1
    assert figures["source"]["model"] == "bright"


def test_channels_are_chosen_as_for_inference(pictures: Path, bright_model: Path, tmp_path: Path) -> None:
    """A picture of several stains asks for one; the same one is read as inference reads it."""
    plain = json.loads(_figures(pictures, bright_model, tmp_path / "a.json"))
    for path in (pictures / "image").iterdir():
        grey = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        grey = grey if grey.ndim == 2 else grey[:, :, 0]
        path.unlink()
        planes = np.stack([np.zeros_like(grey), grey])
        metadata = {"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI"]}}
        tifffile.imwrite(path.with_suffix(".ome.tif"), planes, photometric="minisblack", metadata=metadata)
    refused(run(pictures, "--engine", bright_model), "for example, --channels DAPI")
    again = json.loads(_figures(pictures, bright_model, tmp_path / "b.json", "--channels", "DAPI"))
    assert again["cells_pred"] == plain["cells_pred"]
    assert again["ap50"] == plain["ap50"]
    refused(
        run(pictures, "--labels", pictures / "label", "--channels", "0"), "--channels is for a model", code=2
    )


def _figures(pictures: Path, model: Path, target: Path, *more: str) -> str:
    result = run(pictures, "--engine", model, "--json", target, *more)
    assert result.exit_code == 0, result.output
    return target.read_text()


def test_a_model_needs_pictures(pictures: Path, bright_model: Path, tmp_path: Path) -> None:
    run_it = partial(run, pictures, "--engine", bright_model, "--json", tmp_path / "f.json")
    picture = pictures / "image" / "b.png"
    picture.rename(pictures / "image" / "d.png")
    refused(run_it(), "label: b.png without a partner", "image;")
    (pictures / "image" / "d.png").unlink()
    picture.write_bytes(b"")
    refused(run_it(), f"{picture}", "empty")
    write(pictures / "image", b=np.zeros((9, 32), np.uint8))
    refused(run_it(), f"{picture}: 9 rows × 32 columns", "24 × 32")
    assert not (tmp_path / "f.json").exists()


def test_models_that_are_none(pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(b"no model at all")
    refused(run(pictures, "--engine", other), "other.onnx: not an ONNX model", "cellseg-export")
    refused(run(pictures, "--engine", tmp_path / "absent.onnx"), "absent.onnx: no such file")
    refused(run(pictures, "--model", "kidneys"), "no packaged model is called 'kidneys'", code=2)
    refused(run(pictures, "--device", "tpu"), "unknown device 'tpu'", code=2)


def test_the_diameter_is_for_a_model(truth: Path, found: Path, bright_model: Path, tmp_path: Path) -> None:
    """Cells three times as large as the model's are found as well where their size is said."""
    refused(run(truth, "--labels", found, "--diameter", 9), "--diameter is for a model", code=2)
    refused(run(truth, "--engine", bright_model, "--diameter", "x"), "--diameter is 'x'; wanted", code=2)
    sized = tmp_path / "sized.onnx"
    known = CellDiameter(median=6, low=5, high=8)
    respecify(bright_model, sized, load_spec(bright_model).model_copy(update={"diameter": known}))
    write(truth / "image", **{name: (CELLS > 0).astype(np.uint8) * 200 for name in "abc"})
    target = tmp_path / "figures.json"
    for said in ((), ("--diameter", 9)):
        result = run(truth, "--engine", sized, *said, "--json", target)
        assert result.exit_code == 0, result.output
    figures = json.loads(target.read_text())
    assert figures["source"]["diameter"] == 9


def test_a_data_set_is_named_by_its_part(tmp_path: Path) -> None:
    (tmp_path / "val" / "label").mkdir(parents=True)
    refused(run(tmp_path), "label: no such folder; did you mean", "/val?")
