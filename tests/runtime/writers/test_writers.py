"""Every writer through the conformance suite, read back with other people's readers."""

import csv
import gzip
import json
import uuid
from dataclasses import replace

import cv2
import numpy as np
import pyarrow.parquet
import pytest
import shapely
import tifffile
import zarr

from cellseg.runtime.errors import OutputError, UsageError
from cellseg.runtime.instances import Cells, Strip
from cellseg.runtime.intensity.classes import NONE, Classes
from cellseg.runtime.options.positive import PositiveRule
from cellseg.runtime.testing.writers import WriterSuite, contents, cut, scene, smallest_files
from cellseg.runtime.writers import CellTable, GeoJson, LabelsZarr, Overview
from cellseg.runtime.writers.columns import Columns
from cellseg.runtime.writers.formats import labels_to_png, labels_to_tiff
from cellseg.runtime.writers.pyramid import pyramid_shapes


class TestLabelsZarr(WriterSuite):
    def create(self, folder, given):
        return LabelsZarr(folder / "labels.ome.zarr", given.height, given.width, pixel_size=0.25)

    def check(self, folder, given):
        group = zarr.open_group(folder / "labels.ome.zarr", mode="r")
        record = group.attrs["ome"]
        assert record["version"] == "0.5"
        assert "image-label" in record
        scales = record["multiscales"][0]
        assert [axis["name"] for axis in scales["axes"]] == ["y", "x"]
        for number, dataset in enumerate(scales["datasets"]):
            step = 2**number
            array = group[dataset["path"]]
            assert array.dtype == np.int32
            assert np.array_equal(array[:], given.labels[::step, ::step])
            assert dataset["coordinateTransformations"][0]["scale"] == [0.25 * step] * 2


class TestSeveralLevels(TestLabelsZarr):
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        monkeypatch.setattr("cellseg.runtime.writers.pyramid.SMALLEST", 90)
        monkeypatch.setattr("cellseg.runtime.writers.labels.CHUNK", 64)
        monkeypatch.setattr("cellseg.runtime.writers.pyramid.CHUNK", 64)
        monkeypatch.setattr("cellseg.runtime.writers.pyramid.SHARD_WIDTH", 256)
        monkeypatch.setattr("cellseg.runtime.writers.pyramid.SHARD_HEIGHT", 128)


class TestParquet(WriterSuite):
    pixel_size = 0.5
    name = "cells.parquet"

    def create(self, folder, given):
        return CellTable(folder / self.name, Columns(given.channel_names, self.pixel_size))

    def read(self, folder):
        return pyarrow.parquet.read_table(folder / self.name).to_pydict()

    def check(self, folder, given):
        found = self.read(folder)
        wanted = given.cells.columns
        assert list(found)[:3] == ["label", "centroid_y", "centroid_x"]
        for name, column in {
            **{name: name for name in wanted if not name.startswith("mean_intensity")},
            "mean_intensity_DAPI": "mean_intensity_0",
            "mean_intensity_CD_3": "mean_intensity_1",
        }.items():
            assert np.allclose(found.pop(name), wanted[column]), name
        if self.pixel_size is not None:
            assert np.allclose(found.pop("area_um2"), wanted["area"] * 0.25)
            assert np.allclose(found.pop("centroid_x_um"), (wanted["centroid_x"] + 0.5) * 0.5)
            assert np.allclose(found.pop("centroid_y_um"), (wanted["centroid_y"] + 0.5) * 0.5)
            assert np.allclose(found.pop("perimeter_um"), wanted["perimeter"] * 0.5)
        assert not found


class TestWithoutScale(TestParquet):
    pixel_size = None


class TestRowGroups(TestParquet):
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        monkeypatch.setattr("cellseg.runtime.writers.table.GROUP", 10)


class TestCsv(TestParquet):
    name = "cells.csv"

    def read(self, folder):
        with (folder / self.name).open(newline="") as file:
            rows = list(csv.reader(file))
        values = {"true": 1.0, "false": 0.0}
        columns = zip(*rows[1:], strict=True) if rows[1:] else [()] * len(rows[0])
        return {
            name: [values[v] if v in values else float(v) for v in column]
            for name, column in zip(rows[0], columns, strict=True)
        }


class TestGeoJson(WriterSuite):
    name = "cells.geojson.gz"

    def create(self, folder, given):
        columns = Columns(given.channel_names, 0.5)
        return GeoJson(folder / self.name, columns, space="image.tif model")

    def check(self, folder, given):
        data = (folder / self.name).read_bytes()
        record = json.loads(gzip.decompress(data) if self.name.endswith("gz") else data)
        assert record["type"] == "FeatureCollection"
        features = record["features"]
        assert len(features) == len(given.cells)
        assert len({feature["id"] for feature in features}) == len(features)
        image = shapely.box(0, 0, given.width, given.height)
        for i, feature in enumerate(features):
            assert feature["type"] == "Feature"
            assert uuid.UUID(feature["id"]).version == 8
            assert feature["properties"]["objectType"] == "detection"
            ring = feature["geometry"]["coordinates"][0]
            assert ring[0] == ring[-1]
            shape = shapely.geometry.shape(feature["geometry"])
            assert shape.is_valid
            assert image.contains(shape) or image.covers(shape)
            assert np.array_equal(ring[:-1], given.cells.ring(i))
            assert shape.area == given.cells.columns["area"][i]
            values = feature["properties"]["measurements"]
            assert values["Label"] == i + 1
            assert values["Area px^2"] == shape.area
            assert values["Area µm^2"] == pytest.approx(shape.area * 0.25)
            assert values["Solidity"] == pytest.approx(given.cells.columns["solidity"][i], abs=1e-4)
            assert values["Mean intensity CD 3+"] == pytest.approx(
                given.cells.columns["mean_intensity_1"][i], abs=0.01
            )


class TestSmallBlocks(TestGeoJson):
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        monkeypatch.setattr("cellseg.runtime.writers.geojson.BLOCK", 10)


class TestPlainGeoJson(TestGeoJson):
    name = "cells.geojson"


class TestOverview(WriterSuite):
    def create(self, folder, given):
        picture = np.full((given.height // 2, given.width // 2, 1), 7, np.uint8)
        return Overview(folder / "overview.png", picture, given.height, given.width)

    def check(self, folder, given):
        found = cv2.imread(str(folder / "overview.png"))
        scale = found.shape[0] / given.height
        drawn = np.any(found != found[0, 0], axis=2) if not len(given.cells) else found.max(2) > 120
        assert drawn.any() == bool(len(given.cells))
        # Every line lies within a pixel or two of the border of a cell.
        border = given.labels != 0
        border &= cv2.erode(border.astype(np.uint8), np.ones((3, 3))) == 0
        edges = np.zeros_like(given.labels, np.uint8)
        for axis in (0, 1):
            edges |= (np.diff(given.labels, axis=axis, append=-1) != 0).astype(np.uint8)
            edges |= np.roll(edges, 1, axis)
        near = cv2.dilate(edges, np.ones((7, 7)))
        near = cv2.resize(near, found.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        assert scale > 0
        assert not (drawn & (near == 0)).any()


def test_dots_where_lines_would_melt(tmp_path):
    given = scene(900, 900, discs=80)
    with Overview(tmp_path / "o.png", np.zeros((100, 100, 3), np.uint8), 4000, 4000) as writer:
        for strip in cut(given, []):
            writer.write(strip)
        writer.commit()
    assert (cv2.imread(str(tmp_path / "o.png")).max(2) > 20).sum() > 40


@pytest.mark.parametrize(("edge", "full"), [(100, 900), (1000, 9000)])
def test_an_overview_in_the_colours_of_classes(tmp_path, edge, full):
    """Lines and dots alike: left positive, right negative; on lines, what has no class is grey."""
    given = scene(900, 900, discs=80)
    columns = given.cells.columns
    index = np.where(columns["centroid_x"] < 450, 1, 0).astype(np.int32)
    lines = full == 900
    if lines:
        index[columns["centroid_y"] < 300] = NONE
    given = replace(given, cells=given.cells.with_column("class", index))
    classes = Classes(PositiveRule.read("dab=0.2"), "mean_od_0", "DAB")
    picture = np.zeros((edge, edge, 3), np.uint8)
    with Overview(tmp_path / "o.png", picture, full, full, classes=classes) as writer:
        for strip in cut(given, []):
            writer.write(strip)
        writer.commit()
    found = cv2.imread(str(tmp_path / "o.png"))[:, :, ::-1].astype(int)
    middle = found.shape[1] * 450 // full
    margin = found.shape[1] * 30 // full
    for colour, part in (
        ((200, 50, 50), found[:, : middle - margin]),
        ((90, 90, 180), found[:, middle + margin :]),
    ):
        drawn = part[part.max(2) > (100 if lines else 20)]
        grey = np.ptp(drawn, axis=1) < 8
        assert grey.any() == lines
        share = drawn[~grey] / drawn[~grey].max(1, keepdims=True)
        assert np.abs(share - np.array(colour) / max(colour)).max() < 0.06


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint16"), (2, "uint8"), (3, "uint8"), (5, "float32")])
def test_overview_of_any_picture(tmp_path, channels, dtype):
    given = scene(200, 300, discs=5)
    picture = (np.random.default_rng(0).random((200, 300, channels)) * 200).astype(dtype)
    with Overview(tmp_path / "o.png", picture, 200, 300) as writer:
        for strip in cut(given, []):
            writer.write(strip)
        writer.commit()
    assert cv2.imread(str(tmp_path / "o.png")).shape == (600, 900, 3)


def test_identifiers_differ_between_images(tmp_path):
    given = scene(200, 300, discs=5)
    ids = []
    for space in ("a", "b", "a"):
        path = tmp_path / f"{len(ids)}.geojson"
        with GeoJson(path, Columns(given.channel_names), space=space) as writer:
            writer.write(cut(given, [])[0])
            writer.commit()
        ids.append({feature["id"] for feature in json.loads(path.read_bytes())["features"]})
    assert ids[0] == ids[2]
    assert not ids[0] & ids[1]


def test_numbers_in_the_text(tmp_path):
    """Extreme values, rounding, and names that need quoting survive."""
    values = [0.0, 0.5, -1.25, 1e-9, 99999.994, 1e300, np.nan, 12.0, 0.05]
    n = len(values)
    columns = {**Cells.empty(1).columns}
    columns = {name: np.zeros(n, column.dtype) for name, column in columns.items()}
    columns["label"] = np.arange(1, n + 1, dtype=np.int32)
    columns["mean_intensity_0"] = np.array(values)
    square = np.array([[0, 0], [2147483647, 0], [7, 7]], np.int32)
    cells = Cells(columns, np.tile(square, (n, 1)), np.arange(n + 1) * 3)
    with GeoJson(tmp_path / "a.geojson", Columns(['a "b" \\ µ\n'])) as writer:
        writer.write(Strip(0, np.zeros((1, 1), np.int32), cells))
        writer.commit()
    features = json.loads((tmp_path / "a.geojson").read_bytes())["features"]
    measures = [feature["properties"]["measurements"] for feature in features]
    # What does not fit, and what is no number, is left out.
    found = [measure.get('Mean intensity a "b" \\ µ\n') for measure in measures]
    assert found == [0, 0.5, -1.25, 0, 99999.99, None, None, 12, 0.05]
    assert [measure["Label"] for measure in measures] == list(range(1, n + 1))
    assert features[0]["geometry"]["coordinates"] == [[[0, 0], [2147483647, 0], [7, 7], [0, 0]]]


def test_labels_out_of_order_or_missing_are_refused(tmp_path):
    given = scene(200, 100, discs=3)
    strips = cut(given, [50, 50])
    with LabelsZarr(tmp_path / "a.zarr", 200, 100) as writer:
        writer.write(strips[0])
        with pytest.raises(UsageError, match="strip at row 100 comes out of order, wanted 50"):
            writer.write(strips[2])
        with pytest.raises(UsageError, match="50 of 200 rows were written"):
            writer.commit()
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize(
    ("size", "shapes"),
    [((1, 1), 1), ((1024, 1024), 1), ((1025, 3), 2), ((4096, 3000), 3), ((100_000, 100_000), 8)],
)
def test_pyramid(size, shapes):
    found = pyramid_shapes(*size)
    assert len(found) == shapes
    assert found[0] == size
    for level, (height, width) in enumerate(found):
        assert (height, width) == (len(range(0, size[0], 2**level)), len(range(0, size[1], 2**level)))


@pytest.fixture
def stored(tmp_path, monkeypatch):
    monkeypatch.setattr("cellseg.runtime.writers.pyramid.SMALLEST", 200)
    given = scene()
    with LabelsZarr(tmp_path / "labels.ome.zarr", given.height, given.width) as writer:
        for strip in cut(given, [90] * 5):
            writer.write(strip)
        writer.commit()
    return given, tmp_path / "labels.ome.zarr"


def test_ome_tiff(stored, tmp_path):
    given, labels = stored
    labels_to_tiff(labels, tmp_path / "labels.ome.tif", pixel_size=0.5)
    with tifffile.TiffFile(tmp_path / "labels.ome.tif") as file:
        assert file.is_ome
        assert file.is_bigtiff
        series = file.series[0]
        assert len(series.levels) == 3
        assert series.dtype == np.int32
        assert series.keyframe.is_tiled
        for number, level in enumerate(series.levels):
            assert np.array_equal(level.asarray(), given.labels[:: 2**number, :: 2**number])
        assert 'PhysicalSizeX="0.5"' in file.ome_metadata


def test_png(stored, tmp_path, monkeypatch):
    given, labels = stored
    labels_to_png(labels, tmp_path / "labels.png")
    assert np.array_equal(cv2.imread(str(tmp_path / "labels.png"), cv2.IMREAD_UNCHANGED), given.labels)
    monkeypatch.setattr("cellseg.runtime.writers.formats.MAX_PNG_LABEL", 5)
    with pytest.raises(OutputError, match="cells are too many for a 16-bit PNG"):
        labels_to_png(labels, tmp_path / "other.png")
    monkeypatch.setattr("cellseg.runtime.writers.formats.MAX_PNG_PIXELS", 5)
    with pytest.raises(OutputError, match="are too many for a PNG"):
        labels_to_png(labels, tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()


@pytest.mark.parametrize("convert", [labels_to_tiff, labels_to_png])
def test_a_conversion_that_fails_leaves_nothing(stored, tmp_path, convert):
    folder = tmp_path / "out"
    folder.mkdir()
    with smallest_files(500), pytest.raises(OutputError, match="cannot be written"):
        convert(stored[1], folder / "labels.any")
    assert contents(folder) == {}


def test_coordinates_between_pixels(tmp_path):
    given = scene(200, 300, discs=5)
    half = Cells(given.cells.columns, given.cells.outline * 0.25, given.cells.outline_start)
    with GeoJson(tmp_path / "a.geojson", Columns(given.channel_names)) as writer:
        writer.write(Strip(0, given.labels, half))
        writer.commit()
    features = json.loads((tmp_path / "a.geojson").read_bytes())["features"]
    for i, feature in enumerate(features):
        assert np.array_equal(feature["geometry"]["coordinates"][0][:-1], half.ring(i))


@pytest.mark.slow
def test_a_file_of_many_cells_loads(tmp_path):
    """A quarter of a million outlines: one JSON document, every outline a valid polygon in its place."""
    given = scene(300, 500, discs=100)
    repeats, rows = 2500, given.height
    path = tmp_path / "cells.geojson.gz"
    with GeoJson(path, Columns(given.channel_names, 0.5)) as writer:
        for number in range(repeats):
            moved = dict(given.cells.columns)
            moved["label"] = moved["label"] + number * len(given.cells)
            for name in ("y0", "y1", "centroid_y"):
                moved[name] = moved[name] + number * rows
            outline = given.cells.outline + np.array([0, number * rows], np.int32)
            writer.write(Strip(number * rows, given.labels, Cells(moved, outline, given.cells.outline_start)))
        writer.commit()
    rings = []

    def keep(found):
        if found.get("type") == "Polygon":
            rings.append(np.array(found["coordinates"][0]))
        return found if found.get("type") == "FeatureCollection" else {}

    record = json.loads(gzip.decompress(path.read_bytes()), object_hook=keep)
    assert len(record["features"]) == len(rings) == repeats * len(given.cells)
    owners = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    polygons = shapely.polygons(shapely.linearrings(np.concatenate(rings).astype(float), indices=owners))
    assert shapely.is_valid(polygons).all()
    assert np.array_equal(shapely.area(polygons), np.tile(given.cells.columns["area"], repeats))
    bounds = shapely.bounds(polygons[-len(given.cells) :])
    assert np.array_equal(bounds[:, 1], given.cells.columns["y0"] + (repeats - 1) * rows)
