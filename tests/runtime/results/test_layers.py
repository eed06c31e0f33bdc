"""Layers for napari, checked against what its documentation says of LayerData; napari is not needed."""

import doctest

import cv2
import numpy as np
import pytest
import shapely
import tifffile

from cellseg.runtime import segment
from cellseg.runtime.results import result as results
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec


@pytest.fixture
def image():
    picture = np.zeros((90, 120), np.uint8)
    for number, centre in enumerate([(20, 20), (60, 30), (100, 60), (30, 70)]):
        cv2.circle(picture, centre, 6 + number, 230, -1)
    return picture


@pytest.mark.parametrize("where", ["memory", "folder", "pyramid", "tiff"])
def test_layers_lie_on_each_other(image, tmp_path, where, monkeypatch):
    if where == "pyramid":
        monkeypatch.setattr("cellseg.runtime.writers.pyramid.SMALLEST", 50)
    tifffile.imwrite(tmp_path / "a.tif", image)
    output = None if where == "memory" else tmp_path / "out"
    with LocalEngine(local_spec(1), 1) as engine:
        options = {"output": output, "labels": "tiff" if where == "tiff" else "zarr"}
        result = segment(tmp_path / "a.tif", engine, pixel_size=0.5, **options)
    labels, points, shapes = result.to_napari()
    assert [kind for _, _, kind in (labels, points, shapes)] == ["labels", "points", "shapes"]
    assert [given["name"] for _, given, _ in (labels, points, shapes)] == [
        "a.tif labels", "a.tif cells", "a.tif outlines",
    ]  # fmt: skip
    assert all(given["scale"] == (0.5, 0.5) for _, given, _ in (labels, points, shapes))
    assert labels[1].get("multiscale", False) == (where == "pyramid")
    found = np.asarray(labels[0][0] if where == "pyramid" else labels[0])
    assert np.array_equal(found, result.labels)
    assert found.max() == 4
    numbers = points[1]["features"]["label"]
    assert points[0].shape == (4, 2)
    assert "centroid_y" not in points[1]["features"]
    assert len(shapes[0]) == len(shapes[1]["features"]["area"]) == 4
    for number, centre, ring in zip(numbers, points[0], shapes[0], strict=True):
        y, x = np.nonzero(found == number)
        assert centre == pytest.approx([y.mean(), x.mean()])
        outline = shapely.Polygon(ring)
        assert outline.is_valid
        assert outline.area == len(y)
        assert shapely.contains_xy(outline, y, x).all()
    assert len(result.to_napari(outlines=False)) == 2


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_whole_cells_are_a_layer_below(image, tmp_path, where):
    with LocalEngine(local_spec(1), 1) as engine:
        output = None if where == "memory" else tmp_path / "out"
        result = segment(image, engine, output=output, pixel_size=0.5, expand=2)
    whole, labels, *_ = result.to_napari()
    assert [given["name"].split(" ", 1)[1] for _, given, _ in (whole, labels)] == ["whole cells", "labels"]
    np.testing.assert_array_equal(np.asarray(whole[0]), result.cell_labels)
    np.testing.assert_array_equal(np.asarray(labels[0]), result.labels)
    assert (np.asarray(whole[0]) > 0).sum() > (result.labels > 0).sum()
    assert whole[1]["features"]["cell_area"].tolist() == labels[1]["features"]["cell_area"].tolist()


def test_without_cells_and_without_scale():
    with LocalEngine(local_spec(1), 1) as engine:
        labels, points, shapes = segment(np.zeros((20, 30), np.uint8), engine).to_napari()
    assert labels[1]["scale"] == (1, 1)
    assert points[0].shape == (0, 2)
    assert shapes[0] == []


def test_the_example_runs():
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(results.Result.to_napari, "to_napari", globs={})
    assert doctest.DocTestRunner().run(example).failed == 0
