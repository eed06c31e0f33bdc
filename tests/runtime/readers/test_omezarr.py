"""OME-Zarr 0.4 and 0.5."""

import http.server
import threading
from functools import partial

import numpy as np
import pytest
import tifffile
import zarr

from cellseg.runtime.errors import ImageError, UsageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide
from cellseg.runtime.testing.readers import ReaderSuite, picture


def write(path, array, axes, *, version="0.5", scale=0.5, labels=(), levels=2):
    """Write a multiscale image; array has the given axes, y and x last."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for level in range(levels):
        part = array[..., :: 2**level, :: 2**level]
        group.create_array(str(level), data=part, chunks=(*[1] * (array.ndim - 2), 32, 32))
        factors = [1.0] * (array.ndim - 2) + [scale * 2**level] * 2
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": factors}]}
        )
    kinds = {"t": "time", "c": "channel"}
    named = [
        {"name": a, "type": kinds.get(a, "space"), **({"unit": "micrometer"} if a in "zyx" else {})}
        for a in axes
    ]
    record = {"multiscales": [{"version": version, "axes": named, "datasets": datasets}]}
    if labels:
        record["omero"] = {"channels": [{"label": label} for label in labels]}
    group.attrs.update({"ome": {"version": version, **record}} if version == "0.5" else record)
    return path


class TestZarr3(ReaderSuite):
    cases = (((97, 131, 3), "uint8"), ((64, 50, 2), "uint16"), ((64, 50, 1), "float32"))
    version = "0.5"

    def open(self, folder, pixels):
        return open_slide(
            write(folder / "a.ome.zarr", pixels.transpose(2, 0, 1), "cyx", version=self.version)
        )


class TestZarr2(TestZarr3):
    version = "0.4"


def test_axes_scale_and_names(tmp_path):
    array = np.random.default_rng(0).integers(0, 60000, (2, 2, 3, 40, 50)).astype(np.uint16)
    path = write(tmp_path / "a.zarr", array, "tczyx", scale=0.325, labels=["DAPI", "actin"])
    at = Region(3, 4, 20, 30)
    with open_slide(path) as reader:
        assert reader.channel_names == ("DAPI", "actin")
        assert reader.pixel_size == pytest.approx(0.325)
        assert [(level.height, level.width) for level in reader.levels] == [(40, 50), (20, 25)]
        assert len(reader.notes) == 2
        assert np.array_equal(reader.read(at), array[0, :, 0, 3:23, 4:34].transpose(1, 2, 0))
    with open_slide(path, t=1, z=2, channels=["actin"]) as reader:
        assert np.array_equal(reader.read(at)[:, :, 0], array[1, 1, 2, 3:23, 4:34])
    with pytest.raises(UsageError, match="no z=3; it has 0 to 2"):
        open_slide(path, z=3)


def test_grey_without_a_channel_axis(tmp_path):
    array = picture((40, 50, 1), "uint8")[:, :, 0]
    with open_slide(write(tmp_path / "a.zarr", array, "yx")) as reader:
        assert np.array_equal(reader.read(Region(0, 0, 40, 50))[:, :, 0], array)
    with pytest.raises(UsageError, match="only one plane along z"):
        open_slide(tmp_path / "a.zarr", z=1)


def test_several_images_in_one_folder(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    arrays = [picture((40, 50, 1), "uint8", seed)[:, :, 0] for seed in range(2)]
    for number, array in enumerate(arrays):
        write(tmp_path / "a.zarr" / str(number), array, "yx")
    for number, array in enumerate(arrays):
        with open_slide(tmp_path / "a.zarr", series=number) as reader:
            assert np.array_equal(reader.read(Region(0, 0, 40, 50))[:, :, 0], array)
    with pytest.raises(UsageError, match="no series 2; it has 0 to 1"):
        open_slide(tmp_path / "a.zarr", series=2)


def test_a_damaged_chunk_is_named_or_skipped(tmp_path):
    array = picture((96, 96, 2), "uint8").transpose(2, 0, 1)
    path = write(tmp_path / "a.zarr", array, "cyx")
    (path / "0" / "c" / "1" / "1" / "2").write_bytes(b"broken")
    with open_slide(path) as reader:
        assert np.array_equal(reader.read(Region(0, 0, 32, 96)).transpose(2, 0, 1), array[:, :32])
        assert np.array_equal(reader.read(Region(0, 0, 96, 64)).transpose(2, 0, 1), array[:, :, :64])
        with pytest.raises(
            ImageError,
            match=r"a\.zarr: chunk 1/1/2 of level 0 \(rows from 32, columns from 64\) cannot be read: .*"
            "skip_bad_tiles=True",
        ):
            reader.read(Region(10, 0, 32, 96))
    wanted = array.copy()
    wanted[1, 32:64, 64:] = 0
    with open_slide(path, skip_bad_tiles=True) as reader:
        for region in (Region(0, 0, 96, 96), Region(10, 5, 40, 90)):
            found = reader.read(region).transpose(2, 0, 1)
            assert np.array_equal(found, wanted[:, region.y : region.y1, region.x : region.x1])
        assert len(reader.bad_blocks) == 1
        assert "chunk 1/1/2" in reader.bad_blocks[0]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"multiscales": []}, "not a readable OME-Zarr"),
        ({"multiscales": [{"axes": [{"name": "x"}], "datasets": []}]}, "names no array"),
        ({"multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "7"}]}]}, "not a readable OME-Zarr"),
        ({"plate": {}}, "this is a plate"),
        ({}, "holds no OME-Zarr image"),
    ],
)
def test_bad_records(tmp_path, record, message):
    zarr.open_group(tmp_path / "a.zarr", mode="w").attrs["ome"] = record
    with pytest.raises(ImageError, match=message):
        open_slide(tmp_path / "a.zarr")


def test_url(tmp_path):
    pytest.importorskip("fsspec")
    array = picture((40, 50, 1), "uint8")[:, :, 0]
    write(tmp_path / "a.zarr", array, "yx")
    with open_slide(f"file://{tmp_path}/a.zarr") as reader:
        assert reader.path.name == "a.zarr"
        assert reader.location == f"file://{tmp_path}/a.zarr"
        assert np.array_equal(reader.read(Region(3, 4, 20, 30))[:, :, 0], array[3:23, 4:34])
    with pytest.raises(ImageError, match=f"file://{tmp_path}/none.zarr: there is no OME-Zarr image"):
        open_slide(f"file://{tmp_path}/none.zarr")
    with pytest.raises(
        ImageError, match=r"nonsense://host/a\.zarr: nonsense:// is no address that can be read"
    ):
        open_slide("nonsense://host/a.zarr")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path):
    """Serve a folder over HTTP; the fixture is its address."""
    pytest.importorskip("aiohttp")
    pytest.importorskip("fsspec")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_over_http(tmp_path, served, version):
    array = picture((40, 50, 2), "uint16").transpose(2, 0, 1)
    write(tmp_path / "a.ome.zarr", array, "cyx", version=version, labels=["DAPI", "actin"])
    with open_slide(f"{served}/a.ome.zarr", channels=["actin"]) as reader:
        assert reader.pixel_size == 0.5
        assert reader.location == f"{served}/a.ome.zarr"
        assert np.array_equal(reader.read(Region(3, 4, 20, 30))[:, :, 0], array[1, 3:23, 4:34])
    with pytest.raises(
        ImageError, match=f"{served}/none.zarr: there is no OME-Zarr image; check the address"
    ):
        open_slide(f"{served}/none.zarr")


def test_other_formats_over_http(tmp_path, served):
    array = picture((40, 50, 3), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
    with open_slide(f"{served}/a.tif?token=x") as reader:
        assert reader.location == f"{served}/a.tif?token=x"
        assert np.array_equal(reader.read(Region(3, 4, 20, 30)), array[3:23, 4:34])
    with pytest.raises(ImageError, match=f"{served}/none.tif: there is no such file"):
        open_slide(f"{served}/none.tif")


def test_a_server_that_is_not_there():
    pytest.importorskip("aiohttp")
    with pytest.raises(ImageError, match=r"http://127\.0\.0\.1:1/a\.zarr: cannot be reached"):
        open_slide("http://127.0.0.1:1/a.zarr")


@pytest.mark.parametrize(
    ("scheme", "advice"),
    [("https", r"'cellseg\[remote\]'"), ("s3", r"'cellseg\[s3\]'"), ("odd", "what fsspec asks for")],
)
def test_missing_packages_are_named(monkeypatch, scheme, advice):
    def missing(*arguments, **options):
        raise ImportError(f"Install what reads {scheme}")

    monkeypatch.setattr("cellseg.runtime.readers.omezarr.zarr.open_group", missing)
    with pytest.raises(ImageError, match=rf"{scheme}:// needs another package .*install {advice}"):
        open_slide(f"{scheme}://host/a.zarr")
