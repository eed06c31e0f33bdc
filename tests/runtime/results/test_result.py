"""Results read back are those that were made, in every format; what is no result is one line."""

import doctest
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from cellseg.runtime import Result, segment
from cellseg.runtime.errors import OutputError, UsageError
from cellseg.runtime.results import result as results
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec


@pytest.fixture
def picture() -> np.ndarray:
    image = np.zeros((90, 120), np.uint8)
    for number, centre in enumerate([(20, 20), (60, 30), (100, 60), (30, 70), (80, 80)]):
        cv2.circle(image, centre, 6 + number, 230, -1)
    return np.stack([image, image // 2], axis=2)


@pytest.fixture
def engine() -> LocalEngine:
    return LocalEngine(local_spec(1, heads=("mask", "boundary")), 1)


@pytest.mark.parametrize("labels", ["zarr", "tiff", "png"])
def test_a_folder_and_memory_are_the_same(
    picture: np.ndarray, engine: LocalEngine, tmp_path: Path, labels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellseg.runtime.writers.pyramid.SMALLEST", 50)  # reduced copies of small images
    options = {"channels": [0], "pixel_size": 0.5, "tile": 40}
    inside = segment(picture, engine, **options)
    made = segment(picture, engine, output=tmp_path / "out", labels=labels, probabilities=True, **options)
    for found in (made, Result.open(tmp_path / "out"), Result.open(str(tmp_path / "out"))):
        assert (found.count, found.height, found.width) == (5, 90, 120)
        assert found.labels.dtype == np.int32
        np.testing.assert_array_equal(found.labels, inside.labels)
        np.testing.assert_array_equal(found.levels[0][10:30, 5:40], inside.labels[10:30, 5:40])
        assert len(found.levels) == (1 if labels == "png" else 3)
        if labels != "png":
            np.testing.assert_array_equal(found.levels[1][:], inside.labels[::2, ::2])
        assert list(found.cells.columns) == list(inside.cells.columns)
        for name, values in inside.cells.columns.items():
            np.testing.assert_array_equal(found.cells.columns[name], values, name)
            assert found.cells.columns[name].dtype == values.dtype
        np.testing.assert_array_equal(found.cells.outline, inside.cells.outline)
        np.testing.assert_array_equal(found.cells.outline_start, inside.cells.outline_start)
        assert list(found.table) == list(inside.table)
        for name, values in inside.table.items():
            np.testing.assert_array_equal(found.table[name], values, name)
        assert found.planes is not None
        assert found.planes[0].shape == (2, 90, 120)
        assert found.record == made.record
        assert found.notes == made.notes
        assert [kind for *_, kind in found.to_napari()] == ["labels", "points", "shapes"]
    assert inside.planes is None
    assert made.folder == tmp_path / "out"


def test_outlines_between_pixels_come_back(engine: LocalEngine, tmp_path: Path) -> None:
    spec = local_spec(1).model_copy(update={"pixel_size": 0.25})
    image = np.zeros((60, 60), np.uint8)
    cv2.circle(image, (30, 30), 9, 230, -1)
    options = {"pixel_size": 0.5, "tile": 40}
    inside = segment(image, LocalEngine(spec, 1), **options)
    outside = segment(image, LocalEngine(spec, 1), output=tmp_path / "out", **options)
    assert inside.cells.outline.dtype.kind == "f"
    np.testing.assert_allclose(outside.cells.outline, inside.cells.outline, atol=0.005)


def test_without_cells(engine: LocalEngine, tmp_path: Path) -> None:
    segment(np.zeros((20, 30), np.uint8), engine, output=tmp_path / "out")
    found = Result.open(tmp_path / "out")
    assert len(found.cells) == len(found.table["area"]) == 0
    assert found.cells.outline.shape == (0, 2)
    assert found.planes is None


def read_all(folder: Path) -> None:
    found = Result.open(folder)
    _ = found.labels, found.cells


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: shutil.rmtree(folder),
            "no such folder; name a folder of results, which holds run.json",
        ),
        (lambda folder: (shutil.rmtree(folder), folder.write_text("")), "is a file; name a folder"),
        (lambda folder: (folder / "run.json").unlink(), "holds no results .*; name one that cellseg-infer"),
        (lambda folder: (folder / "run.json").write_bytes(b"\xff\xfe"), "run.json: cannot be read"),
        (lambda folder: (folder / "run.json").write_text('{"format": 7}'), "run.json: has format 7"),
        (lambda folder: shutil.rmtree(folder / "labels.ome.zarr"), "labels.ome.zarr: is missing from these"),
        (lambda folder: (folder / "cells.parquet").unlink(), "cells.parquet: is missing from these results"),
        (lambda folder: (folder / "cells.parquet").write_text(""), "cells.parquet: cannot be read"),
        (lambda folder: (folder / "cells.geojson.gz").write_text("{"), "cells.geojson.gz: cannot be read"),
    ],
)
def test_what_is_no_result(change, message, picture: np.ndarray, engine: LocalEngine, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    segment(picture, engine, output=folder, channels=[0])
    change(folder)
    with pytest.raises(OutputError, match=message) as caught:
        read_all(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_of_results_is_not_a_result(
    picture: np.ndarray, engine: LocalEngine, tmp_path: Path
) -> None:
    segment(picture, engine, output=tmp_path / "all" / "one", channels=[0])
    with pytest.raises(OutputError, match=r"all: holds no results .*; did you mean .*all/one"):
        Result.open(tmp_path / "all")


def test_resume_returns_what_is_finished(picture: np.ndarray, engine: LocalEngine, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", picture[..., 0])
    for image in (tmp_path / "a.tif", picture[..., 0]):
        out = tmp_path / ("file" if isinstance(image, Path) else "array")
        first = segment(image, engine, output=out, resume=True)
        again = segment(image, engine, output=out, resume=True, workers=1)
        assert again.record == first.record
        with pytest.raises(UsageError, match=r"holds other results: mpp was not given, now 0\.5"):
            segment(image, engine, output=out, resume=True, pixel_size=0.5)
    with pytest.raises(UsageError, match="the image has changed: it was values "):
        segment(picture[..., 0] + 1, engine, output=tmp_path / "array", resume=True)
    with pytest.raises(OutputError, match="exists; replace it with overwrite=True"):
        segment(picture[..., 0], engine, output=tmp_path / "array")


def test_limits_of_a_format_are_known_before_the_slide_is_read(
    picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellseg.runtime.writers.formats.MAX_PNG_PIXELS", 90 * 120 - 1)
    with (
        LocalEngine(local_spec(1), 1, fail_at=0) as engine,
        pytest.raises(OutputError, match=r"90×120 pixels are too many for a PNG .*; choose labels='zarr'"),
    ):
        segment(picture, engine, output=tmp_path / "out", labels="png", channels=[0])
    monkeypatch.setattr("cellseg.runtime.writers.formats.MAX_PNG_PIXELS", 1 << 20)
    monkeypatch.setattr("cellseg.runtime.writers.formats.MAX_PNG_LABEL", 2)
    with (
        LocalEngine(local_spec(1), 1) as engine,
        pytest.raises(OutputError, match=r"3 cells are too many for a 16-bit PNG|[45] cells are too many"),
    ):
        segment(picture, engine, output=tmp_path / "out", labels="png", channels=[0], tile=20)
    assert not list(tmp_path.iterdir())


def test_the_report_lists_what_there_is(picture: np.ndarray, engine: LocalEngine, tmp_path: Path) -> None:
    segment(picture, engine, output=tmp_path / "out", labels="tiff", csv=True, channels=[0])
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        "cells.csv", "cells.geojson.gz", "cells.parquet", "density.png", "labels.ome.tif", "overview.png",
        "report.html", "run.json",
    }  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for name in files - {"report.html", "run.json"}:
        assert f"<th scope=row>{name}<td>" in page
    assert json.loads((tmp_path / "out" / "run.json").read_text())["options"]["labels"] == "tiff"


def test_examples() -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(results.Result, "Result", globs={})
    assert doctest.DocTestRunner().run(example).failed == 0
