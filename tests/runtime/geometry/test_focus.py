"""Regions of interest and tissue."""

import gzip
import json

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cellseg.runtime.errors import UsageError
from cellseg.runtime.geometry import regions
from cellseg.runtime.geometry.regions import Polygons
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.geometry.tissue import find_tissue
from cellseg.runtime.readers import ArrayReader, open_slide

SQUARE = [[[10, 20], [50, 20], [50, 60], [10, 60], [10, 20]]]
HOLE = [[[20, 30], [30, 30], [30, 40], [20, 40], [20, 30]]]


def write(path, record):
    path.write_text(json.dumps(record))
    return path


def test_square_with_a_hole(tmp_path):
    geometry = {"type": "Polygon", "coordinates": SQUARE + HOLE}
    for record in (
        geometry,
        {"type": "Feature", "geometry": geometry, "properties": {}},
        {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": geometry}]},
        [{"type": "Feature", "geometry": geometry}, {"type": "Feature", "geometry": None}],
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [1, 2]}, geometry]},
        {"type": "MultiPolygon", "coordinates": [SQUARE + HOLE]},
    ):
        focus = Polygons.read(write(tmp_path / "a.geojson", record), 100, 100)
        wanted = np.zeros((100, 100), bool)
        wanted[20:60, 10:50] = True
        wanted[30:40, 20:30] = False
        assert np.array_equal(focus.inside(Region(0, 0, 100, 100)), wanted)
        assert np.array_equal(focus.inside(Region(25, 5, 30, 40)), wanted[25:55, 5:45])
        assert focus.inside(Region(42, 12, 10, 30)) is None
        assert focus.touches(Region(0, 0, 21, 11))
        assert not focus.touches(Region(0, 0, 20, 100))
        assert not focus.touches(Region(0, 50, 100, 50))
    (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(json.dumps(geometry).encode()))
    assert Polygons.read(tmp_path / "a.geojson.gz", 100, 100).touches(Region(20, 20, 1, 1))


def test_overlapping_areas_are_joined():
    ring = np.array(SQUARE[0], float)
    found = Polygons([[ring], [ring + 20]]).inside(Region(0, 0, 100, 100))
    assert found.sum() == 2 * 1600 - 20 * 20


@given(
    st.lists(st.tuples(st.floats(-20, 80), st.floats(-20, 80)), min_size=3, max_size=8),
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 20), st.integers(1, 20)),
)
@example([(0.0, 0.0), (0.0, 1.0), (1.05e-232, 0.0)], (0, 0, 1, 1))
@settings(max_examples=60, deadline=None)
def test_agrees_with_shapely_and_in_pieces(corners, at):
    ring = np.array(corners)
    focus = Polygons([[ring]])
    everything = Region(0, 0, 60, 60)
    found = focus.inside(everything)
    found = np.ones((60, 60), bool) if found is None else found
    region = Region(*at)
    part = focus.inside(region)
    part = np.ones((region.height, region.width), bool) if part is None else part
    assert np.array_equal(part, found[region.y : region.y1, region.x : region.x1])
    if not focus.touches(region):
        assert not part.any()
    shape = shapely.Polygon(corners)
    edges = np.hypot(*(ring - np.roll(ring, 1, axis=0)).T)
    if not shape.is_valid or not shape.area or ((edges > 0) & (edges < 1e-9)).any():
        return  # shapely's distance divides by the square of an edge
    y, x = np.mgrid[:60, :60] + 0.5
    wanted = shapely.contains_xy(shape, x.ravel(), y.ravel()).reshape(60, 60)
    sure = shapely.distance(shape.boundary, shapely.points(x.ravel(), y.ravel())).reshape(60, 60) > 1e-6
    assert np.array_equal(found[sure], wanted[sure])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as GeoJSON"),
        ("{}", "cannot be read as GeoJSON"),
        ("[1]", "cannot be read as GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "holds no polygon"),
        ('{"type": "Point", "coordinates": [1, 2]}', "holds no polygon"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "fewer than three corners"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, NaN], [2, 2]]]}', "is no number"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, "a"], [2, 2]]]}', "cannot be read as GeoJSON"),
        ('{"type": "Polygon", "coordinates": [[[500, 500], [600, 500], [600, 600]]]}', "none of its 1 areas"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        Polygons.read(tmp_path / "a.geojson", 100, 100)
    assert "\n" not in str(caught.value)


@given(st.lists(st.tuples(st.floats(-20, 80), st.floats(-20, 80)), min_size=3, max_size=6), st.data())
@settings(max_examples=60, deadline=None)
def test_a_rectangle_is_in_out_or_cut(corners, data):
    """The quick answers for rectangles that no edge cuts are those of single pixels."""
    focus = Polygons([[np.array(corners)]])
    region = Region(*(data.draw(st.integers(0, 40)) for _ in range(2)), *(data.draw(st.integers(1, 20)),) * 2)
    pixels = [
        focus.inside(Region(y, x, 1, 1)) is None
        for y in range(region.y, region.y1)
        for x in range(region.x, region.x1)
    ]
    found = focus.inside(region)
    assert pixels == ([True] * region.area if found is None else found.ravel().tolist())
    assert focus.touches(region) or not any(pixels)


def loops(count, corners, size, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(-0.1 * size, 1.1 * size, (corners, 2)) for _ in range(count)]


def test_parts_of_outlines_are_joined_as_they_are(monkeypatch):
    """Long outlines are followed in parts, and rows are kept for the next tile."""
    focus = Polygons([[ring, ring[::-2] / 2] for ring in loops(5, 40, 64)])
    at_once = focus.inside(Region(0, 0, 64, 64))
    monkeypatch.setattr(regions, "_AT_A_TIME", 7)
    assert np.array_equal(focus.inside(Region(0, 0, 64, 64)), at_once)
    for y in range(0, 64, 8):
        for x in range(0, 64, 16):
            part = focus.inside(Region(y, x, 8, 16))
            part = np.ones((8, 16), bool) if part is None else part
            assert np.array_equal(at_once[y : y + 8, x : x + 16], part)


def test_tiles_ask_for_the_edges_of_their_rows_once():
    focus = Polygons([[ring] for ring in loops(3, 100, 64)])
    for x in range(0, 64, 8):
        focus.inside(Region(16, x, 8, 8))
    assert list(focus._bands) == [(16, 24)]
    assert sum(len(edges) for edges in focus._band(16, 24).values()) < 300
    for y in range(0, 64, 8):
        focus.inside(Region(y, 0, 8, 8))
    assert len(focus._bands) == regions._KEPT_BANDS


def test_outlines_that_would_take_hours():
    """A zigzag over a slide; thousands of areas over each other."""
    with pytest.raises(UsageError, match=r"pass through [\d,]{11} rows of pixels in all; at most 2"):
        Polygons.given([loops(1, 60_000, 20_000)[0]], 20_000, 20_000)
    squares = [np.array([[0, 0], [n + 900, 0], [900, 900], [0, 900]]) for n in range(300)]
    with pytest.raises(UsageError, match=r"its 300 areas lie over each other 265 times; at most 200"):
        Polygons.given(squares, 1000, 1000)
    # The same many side by side, or where nobody looks, are no matter.
    Polygons.given(
        [square / 20 + (n % 15 * 60, n // 15 * 45) for n, square in enumerate(squares)], 1000, 1000
    )
    Polygons.given([np.array([[0, 0], [9, 0], [9, 9]])] + [each + 5000 for each in squares], 1000, 1000)


def test_missing_or_cut_file(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        Polygons.read(tmp_path / "none.geojson", 10, 10)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"[]" * 100)[:20])
    with pytest.raises(UsageError, match="cannot be read"):
        Polygons.read(tmp_path / "a.gz", 10, 10)


def slide(tissue):
    rng = np.random.default_rng(0)
    picture = np.full((1500, 2100, 3), 242, np.uint8)
    if tissue:
        cv2.ellipse(picture, (750, 600), (400, 250), 20, 0, 360, (215, 150, 200), -1)
        cv2.circle(picture, (1750, 1250), 40, (120, 80, 160), -1)
    noise = rng.integers(-4, 5, picture.shape, np.int16)
    return ArrayReader(np.clip(picture.astype(np.int16) + noise, 0, 255).astype(np.uint8))


def test_tissue_is_found_and_glass_is_not():
    tissue = find_tissue(slide(True))
    assert tissue.touches(Region(600, 750, 10, 10))
    assert tissue.touches(Region(1240, 1740, 10, 10))
    assert tissue.touches(Region(0, 0, 1500, 2100))
    assert not tissue.touches(Region(0, 0, 200, 200))
    assert not tissue.touches(Region(1250, 50, 200, 1250))
    assert tissue.touches(Region(-50, 700, 1500, 50))
    assert 0.1 < tissue.part < 0.3
    assert not tissue.inside(Region(0, 0, 9, 9)).any()
    assert tissue.inside(Region(600, 750, 9, 9)) is None


def test_glass_alone_has_none():
    assert find_tissue(slide(False)).part < 0.001


def test_everything_counts_where_it_is_not_bright_field():
    dark = ArrayReader(np.full((100, 2100, 3), 20, np.uint8))
    grey = ArrayReader(np.full((100, 2100), 240, np.uint8))
    small = ArrayReader(np.full((300, 300, 3), 240, np.uint8))
    assert [find_tissue(reader) for reader in (dark, grey, small)] == [None] * 3


def test_a_real_slide(shared_data):
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as reader:
        tissue = find_tissue(reader)
    assert 0.3 < tissue.part < 0.6
    assert tissue.touches(Region(1500, 1100, 50, 50))
    assert not tissue.touches(Region(200, 150, 400, 400))
