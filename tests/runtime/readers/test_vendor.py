"""OpenSlide formats, tried on those that can be written here: OpenSlide also reads tiled TIFF."""

import sys

import numpy as np
import pytest
import tifffile

from cellseg.runtime.errors import ImageError, UsageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide
from cellseg.runtime.testing.readers import ReaderSuite, picture

pytest.importorskip("openslide")


class TestVendor(ReaderSuite):
    cases = (((97, 131, 3), "uint8"),)

    @pytest.fixture(autouse=True)
    def _small_squares(self, monkeypatch):
        monkeypatch.setattr("cellseg.runtime.readers.vendor.SQUARE", 40)

    def open(self, folder, pixels):
        from cellseg.runtime.readers.vendor import VendorReader

        tifffile.imwrite(folder / "a.tif", pixels, photometric="rgb", tile=(64, 64), compression="zlib")
        return VendorReader(folder / "a.tif")


@pytest.mark.parametrize("threads", [1, 4])
def test_a_damaged_tile_is_named_or_skipped(tmp_path, monkeypatch, threads):
    from cellseg.runtime.readers.vendor import VendorReader

    pixels = picture((300, 420, 3), "uint8")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[9]  # row 1 and column 2 of seven
    data = bytearray(path.read_bytes())
    data[offset : offset + 200] = bytes(200)
    path.write_bytes(data)
    wanted = pixels.copy()
    wanted[64:128, 128:192] = 0
    monkeypatch.setattr("cellseg.runtime.readers.vendor.SQUARE", 150)
    with VendorReader(path, threads=threads) as reader:
        assert np.array_equal(reader.read(Region(128, 0, 172, 420)), pixels[128:])
        for _ in range(2):
            with pytest.raises(
                ImageError, match=r"tile at row 70, column 128 of level .*skip_bad_tiles=True"
            ):
                reader.read(Region(70, 100, 60, 60))
        # The reader is of use after that.
        assert np.array_equal(reader.read(Region(0, 192, 300, 228)), pixels[:, 192:])
    with VendorReader(path, threads=threads, skip_bad_tiles=True) as reader:
        for _ in range(2):
            assert np.array_equal(reader.read(Region(0, 0, 300, 420)), wanted)
        assert reader.bad_blocks
        assert all("cannot be decoded" in line for line in reader.bad_blocks)


def test_agrees_with_the_tiff_reader_on_a_real_slide(shared_data):
    from cellseg.runtime.readers.vendor import VendorReader

    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    at = Region(1001, 503, 700, 900)
    with VendorReader(path) as one, open_slide(path) as other:
        assert (one.height, one.width) == (other.height, other.width)
        assert one.pixel_size == pytest.approx(other.pixel_size)
        assert np.abs(one.read(at).astype(int) - other.read(at)).max() <= 3  # two JPEG decoders
    with VendorReader(path, channels=["blue"]) as reader:
        assert reader.read(at).shape == (700, 900, 1)


def test_dispatch_and_messages(tmp_path, monkeypatch):
    path = tmp_path / "a.ndpi"
    path.write_bytes(b"II*\0 not a slide")
    with pytest.raises(ImageError, match=r"a\.ndpi: OpenSlide cannot read it"):
        open_slide(path)
    with pytest.raises(UsageError, match="z does not apply"):
        open_slide(path, z=3)
    with pytest.raises(UsageError, match="no series 2"):
        open_slide(path, series=2)
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ImageError, match=r"pip install 'cellseg\[slides\]'"):
        open_slide(path)
