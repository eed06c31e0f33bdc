"""Pictures at addresses are read as from the disk, known by their address, and leave nothing behind."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from cellseg.runtime.common.addresses import Address
from cellseg.runtime.errors import ImageError, UsageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide
from cellseg.runtime.readers.fetched import is_fetched

pytestmark = pytest.mark.usefixtures("scratch")


def put(store, name, path):
    (Address(store) / name).write(path.read_bytes())
    return f"{store}/{name}"


def test_which_are_fetched():
    wanted = {
        "s3://b/a.svs": True,
        "https://h/a.tif?x=1": True,
        "s3://b/a.ome.zarr": False,
        "s3://b/plate.zarr/A/1/0": False,
        "s3://b/plate.zarr/a.tif": False,
        "a.tif": False,
    }
    assert {name: is_fetched(name) for name in wanted} == wanted


def test_a_tiff(store, tmp_path, scratch):
    picture = np.random.default_rng(0).integers(0, 60000, (80, 90, 2), np.uint16)
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        picture.transpose(2, 0, 1),
        metadata={"axes": "CYX", "PhysicalSizeX": 0.4, "PhysicalSizeY": 0.2, "Channel": {"Name": ["A", "B"]}},
    )
    address = put(store, "a.ome.tif", tmp_path / "a.ome.tif")
    with open_slide(tmp_path / "a.ome.tif") as local, open_slide(address) as reader:
        assert reader.location == address
        assert reader.path.name == "a.ome.tif"
        for name in ("pixel_size", "aspect", "channel_names", "levels", "dtype"):
            assert getattr(reader, name) == getattr(local, name)
        region = Region(3, 5, 40, 50)
        assert np.array_equal(reader.read(region), local.read(region))
        out = np.empty((40, 50, 2), np.uint16)
        reader.read_into(region, out)
        assert np.array_equal(out, picture[3:43, 5:55])
        assert list(scratch.iterdir())
    assert not list(scratch.iterdir())


def test_errors_and_notes_name_the_address(store, tmp_path, scratch):
    (tmp_path / "b.tif").write_bytes(b"II*\0nonsense")
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((9, 9), np.uint8))
    broken, png = put(store, "b.tif", tmp_path / "b.tif"), put(store, "c.png", tmp_path / "c.png")
    with pytest.raises(ImageError) as caught:
        open_slide(broken)
    assert str(caught.value).startswith(f"{broken}: ")
    with pytest.raises(UsageError) as caught:
        open_slide(png, z=3)
    assert str(caught.value).startswith(f"{png}: ")
    with open_slide(png) as reader, pytest.raises(UsageError):
        reader.read(Region(0, 0, 20, 20))
    assert str(scratch) not in str(caught.value)
    assert not list(scratch.iterdir())
    with pytest.raises(ImageError, match="there is no such file"):
        open_slide(f"{store}/none.tif")
    assert not list(scratch.iterdir())


def test_files_beside_come_along(store, tmp_path, monkeypatch):
    from cellseg.runtime.readers import fetched

    for name in ("a.mrxs", "a/Slidedat.ini", "a/b/Data0001.dat", "other/x"):
        (Address(store) / name).write(name.encode())
    seen = {}

    def look(copy):
        for path in Path(copy).parent.rglob("*"):
            if path.is_file():
                seen[path.relative_to(Path(copy).parent).as_posix()] = path.read_text()
        raise ImageError(f"{copy}: no slide")

    with pytest.raises(ImageError, match=f"^{store}/a.mrxs: no slide$"):
        fetched.FetchedReader(f"{store}/a.mrxs", look)
    assert seen == {name: name for name in ("a.mrxs", "a/Slidedat.ini", "a/b/Data0001.dat")}
