"""OME-Zarr 0.4 and 0.5."""

import numpy as np
import pytest
import zarr

from cellseg.runtime.errors import ImageError, UsageError
from cellseg.runtime.readers import open_slide
from cellseg.runtime.testing.readers import ReaderSuite, picture
from cellseg.runtime.tiling import Region


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
    with pytest.raises(UsageError, match="no --z 3; it has 0 to 2"):
        open_slide(path, z=3)


def test_grey_without_a_channel_axis(tmp_path):
    array = picture((40, 50, 1), "uint8")[:, :, 0]
    with open_slide(write(tmp_path / "a.zarr", array, "yx")) as reader:
        assert np.array_equal(reader.read(Region(0, 0, 40, 50))[:, :, 0], array)
    with pytest.raises(UsageError, match="only one plane along --z"):
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
    array = picture((96, 96, 1), "uint8")[:, :, 0]
    path = write(tmp_path / "a.zarr", array, "yx")
    (path / "0" / "c" / "1" / "1").write_bytes(b"broken")
    with open_slide(path) as reader:
        assert np.array_equal(reader.read(Region(0, 0, 32, 96))[:, :, 0], array[:32])
        with pytest.raises(
            ImageError, match=r"a\.zarr: a chunk within rows 32 to 64 of level 0 cannot be read"
        ):
            reader.read(Region(32, 0, 32, 96))
    with open_slide(path, skip_bad_tiles=True) as reader:
        assert not reader.read(Region(32, 32, 32, 32)).any()
        assert len(reader.bad_blocks) == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"multiscales": []}, "not a readable OME-Zarr"),
        ({"multiscales": [{"axes": [{"name": "x"}], "datasets": []}]}, "wanted y and x last"),
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
        assert np.array_equal(reader.read(Region(3, 4, 20, 30))[:, :, 0], array[3:23, 4:34])
    for url in (f"file://{tmp_path}/none.zarr", "nonsense://host/a.zarr"):
        with pytest.raises(ImageError, match=url):
            open_slide(url)
