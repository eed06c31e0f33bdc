"""Known cells at known places through every reader, level and writer, back in slide pixels and µm.

A slide of discs is stored in each format at 0.25 µm a pixel, read at the scale of a model (0.25, 0.5
or 0.4 µm), segmented by a threshold in place of a network, and written; then all results are compared
with where the discs are.
"""

import gzip
import json

import cv2
import numpy as np
import pyarrow.parquet
import pytest
import shapely
import tifffile
import zarr

from cellseg.runtime.instances import InstanceStream
from cellseg.runtime.readers import ArrayReader, open_slide
from cellseg.runtime.readers.scaled import ScaledReader, at_scale
from cellseg.runtime.rescale import FullResolution
from cellseg.runtime.spec import Head, SplitSettings
from cellseg.runtime.tiling import Region
from cellseg.runtime.writers import CellTable, GeoJson, LabelsZarr, Overview
from cellseg.runtime.writers.formats import labels_to_tiff

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


def as_ome(folder, picture):
    metadata = {"axes": "YX", "PhysicalSizeX": PIXEL_SIZE, "PhysicalSizeY": PIXEL_SIZE}
    tifffile.imwrite(folder / "a.ome.tif", picture, metadata=metadata)
    return open_slide(folder / "a.ome.tif")


def as_png(folder, picture):
    cv2.imwrite(str(folder / "a.png"), picture)
    reader = open_slide(folder / "a.png")
    reader.pixel_size = PIXEL_SIZE
    return reader


def as_zarr(folder, picture):
    group = zarr.open_group(folder / "a.zarr", mode="w")
    datasets = []
    for level in range(2):
        part = picture[:: 2**level, :: 2**level]
        group.create_array(str(level), data=part, chunks=(64, 64))
        scale = [PIXEL_SIZE * 2**level] * 2
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return open_slide(folder / "a.zarr")


def as_array(folder, picture):
    return ArrayReader(picture, pixel_size=PIXEL_SIZE)


def segment(folder, reader, scale):
    """Threshold the slide at a scale and write every result."""
    seen = at_scale(reader, scale, tolerance=0.01)
    full = (
        FullResolution(seen.height, seen.width, reader.height, reader.width)
        if isinstance(seen, ScaledReader)
        else None
    )
    names = {"channel_names": seen.channel_names, "pixel_size": reader.pixel_size}
    writers = [
        LabelsZarr(folder / "labels.ome.zarr", reader.height, reader.width, pixel_size=reader.pixel_size),
        CellTable(folder / "cells.parquet", **names),
        GeoJson(folder / "cells.geojson.gz", **names),
        Overview(folder / "overview.png", reader.overview(2000), reader.height, reader.width),
    ]
    heads = (Head(name="mask"),)
    stream = InstanceStream(seen.height, seen.width, heads, SplitSettings(), image_channels=1)
    with stream:
        for y in range(0, seen.height, 50):
            rows = seen.read(Region(y, 0, min(50, seen.height - y), seen.width))
            planes = np.where(rows[None, :, :, 0] >= 120, 255, 0).astype(np.uint8)
            for strip in stream.push(planes, rows):
                for writer in writers:
                    writer.write(full.strip(strip) if full else strip)
        for strip in stream.finish():
            for writer in writers:
                writer.write(full.strip(strip) if full else strip)
    for writer in writers:
        writer.commit()
    labels_to_tiff(folder / "labels.ome.zarr", folder / "labels.ome.tif", pixel_size=reader.pixel_size)


@pytest.mark.parametrize("scale", [0.25, 0.4, 0.5])
@pytest.mark.parametrize("store", [as_tiles, as_pyramid, as_ome, as_png, as_zarr, as_array])
def test_cells_are_where_they_are(tmp_path, store, scale):
    with store(tmp_path, slide()) as reader:
        assert reader.pixel_size == pytest.approx(PIXEL_SIZE)
        segment(tmp_path, reader, scale)
    # Half a pixel of the model's scale, in slide pixels; the strided reduction of as_zarr adds as much.
    slack = 0.6 * scale / PIXEL_SIZE
    labels = zarr.open_group(tmp_path / "labels.ome.zarr", mode="r")["0"][:]
    assert labels.shape == (HEIGHT, WIDTH)
    assert np.array_equal(tifffile.imread(tmp_path / "labels.ome.tif"), labels)
    table = pyarrow.parquet.read_table(tmp_path / "cells.parquet").to_pydict()
    features = json.loads(gzip.decompress((tmp_path / "cells.geojson.gz").read_bytes()))["features"]
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
        assert row["area"] == len(y)
        assert row["area_um2"] == pytest.approx(len(y) * PIXEL_SIZE**2)
        assert (row["y0"], row["x0"], row["y1"], row["x1"]) == (y.min(), x.min(), y.max() + 1, x.max() + 1)
        outline = shapely.geometry.shape(features[number - 1]["geometry"])
        assert outline.is_valid
        assert outline.area == len(y)
        assert shapely.contains_xy(outline, x + 0.5, y + 0.5).all()
    drawn = cv2.imread(str(tmp_path / "overview.png"))
    factor = drawn.shape[1] / WIDTH
    colourful = np.ptp(drawn.astype(int), axis=2) > 60
    for cy, cx, radius in DISCS:
        place = (round((cx + 0.5) * factor), round((cy + 0.5) * factor))
        ring = cv2.circle(np.zeros(drawn.shape[:2], np.uint8), place, round(radius * factor), 255, 13)
        assert (colourful & (ring > 0)).sum() > 2 * radius * factor
        colourful &= ring == 0
    assert not colourful.any()
