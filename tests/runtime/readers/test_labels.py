"""Label images are read as they are stored, by the rules by which pictures are found."""

import cv2
import numpy as np
import pytest
import tifffile
import zarr

from cellseg.runtime.errors import ImageError
from cellseg.runtime.readers.labels import read_labels

LABELS = np.kron(np.arange(12).reshape(3, 4), np.ones((5, 6), int)).astype(np.int32)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint32", "int64", "float32", "float64"])
def test_numbers_of_every_type(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", LABELS.astype(dtype), compression="zlib")
    found = read_labels(tmp_path / "a.tif")
    assert found.dtype.kind in "iu"
    assert np.array_equal(found, LABELS)


def test_large_numbers_stay_apart(tmp_path):
    large = LABELS.astype(np.uint32) + np.uint32(2**31)
    tifffile.imwrite(tmp_path / "a.tif", large)
    assert np.array_equal(read_labels(tmp_path / "a.tif"), large)


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32"])
def test_minus_one_is_background(tmp_path, dtype):
    stored = np.where(LABELS == 0, -1, LABELS).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored)
    assert np.array_equal(read_labels(tmp_path / "a.tif"), LABELS)


def test_bits_palettes_and_inverted_display(tmp_path):
    tifffile.imwrite(tmp_path / "b.tif", LABELS > 4)
    assert np.array_equal(read_labels(tmp_path / "b.tif"), LABELS > 4)
    colours = np.random.default_rng(0).integers(0, 65535, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", LABELS.astype(np.uint8), photometric="palette", colormap=colours)
    assert np.array_equal(read_labels(tmp_path / "p.tif"), LABELS)
    tifffile.imwrite(tmp_path / "w.tif", LABELS.astype(np.uint8), photometric="miniswhite")
    assert np.array_equal(read_labels(tmp_path / "w.tif"), LABELS)


def test_png_and_zarr(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), LABELS.astype(np.uint16))
    assert np.array_equal(read_labels(tmp_path / "a.png"), LABELS)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=LABELS[None, None, None])
    group.attrs["multiscales"] = [{"version": "0.1", "datasets": [{"path": "0"}]}]
    assert np.array_equal(read_labels(tmp_path / "a.zarr"), LABELS)


def test_each_file_of_a_set_has_its_own(tmp_path):
    """Labels of positions carry the record of all, as the images do."""
    head = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{}">'
    body = "".join(
        f'<Image ID="Image:{n}"><Pixels DimensionOrder="XYZCT" Type="int32" SizeX="24" SizeY="15" SizeC="1" '
        f'SizeZ="1" SizeT="1"><Channel/><TiffData IFD="0" PlaneCount="1"><UUID FileName="p{n}.ome.tif">'
        f"urn:uuid:{n}</UUID></TiffData></Pixels></Image>"
        for n in range(2)
    )
    for n in range(2):
        record = head.format(n) + body + "</OME>"
        tifffile.imwrite(tmp_path / f"p{n}.ome.tif", LABELS + n, metadata=None, description=record)
    for n in range(2):
        assert np.array_equal(read_labels(tmp_path / f"p{n}.ome.tif"), LABELS + n)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (LABELS + 0.5, "no whole numbers"),
        (np.where(LABELS > 3, np.nan, LABELS).astype(np.float32), "no whole numbers"),
        (LABELS.astype(np.float32) * 1e8, "no whole numbers"),
        (LABELS.astype(np.int16) - 5, "the label -5"),
        (np.zeros((9, 9, 3), np.uint8), "3 channels"),
        (np.zeros((7, 9, 9), np.uint16), "a stack"),
    ],
)
def test_what_is_no_label_image(tmp_path, pixels, message):
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb" if pixels.shape[-1] == 3 else "minisblack")
    with pytest.raises(ImageError, match=f"{message}.*; wanted one integer channel"):
        read_labels(tmp_path / "a.tif")


def test_jpeg_blurs_numbers(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), LABELS.astype(np.uint8))
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    with pytest.raises(ImageError, match="a JPEG; wanted a 16-bit PNG"):
        read_labels(tmp_path / "a.png")
