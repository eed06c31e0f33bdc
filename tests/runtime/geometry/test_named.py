"""Regions of interest by name."""

import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.runtime.geometry.named import NamedRegions
from cellseg.runtime.geometry.regions import Polygons
from cellseg.runtime.geometry.tiling import Region


def square(y, x, size):
    return [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]


def feature(ring, **properties):
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


@pytest.fixture
def read(tmp_path):
    def read(*features):
        path = tmp_path / "a.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        return Polygons.read(path, 1000, 1000)

    return read


def test_regions_are_called_by_name_then_by_class_then_by_number(read):
    polygons = read(
        feature(square(0, 0, 10), name="left\n edge", classification={"name": "Tumor"}),
        feature(square(0, 20, 10), classification={"names": ["Tumor", "Positive"]}),
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [1, 2]},
            "properties": {"name": "no"},
        },
        feature(square(0, 40, 10)),
        feature([], name="empty"),
        feature(square(0, 60, 10), name="  ", classification="Stroma"),
        feature(square(0, 80, 10), name="\ud800"),
    )
    assert polygons.names == ("left edge", "Tumor: Positive", "region 3", "Stroma", "?")
    assert polygons.scaled(2, 3).names == polygons.names
    assert Polygons([[np.zeros((3, 2))]] * 2).names == ("region 1", "region 2")


def test_pieces_of_one_name_are_one_region_and_the_smallest_holds(read):
    polygons = read(
        feature(square(0, 0, 100), name="inner"),
        feature(square(0, 0, 400), name="outer"),
        feature(square(500, 500, 50), name="inner"),
        feature(square(520, 520, 50), name="inner"),
        feature(square(-5000, -5000, 100), name="beyond"),
    )
    regions = NamedRegions(polygons, 1000, 1000)
    assert regions.names == ("inner", "outer", "beyond")
    assert regions.pixels == (100**2 + 2 * 50**2 - 30**2, 400**2, 0)
    y, x = np.array([[50, 50], [50, 150], [530, 530], [565, 565], [900, 900]], float).T
    innermost, counts = regions.assign(y, x)
    assert innermost.tolist() == [0, 1, 0, 0, -1]
    assert counts.tolist() == [3, 2, 0]
    none, zero = regions.assign(np.empty(0), np.empty(0))
    assert len(none) == 0
    assert zero.tolist() == [0, 0, 0]


corners = st.lists(st.tuples(st.integers(-10, 50), st.integers(-10, 50)), min_size=3, max_size=8)


@settings(max_examples=60)
@given(corners, st.integers(0, 99))
def test_a_point_is_held_as_the_pixel_and_as_shapely_says(ring, seed):
    polygons = Polygons([[np.array(ring, float)]])
    mask = polygons.inside(Region(0, 0, 40, 40))
    mask = np.ones((40, 40), bool) if mask is None else mask
    y, x = (axis.reshape(-1) + 0.5 for axis in np.mgrid[:40, :40])
    assert np.array_equal(polygons.holding(y, x).reshape(40, 40), mask)
    shape = shapely.Polygon(ring)
    if shape.is_valid:
        x, y = np.random.default_rng(seed).uniform(-15, 55, (2, 200))
        assert np.array_equal(polygons.holding(y, x), shapely.contains_xy(shape, x, y))


def test_many_points_and_edges_are_compared_in_parts(monkeypatch):
    turn = np.linspace(0, 2 * np.pi, 500, endpoint=False)
    polygons = Polygons([[100 + 80 * np.stack([np.cos(turn), np.sin(turn)], axis=1)]])
    y, x = np.random.default_rng(0).uniform(0, 200, (2, 3000))
    whole = polygons.holding(y, x)
    assert whole.mean() == pytest.approx(np.pi * 80**2 / 200**2, abs=0.03)
    monkeypatch.setattr("cellseg.runtime.geometry.regions._COMPARED", 1000)
    assert np.array_equal(polygons.holding(y, x), whole)
