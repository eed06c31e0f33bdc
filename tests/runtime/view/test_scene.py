import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tifffile

from cellseg.runtime import segment
from cellseg.runtime.errors import CellsegError, DataError, OutputError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.results import stored
from cellseg.runtime.results.result import Result
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec
from cellseg.runtime.view.scene import Scene
from cellseg.runtime.view.server import _json, describe

from ...conftest import DISCS


@pytest.fixture
def scene(finished):
    with Scene(finished) as opened:
        yield opened


def test_what_it_knows(scene):
    assert (scene.name, scene.height, scene.width, scene.count) == ("discs.tif", 900, 1200, len(DISCS))
    assert scene.pixel_size == 0.5
    assert scene.missing is None
    assert set(scene.planes) >= {"mask"}
    assert {"area", "score", "density"} <= set(scene.column_names)
    assert "label" not in scene.column_names


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize(("y", "x"), [(-1, -1), (10, 20), (880, 1190)])
def test_labels_are_those_of_the_file(scene, y, x, step):
    whole = Result.open(scene.folder).labels[::step, ::step]
    padded = np.pad(whole, 1300)
    assert np.array_equal(scene.labels_at(y, x, 50, 60, step), padded[1300 + y :, 1300 + x :][:50, :60])


def test_labels_below_the_last_level(scene):
    whole = Result.open(scene.folder).labels
    assert np.array_equal(scene.labels_at(0, 0, 57, 75, 16), whole[::16, ::16])


def test_cells_by_number_and_place(scene):
    labels = Result.open(scene.folder).labels
    for x, y, radius in DISCS:
        row = scene.row(int(labels[y, x]))
        assert abs(row["centroid_x"] - x) < 1
        assert abs(row["area"] - np.pi * radius**2) < 0.1 * np.pi * radius**2
        y0, x0, y1, x1 = scene.box(row["label"])
        assert y0 <= y < y1
        assert x0 <= x < x1
    assert scene.row(999) is None
    assert scene.box(0) is None


def test_density_counts_neighbours(scene):
    density = scene.column("density")
    near = [scene.index_of(int(scene.labels_at(y, x, 1, 1)[0, 0])) for x, y, _ in (DISCS[2], DISCS[5])]
    alone = scene.index_of(int(scene.labels_at(40, 1180, 1, 1)[0, 0]))
    assert density[near[0]] == density[near[1]] == pytest.approx(2 * density[alone])


def test_picture_and_planes_are_reduced(scene):
    part = scene.picture_at(Region(0, 0, 900, 1200), 4)
    assert part.shape == (225, 300, 3)
    assert part[DISCS[1][1] // 4, DISCS[1][0] // 4].min() > 200
    assert part[0, 0].max() < 40
    plane = scene.plane_at("mask", Region(512, 512, 388, 512), 2)
    assert plane.shape == (194, 256)
    assert plane[(610 - 512) // 2, (610 - 512) // 2] > 200
    assert scene.plane_at("nothing", Region(0, 0, 9, 9), 1) is None


def test_the_image_has_moved(finished, tmp_path):
    there = tmp_path / "moved"
    shutil.copytree(finished, there / "out")
    image = finished.parent / "discs.tif"
    aside = image.rename(image.with_name("elsewhere.tif"))
    try:
        with Scene(there / "out") as scene:
            assert "say where it is with --image" in scene.missing
            assert scene.picture_at(Region(0, 0, 9, 9), 1) is None
            assert scene.labels_at(0, 0, 900, 1200).max() == len(DISCS)
        with Scene(there / "out", str(aside)) as scene:
            assert scene.missing is None
    finally:
        aside.rename(image)


def test_names_that_are_no_utf8_and_other_working_directories(tmp_path, monkeypatch):
    image = Path(os.fsdecode(b"10\xb5m.tif"))
    picture = np.full((300, 300), 10, np.uint8)
    cv2.circle(picture, (100, 90), 12, 230, -1)
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite(image, picture)
    out = tmp_path / os.fsdecode(b"r\xe9s")
    with LocalEngine(local_spec(1), 1) as engine:
        segment(image, engine, output=out)
    (tmp_path / "elsewhere").mkdir()
    for place in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(place)
        with Scene(out) as scene:
            assert (scene.missing, scene.name, scene.count) == (None, "10µm.tif", 1)
            assert scene.row(1)["area"] > 300
            assert scene.labels_at(90, 100, 1, 1)[0, 0] == 1
            assert scene.picture_at(Region(0, 0, 300, 300), 1)[90, 100, 0] > 200
            said = json.loads(_json([describe(scene)]).body)[0]
            assert (said["folder"], said["missing"]) == ("rés", None)
    image = tmp_path / image
    image.unlink()
    with Scene(out) as scene:
        assert json.loads(_json(describe(scene)).body)["missing"].startswith("10µm.tif is not there any more")


def test_middle_zooms_come_from_the_reduced_picture(finished, monkeypatch):
    monkeypatch.setattr("cellseg.runtime.view.scene.OVERVIEW_EDGE", 240)
    with Scene(finished) as scene:
        near = scene.picture_at(Region(0, 0, 512, 512), 2)
        assert "_overview" not in vars(scene)
        # 1,200 pixels at a fourth are 300: the reduced picture of 240 is enlarged by 1.25.
        part = scene.picture_at(Region(0, 0, 512, 512), 4)
        assert "_overview" in vars(scene)
    assert part.shape == (128, 128, 3)
    wanted = cv2.resize(near, (128, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(part.astype(int) - wanted).mean() < 4


def test_another_image(finished, tmp_path):
    tifffile.imwrite(tmp_path / "small.tif", np.zeros((40, 50), np.uint8))
    with pytest.raises(DataError, match="40×50 pixels, the result 900×1200: it is another image"):
        Scene(finished, str(tmp_path / "small.tif"))


def test_no_result(tmp_path):
    with pytest.raises(OutputError, match="holds no results"):
        Scene(tmp_path)


def test_unknown_column(scene):
    with pytest.raises(CellsegError, match="has no column 'size'"):
        scene.column("size")


def test_tables_that_stand_for_far_more_than_they_hold(finished, tmp_path, monkeypatch):
    """A few bytes of Parquet may unpack to a billion rows."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    zeros = pyarrow.table({name: np.zeros(1_000_000) for name in ("label", "area")})
    with pyarrow.parquet.ParquetWriter(folder / "cells.parquet", zeros.schema) as writer:
        for _ in range(4):
            writer.write_table(zeros)
    with pytest.raises(DataError, match=r"its table has 4,000,000 rows, its record names 6 cells"):
        Scene(folder)
    monkeypatch.setattr(stored, "machine_memory", lambda: 100_000_000)
    with pytest.raises(OutputError, match=r"4,000,000 rows of 2 columns take 0\.1 GB, more than half"):
        Scene(folder)
    with pytest.raises(OutputError, match="more than half"):
        Result.open(folder).table  # noqa: B018
