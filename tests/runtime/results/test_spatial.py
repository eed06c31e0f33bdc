"""A result as SpatialData. That library is too large for every run: `make test-extras` brings it."""

import cv2
import numpy as np
import pytest
import tifffile

from cellseg.runtime import segment
from cellseg.runtime.errors import DataError
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec

spatialdata = pytest.importorskip("spatialdata", reason="spatialdata is not installed; run make test-extras")


@pytest.fixture(scope="module")
def picture():
    pixels = np.zeros((300, 420, 3), np.uint8)
    for number, centre in enumerate([(20, 20), (60, 30), (100, 60), (30, 70), (300, 250)]):
        cv2.circle(pixels, centre, 6 + number, (200, 230, 210), -1)
    return pixels


@pytest.fixture
def make(picture, tmp_path, monkeypatch):
    monkeypatch.setattr("cellseg.runtime.writers.pyramid.SMALLEST", 50)

    def made(**options):
        tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb", tile=(64, 64))
        with LocalEngine(local_spec(3), 1) as engine:
            return segment(tmp_path / "a.tif", engine, **options)

    return made


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_all_parts_lie_on_each_other(make, picture, where, tmp_path):
    result = make(pixel_size=0.5, output=tmp_path / "out" if where == "folder" else None)
    data = result.to_spatialdata(image=True)
    assert {each[1] for each in data.gen_elements()} == {"image", "labels", "outlines", "cells"}
    labels = data["labels"]
    if where == "folder":
        assert len(labels.children) == len(result.levels) > 1
        assert not isinstance(labels["scale0"]["image"].data, np.ndarray)  # read when it is looked at
        labels = labels["scale0"]["image"]
    assert np.array_equal(np.asarray(labels.data), result.labels)
    assert np.array_equal(np.asarray(data["image"].data), np.moveaxis(picture, 2, 0))
    assert list(data["image"].coords["c"].values) == list(result.record.image.channels)
    # The library's own way from polygons and labels to places, in both systems of coordinates.
    for space, size in (("global", 1.0), ("um", 0.5)):
        extent = spatialdata.get_extent(data["image"], coordinate_system=space)
        assert extent == {"y": (0, 300 * size), "x": (0, 420 * size)}
        of_shapes = spatialdata.get_centroids(data["outlines"], coordinate_system=space).compute()
        of_labels = spatialdata.get_centroids(data["labels"], coordinate_system=space).compute()
        of_table = data["cells"].obsm["spatial" if space == "global" else "spatial_um"]
        assert of_shapes[["x", "y"]].to_numpy() == pytest.approx(of_table)
        assert of_labels.drop(0, errors="ignore")[["x", "y"]].to_numpy() == pytest.approx(of_table)


def test_the_table_annotates_the_labels(make):
    data = make().to_spatialdata()
    assert "um" not in data.coordinate_systems
    assert data["cells"].uns["spatialdata_attrs"] == {
        "region": "labels", "region_key": "region", "instance_key": "label",
    }  # fmt: skip
    _, table = spatialdata.match_element_to_table(data, "labels", "cells")
    assert len(table) == 5
    assert set(data["outlines"].index) == set(data["cells"].obs["label"])


def test_it_can_be_written_and_read_again(make, tmp_path):
    result = make(pixel_size=0.5, output=tmp_path / "out")
    result.to_spatialdata(image=tmp_path / "a.tif").write(tmp_path / "all.zarr")
    again = spatialdata.read_zarr(tmp_path / "all.zarr")
    assert np.array_equal(np.asarray(again["labels"]["scale0"]["image"].data), result.labels)
    assert np.array_equal(again["cells"].X, result.to_anndata().X)


def test_without_cells_outlines_or_picture(tmp_path, make):
    with LocalEngine(local_spec(1), 1) as engine:
        data = segment(np.zeros((20, 30), np.uint8), engine).to_spatialdata()
    assert {each[1] for each in data.gen_elements()} == {"labels", "cells"}
    result = make()
    assert "outlines" not in result.to_spatialdata(outlines=False)
    (tmp_path / "a.tif").unlink()
    with pytest.raises(DataError, match=r"a\.tif is not there any more"):
        result.to_spatialdata(image=True)
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((20, 30), np.uint8))
    with pytest.raises(DataError, match=r"it is another image"):
        result.to_spatialdata(image=tmp_path / "b.tif")
