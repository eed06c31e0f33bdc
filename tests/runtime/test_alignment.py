"""Known cells at known places through every reader, level and writer, back in slide pixels and µm.

A slide of discs is stored in each format at 0.25 µm a pixel and segmented by the whole pipeline at the
scale of a model (0.2, 0.25, 0.4 or 0.5 µm), with a threshold in place of a network. Then everything
that was written is compared with where the discs are.
"""

import csv
import gzip
import json

import cv2
import numpy as np
import pyarrow.parquet
import pytest
import shapely
import tifffile
import zarr

from cellseg.runtime import segment
from cellseg.runtime.model.spec import SplitSettings
from cellseg.runtime.readers import ArrayReader, open_slide
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec
from cellseg.runtime.writers import DensityMap
from cellseg.runtime.writers.formats import labels_to_png, labels_to_tiff

HEIGHT, WIDTH, PIXEL_SIZE = 331, 444, 0.25
#: y, x and radius of each disc in slide pixels; the centre of pixel (0, 0) is (0, 0).
DISCS = (
    (40.0, 60.0, 14.0),
    (40.5, 140.5, 11.0),
    (170.0, 300.0, 20.0),
    (301.0, 420.0, 16.0),
    (250.0, 33.0, 12.0),
)


def slide():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.min([np.hypot(y - cy, x - cx) - radius for cy, cx, radius in DISCS], axis=0)
    return np.clip(20 + 200 * (0.5 - distance), 20, 220).astype(np.uint8)


def tags():
    return {"resolution": (1e4 / PIXEL_SIZE, 1e4 / PIXEL_SIZE), "resolutionunit": "CENTIMETER"}


def as_tiles(folder, picture):
    tifffile.imwrite(folder / "a.tif", picture, tile=(64, 64), compression="zlib", **tags())
    return open_slide(folder / "a.tif")


def as_pyramid(folder, picture):
    with tifffile.TiffWriter(folder / "a.tif") as file:
        file.write(picture, tile=(64, 64), subifds=1, **tags())
        size = -(-WIDTH // 2), -(-HEIGHT // 2)
        file.write(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), tile=(64, 64), subfiletype=1)
    return open_slide(folder / "a.tif")


def as_strips(folder, picture):
    tifffile.imwrite(folder / "a.tif", picture, rowsperstrip=7, compression="lzw", predictor=True, **tags())
    return open_slide(folder / "a.tif")


def as_planes_of_16_bits(folder, picture):
    stack = np.stack([picture * np.uint16(257)] * 3)
    tifffile.imwrite(folder / "a.tif", stack, photometric="rgb", planarconfig="separate", **tags())
    return open_slide(folder / "a.tif")


def as_imagej_stack(folder, picture):
    stack = np.stack([np.zeros_like(picture), picture])
    size = (1 / PIXEL_SIZE, 1 / PIXEL_SIZE)
    metadata = {"axes": "ZYX", "unit": "um"}
    tifffile.imwrite(folder / "a.tif", stack, imagej=True, resolution=size, metadata=metadata)
    return open_slide(folder / "a.tif", z=1)


def as_openslide(folder, picture):
    vendor = pytest.importorskip("cellseg.runtime.readers.vendor")
    pytest.importorskip("openslide")
    with tifffile.TiffWriter(folder / "a.tif") as file:
        for kind, step in enumerate((1, 2)):
            size = -(-WIDTH // step), -(-HEIGHT // step)
            level = cv2.resize(cv2.merge([picture] * 3), size, interpolation=cv2.INTER_AREA)
            file.write(
                level, photometric="rgb", tile=(64, 64), compression="zlib", subfiletype=kind, **tags()
            )
    reader = vendor.VendorReader(folder / "a.tif")
    assert len(reader.levels) == 2
    return reader


def as_ome(folder, picture):
    metadata = {"axes": "YX", "PhysicalSizeX": PIXEL_SIZE, "PhysicalSizeY": PIXEL_SIZE}
    tifffile.imwrite(folder / "a.ome.tif", picture, metadata=metadata)
    return open_slide(folder / "a.ome.tif")


def as_picture(folder, picture, suffix):
    """Store a format that knows no µm: these are given with ``pixel_size``."""
    cv2.imwrite(str(folder / f"a{suffix}"), picture, [cv2.IMWRITE_WEBP_QUALITY, 101])
    return open_slide(folder / f"a{suffix}")


def as_png(folder, picture):
    return as_picture(folder, picture, ".png")


def as_bmp(folder, picture):
    return as_picture(folder, picture, ".bmp")


def as_webp(folder, picture):
    return as_picture(folder, picture, ".webp")


def as_jpeg(folder, picture):
    return as_picture(folder, picture, ".jpg")


def as_zarr_2(folder, picture):
    return as_zarr(folder, picture, 2)


def as_zarr(folder, picture, version=3):
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=version)
    datasets = []
    for level in range(2):
        part = picture[:: 2**level, :: 2**level]
        group.create_array(str(level), data=part, chunks=(64, 64))
        scale = [PIXEL_SIZE * 2**level] * 2
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    record = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    group.attrs.update({"ome": record} if version == 3 else {"multiscales": record["multiscales"]})
    return open_slide(folder / "a.zarr")


def as_array(folder, picture):
    return ArrayReader(picture, pixel_size=PIXEL_SIZE)


STORES = [
    as_array, as_tiles, as_strips, as_pyramid, as_planes_of_16_bits, as_imagej_stack, as_ome, as_openslide,
    as_png, as_bmp, as_webp, as_jpeg, as_zarr_2, as_zarr,
]  # fmt: skip


@pytest.mark.parametrize("scale", [0.2, 0.25, 0.4, 0.5])
@pytest.mark.parametrize("store", STORES)
def test_cells_are_where_they_are(tmp_path, store, scale, monkeypatch):
    monkeypatch.setattr("cellseg.runtime.writers.pyramid.SMALLEST", 100)
    maps = []

    class Map(DensityMap):
        def commit(self):
            maps.append(self)
            super().commit()

    monkeypatch.setattr("cellseg.runtime.writers.outputs.DensityMap", Map)
    spec = local_spec(0, heads=("mask",), split=SplitSettings(mask_threshold=120)).model_copy(
        update={"pixel_size": scale, "tile": 96}
    )
    folder = tmp_path / "out"
    with store(tmp_path, slide()) as reader, LocalEngine(spec, 0) as engine:
        plain = store in (as_png, as_bmp, as_webp, as_jpeg)
        assert reader.pixel_size == (None if plain else pytest.approx(PIXEL_SIZE))
        given = {"pixel_size": PIXEL_SIZE} if plain else {}
        result = segment(reader, engine, output=folder, csv=True, probabilities=True, **given)
    assert (result.record.settings.scaled_to is None) == (scale == PIXEL_SIZE)
    # Half a pixel of the model's scale, in slide pixels; the strided reduction of as_zarr adds as much.
    slack = 0.6 * max(1, scale / PIXEL_SIZE)
    labels = result.labels
    assert labels.shape == (HEIGHT, WIDTH)
    check_labels(folder, labels)
    table = pyarrow.parquet.read_table(folder / "cells.parquet").to_pydict()
    check_csv(folder / "cells.csv", table)
    features = json.loads(gzip.decompress((folder / "cells.geojson.gz").read_bytes()))["features"]
    assert len(features) == len(table["label"]) == len(DISCS)
    for cy, cx, radius in DISCS:
        number = int(labels[round(cy), round(cx)])
        assert number > 0
        y, x = np.nonzero(labels == number)
        assert (y.mean(), x.mean()) == pytest.approx((cy, cx), abs=slack)
        assert np.sqrt(len(y) / np.pi) == pytest.approx(radius, abs=slack)
        row = {name: column[number - 1] for name, column in table.items()}
        assert row["label"] == number
        assert (row["centroid_y"], row["centroid_x"]) == pytest.approx((y.mean(), x.mean()), abs=0.3 * slack)
        assert row["centroid_y_um"] == pytest.approx((cy + 0.5) * PIXEL_SIZE, abs=slack * PIXEL_SIZE)
        assert row["centroid_x_um"] == pytest.approx((cx + 0.5) * PIXEL_SIZE, abs=slack * PIXEL_SIZE)
        assert (row["y0"], row["x0"], row["y1"], row["x1"]) == (y.min(), x.min(), y.max() + 1, x.max() + 1)
        outline = shapely.geometry.shape(features[number - 1]["geometry"])
        assert outline.is_valid
        # Where the model sees more pixels than the slide has, outlines run between the slide's.
        apart = 0 if scale >= PIXEL_SIZE else 0.05 * len(y)
        assert row["area"] == pytest.approx(len(y), abs=apart)
        assert row["area_um2"] == pytest.approx(row["area"] * PIXEL_SIZE**2)
        assert outline.area == pytest.approx(len(y), abs=apart)
        inside = shapely.contains_xy(outline if not apart else outline.buffer(0.5), x + 0.5, y + 0.5)
        assert inside.all()
    check_overview(folder / "overview.png")
    (density,) = maps
    assert density._counts.sum() == len(DISCS)
    assert all(density._counts[int(cy) // density.square, int(cx) // density.square] for cy, cx, _ in DISCS)
    check_planes(folder / "planes.ome.zarr", slack)
    check_layers(result)


def check_labels(folder, labels):
    """Every level and every format shows the same cells."""
    pyramid = folder / "labels.ome.zarr"
    group = zarr.open_group(pyramid, mode="r")
    labels_to_tiff(pyramid, folder / "a.ome.tif", pixel_size=PIXEL_SIZE)
    labels_to_png(pyramid, folder / "a.png")
    assert np.array_equal(cv2.imread(str(folder / "a.png"), cv2.IMREAD_UNCHANGED), labels)
    with tifffile.TiffFile(folder / "a.ome.tif") as file:
        assert len(file.series[0].levels) == len(list(group.array_keys())) == 4
        for level, page in enumerate(file.series[0].levels):
            step = 1 << level
            assert np.array_equal(group[str(level)][:], labels[::step, ::step])
            assert np.array_equal(page.asarray(), labels[::step, ::step])
    with open_slide(pyramid) as zarr_reader, open_slide(folder / "a.ome.tif") as tiff_reader:
        assert zarr_reader.pixel_size == pytest.approx(PIXEL_SIZE)
        assert tiff_reader.pixel_size == pytest.approx(PIXEL_SIZE)


def check_csv(path, table):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == table["label"]
    for name in ("centroid_y", "centroid_x_um", "area"):
        assert [float(row[name]) for row in rows] == pytest.approx(table[name])


def check_overview(path):
    """Outlines are drawn around the discs and nowhere else."""
    drawn = cv2.imread(str(path))
    factor = drawn.shape[1] / WIDTH
    colourful = np.ptp(drawn.astype(int), axis=2) > 60
    for cy, cx, radius in DISCS:
        place = (round((cx + 0.5) * factor), round((cy + 0.5) * factor))
        ring = cv2.circle(np.zeros(drawn.shape[:2], np.uint8), place, round(radius * factor), 255, 13)
        assert (colourful & (ring > 0)).sum() > 2 * radius * factor
        colourful &= ring == 0
    assert not colourful.any()


def check_planes(path, slack):
    """By their own record, the planes show the discs where the slide has them, at every level."""
    group = zarr.open_group(path, mode="r")
    for dataset in group.attrs["ome"]["multiscales"][0]["datasets"]:
        plane = group[dataset["path"]][0]
        scale, shift = (given[given["type"]][1:] for given in dataset["coordinateTransformations"])
        count, _, _, centres = cv2.connectedComponentsWithStats((plane >= 120).astype(np.uint8))
        assert count - 1 == len(DISCS)
        found = centres[1:, ::-1] * scale + shift
        for cy, cx, _ in DISCS:
            wanted = np.array([cy, cx]) * PIXEL_SIZE
            assert np.abs(found - wanted).max(axis=1).min() < slack * PIXEL_SIZE + 0.3 * scale[0]


def check_layers(result):
    labels, points, shapes = (data for data, _, _ in result.to_napari())
    for centre, ring, number in zip(points, shapes, range(1, 6), strict=True):
        assert labels[0][tuple(np.rint(centre).astype(int))] == number
        assert shapely.contains_xy(shapely.Polygon(ring), *centre)
