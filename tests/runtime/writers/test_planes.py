"""The planes themselves."""

import numpy as np
import pytest
import zarr

from cellseg.runtime.errors import OutputError, UsageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide
from cellseg.runtime.testing.writers import contents, smallest_files
from cellseg.runtime.writers.planes import PlanesZarr


def write(path, planes, rows, **options):
    with PlanesZarr(path, ["mask", "boundary"], *planes.shape[1:], **options) as writer:
        at = 0
        while at < planes.shape[1]:
            writer.push(planes[:, at : at + rows])
            at += rows
        writer.commit()
    return path


@pytest.fixture
def planes(monkeypatch):
    monkeypatch.setattr("cellseg.runtime.writers.pyramid.SMALLEST", 100)
    return np.random.default_rng(0).integers(0, 256, (2, 661, 303), np.uint8)


def test_round_trip_through_our_own_reader(tmp_path, planes):
    with open_slide(write(tmp_path / "planes.ome.zarr", planes, 100, pixel_size=0.5)) as reader:
        assert reader.channel_names == ("mask", "boundary")
        assert reader.pixel_size == 0.5
        assert [(level.height, level.width) for level in reader.levels] == [
            (661, 303), (331, 152), (166, 76), (83, 38),
        ]  # fmt: skip
        assert np.array_equal(reader.read(Region(0, 0, 661, 303)), planes.transpose(1, 2, 0))
        padded = np.pad(planes, ((0, 0), (0, 1), (0, 1)), mode="edge").astype(float)
        half = np.floor(padded.reshape(2, 331, 2, 152, 2).mean(axis=(2, 4)) + 0.5)
        assert np.array_equal(reader.read(Region(0, 0, 331, 152), 1), half.transpose(1, 2, 0))


def test_does_not_depend_on_how_rows_come(tmp_path, planes):
    whole = contents(write(tmp_path / "a", planes, 661))
    assert whole == contents(write(tmp_path / "b", planes, 7))
    assert whole == contents(write(tmp_path / "c", planes, 257))


def test_scale_and_place_of_each_level(tmp_path, planes):
    record = zarr.open_group(write(tmp_path / "a", planes, 300, pixel_size=0.5)).attrs["ome"]
    first, second = (d["coordinateTransformations"] for d in record["multiscales"][0]["datasets"][:2])
    assert first[0]["scale"] == [1, 0.5, 0.5]
    assert second[0]["scale"] == [1, 1.0, 1.0]
    assert second[1]["translation"] == [0, 0.25, 0.25]


def test_planes_of_another_size_than_the_slide_lie_over_it(tmp_path, planes):
    path = write(tmp_path / "a", planes, 300, pixel_size=0.25, full_size=(1322, 606))
    record = zarr.open_group(path).attrs["ome"]
    first, second = (d["coordinateTransformations"] for d in record["multiscales"][0]["datasets"][:2])
    assert first[0]["scale"] == [1, 0.5, 0.5]
    assert first[1]["translation"] == [0, 0.125, 0.125]
    assert second[0]["scale"] == [1, 1.0, 1.0]
    assert second[1]["translation"] == [0, 0.375, 0.375]


def test_nothing_stays_without_commit_or_disk(tmp_path, planes):
    writer = PlanesZarr(tmp_path / "a", ["mask", "boundary"], 661, 303)
    writer.push(planes[:, :300])
    with writer, pytest.raises(UsageError, match="256 of 661 rows were written"):
        writer.commit()
    with smallest_files(200), pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "b", planes, 100)
    assert contents(tmp_path) == {}
