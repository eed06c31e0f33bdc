"""The front door: what is refused, and how."""

import os

import numpy as np
import pytest
import tifffile

from cellseg.runtime.errors import ImageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import ArrayReader, open_slide
from cellseg.runtime.testing.readers import ReaderSuite, picture


class TestArray(ReaderSuite):
    cases = (*ReaderSuite.cases, ((60, 70, 7), "float32"))

    def open(self, folder, pixels):
        return ArrayReader(pixels)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 5), (0, 4), (4, 0, 3), (4, 4, 0)])
def test_refuses_arrays_that_are_no_pictures(shape):
    with pytest.raises(ImageError, match="array: "):
        ArrayReader(np.zeros(shape, np.uint8))


def test_refuses_complex_values():
    with pytest.raises(ImageError, match="complex64 are not grey levels"):
        ArrayReader(np.zeros((4, 4), np.complex64))


def test_bilevel_arrays_span_the_full_range():
    assert ArrayReader(np.eye(3, dtype=bool)).read(Region(0, 0, 1, 2)).tolist() == [[[255], [0]]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", r"the file is empty \(0 bytes\)"),
        (b"hello world, this is text", "no picture format"),
        (b"ZISRAWFILE" + bytes(50), "a Zeiss CZI file; readable are TIFF"),
        (b"%PDF-1.4", "a PDF file"),
        (b"II*\0", "the TIFF is damaged"),
        (b"II*\0\x08\0\0\0\0\0", "TIFF"),
        (b"\x89PNG\r\n\x1a\n", "PNG header is damaged"),
        (b"\xff\xd8\xff", "JPEG header is damaged"),
    ],
)
def test_one_clear_line(tmp_path, content, message):
    path = tmp_path / "a.tif"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        open_slide(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_image(tmp_path):
    with pytest.raises(ImageError, match="OME-Zarr"):
        open_slide(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    (tmp_path / "a.tif").chmod(0)
    with pytest.raises(ImageError, match="permission denied"):
        open_slide(tmp_path / "a.tif")


def test_odd_names_and_links(tmp_path):
    pixels = picture((20, 30, 1), "uint8")
    name = tmp_path / "Ünï 'quoted' $(x) #1.tif"
    tifffile.imwrite(name, pixels[:, :, 0])
    (tmp_path / "link.tif").symlink_to(name)
    (tmp_path / "gone.tif").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.tif").symlink_to(tmp_path / "loop.tif")
    for path in (name, tmp_path / "link.tif", str(name)):
        with open_slide(path) as reader:
            assert np.array_equal(reader.read(Region(0, 0, 20, 30)), pixels)
    with pytest.raises(ImageError, match="no such file"):
        open_slide(tmp_path / "gone.tif")
    with pytest.raises(ImageError, match="cannot be read"):
        open_slide(tmp_path / "loop.tif")
    with pytest.raises(ImageError, match="cannot be read"):
        open_slide("a\0b.tif")


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(ImageError, match="not a regular file"):
        open_slide(tmp_path / "pipe.tif")


def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path):
    pixels = picture((400, 300, 1), "uint8")[:, :, 0]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, rowsperstrip=10)
    with open_slide(path) as reader:
        reader.read(Region(0, 0, 10, 300))
        os.truncate(path, 1000)
        with pytest.raises(ImageError, match="became shorter while it was being read"):
            reader.read(Region(390, 0, 10, 300))
