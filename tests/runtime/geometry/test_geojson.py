"""Areas from GeoJSON: empty ones left out, damaged ones refused in one line."""

import gzip
import json
import os

import numpy as np
import pytest

from cellseg.runtime import segment
from cellseg.runtime.errors import UsageError
from cellseg.runtime.geometry.geojson import read_features
from cellseg.runtime.geometry.regions import Polygons
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec

SQUARE = [[10, 10], [60, 10], [60, 50], [10, 50], [10, 10]]


def write(path, *geometries):
    features = [{"type": "Feature", "geometry": geometry, "properties": {}} for geometry in geometries]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def geometry(kind, coordinates):
    return {"type": kind, "coordinates": coordinates}


@pytest.mark.parametrize(
    ("empty", "count"),
    [
        (geometry("Polygon", []), 1),
        (geometry("Polygon", [[]]), 1),
        (geometry("Polygon", [[], SQUARE]), 1),
        (geometry("MultiPolygon", []), 1),
        (geometry("MultiPolygon", [[]]), 1),
        (geometry("MultiPolygon", [[[]], []]), 2),
        ({"type": "GeometryCollection", "geometries": []}, 0),
        (geometry("Point", [5, 5]), 0),
        (geometry("LineString", []), 0),
        (None, 0),
    ],
)
def test_empty_areas_are_left_out_and_counted(tmp_path, empty, count):
    path = write(tmp_path / "a.geojson", empty, geometry("Polygon", [SQUARE, []]))
    areas = Polygons.read(path, 100, 100)
    assert areas.n_empty == count
    assert [[ring.tolist() for ring in rings] for rings in areas.polygons] == [[SQUARE]]
    with pytest.raises(UsageError, match="draw an area"):
        Polygons.read(write(path, empty), 100, 100)
    with pytest.raises(UsageError, match="draw an area"):
        Polygons.given([[], [np.empty((0, 2))]], 100, 100)


def test_the_user_is_told(tmp_path):
    path = write(tmp_path / "a.geojson", geometry("Polygon", []), geometry("Polygon", [SQUARE]))
    result = segment(np.zeros((64, 64), np.uint8), LocalEngine(local_spec()), roi=path)
    assert "1 of the 2 regions of interest are empty and were left out" in result.notes


@pytest.mark.parametrize(
    "record",
    [
        None, 1, "Polygon", [[]], ["a"], {"type": ["Polygon"]}, {"type": "Feature", "geometry": 5},
        {"type": "FeatureCollection", "features": {"a": 1}}, {"type": "FeatureCollection"},
        geometry("Polygon", None), geometry("Polygon", ""), geometry("Polygon", [""]),
        geometry("Polygon", {}),
        geometry("MultiPolygon", [""]), geometry("MultiPolygon", [SQUARE]), geometry("Polygon", SQUARE),
        geometry("Polygon", [[1, 2, 3]]), geometry("Polygon", [["ab", "cd", "ef"]]),
        geometry("Polygon", [[{}, {}, {}]]), geometry("Polygon", [[[1], [2], [3]]]),
        geometry("Polygon", [[[[1, 2]], [[3, 4]], [[5, 6]]]]), geometry("Polygon", [[[0, 0], [1, 1]]]),
        geometry("Polygon", [[[0, 0], [1, 10**400], [2, 2]]]),
        geometry("Polygon", [[[0, 0], [1, 1e300], [2, 2]]]),
        geometry("Polygon", [[[0, 0], [1, float("inf")], [2, 2]]]), geometry("Polygon", [[None, None, None]]),
        geometry("Polygon", [[[0, 0], [1, 1], [2]]]),
    ],
    ids=lambda record: json.dumps(record)[:40],
)  # fmt: skip
def test_damaged_areas(tmp_path, record):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(record))
    if record in (None, 1):
        path.write_text(str(record))
    with pytest.raises(UsageError, match=r"cannot be read as GeoJSON|draw an area") as caught:
        Polygons.read(path, 100, 100)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 250


def test_bombs_and_what_is_no_file(tmp_path):
    path = tmp_path / "a.geojson.gz"
    path.write_bytes(gzip.compress(b'{"type":"Polygon","coordinates":[' + b"[]," * 8_000_000 + b"[]]}", 9))
    assert path.stat().st_size < 40_000
    with pytest.raises(UsageError, match="of memory; at most"):
        read_features(path)
    path.write_bytes(gzip.compress(b"[" * 200_000))
    with pytest.raises(UsageError, match="too deeply"):
        read_features(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UsageError, match="it is a pipe, wanted a file"):
        read_features(path)
    with pytest.raises(UsageError, match="it is a device, wanted a file"):
        segment(np.zeros((64, 64), np.uint8), LocalEngine(local_spec()), roi="/dev/zero")


def test_a_region_far_beyond_the_image_is_the_whole_image(tmp_path):
    far = [[-9e8, -9e8], [9e8, -9e8], [9e8, 9e8], [-9e8, 9e8]]
    picture = np.zeros((64, 64), np.uint8)
    path = write(tmp_path / "a.geojson", geometry("Polygon", [far]))
    result = segment(picture, LocalEngine(local_spec()), roi=path, output=tmp_path / "out")
    assert result.record.focus.looked_at_part == 1
