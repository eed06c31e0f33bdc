"""PNG, JPEG, WebP and BMP."""

import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from cellseg.runtime.errors import ImageError, UsageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide
from cellseg.runtime.testing.readers import ReaderSuite, picture


def save(path, pixels, *options):
    bgr = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels[:, :, ::-1]
    assert cv2.imwrite(str(path), np.ascontiguousarray(bgr), *options)
    return path


def whole(path):
    with open_slide(path) as reader:
        return reader.read(Region(0, 0, reader.height, reader.width))


class TestPng(ReaderSuite):
    def open(self, folder, pixels):
        return open_slide(save(folder / "a.png", pixels))


class TestBmp(ReaderSuite):
    cases = (((97, 131, 3), "uint8"), ((97, 131, 1), "uint8"))

    def open(self, folder, pixels):
        return open_slide(save(folder / "a.bmp", pixels))


class TestJpeg(ReaderSuite):
    cases = (((97, 131, 3), "uint8"), ((97, 131, 1), "uint8"))
    tolerance = 12

    def open(self, folder, pixels):
        return open_slide(save(folder / "a.jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95]))


class TestWebp(ReaderSuite):
    cases = (((97, 131, 3), "uint8"),)

    def open(self, folder, pixels):
        return open_slide(save(folder / "a.webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 101]))


def test_the_content_counts_not_the_suffix(tmp_path):
    pixels = picture((20, 30, 3), "uint8")
    path = save(tmp_path / "a.png", pixels).rename(tmp_path / "a.tif")
    assert np.array_equal(whole(path), pixels)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_applies_the_orientation(tmp_path, suffix):
    pixels = picture((24, 40, 3), "uint8")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {"lossless": True}
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    found = whole(tmp_path / f"a.{suffix}")
    wanted = np.rot90(pixels, -1)
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).mean() < 2


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_drops_alpha(tmp_path, suffix):
    pixels = picture((24, 40, 4), "uint8")
    pixels[:, :, 3] = 200
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", lossless=True)
    assert np.array_equal(whole(tmp_path / f"a.{suffix}"), pixels[:, :, :3])


def test_chooses_channels(tmp_path):
    pixels = picture((24, 40, 3), "uint8")
    path = save(tmp_path / "a.png", pixels)
    with open_slide(path, channels=["Blue", 0]) as reader:
        assert reader.channel_names == ("blue", "red")
        assert np.array_equal(reader.read(Region(0, 0, 24, 40)), pixels[:, :, [2, 0]])
    with pytest.raises(UsageError, match="page does not apply"):
        open_slide(path, page=1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_cut_short(tmp_path, suffix, part, capfd):
    path = save(tmp_path / f"a.{suffix}", picture((200, 200, 3), "uint8"))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ImageError, match=rf"a\.{suffix}: .*(cut short|damaged)"):
        open_slide(path)
    assert capfd.readouterr().err == ""


def test_a_jpeg_with_bytes_to_spare_is_read_with_a_note(tmp_path, capfd):
    path = save(tmp_path / "a.jpg", picture((40, 50, 3), "uint8"))
    sound = whole(path)
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes(5) + data[-2:])
    with open_slide(path) as reader:
        assert np.array_equal(reader.read(Region(0, 0, 40, 50)), sound)
        assert len(reader.notes) == 1
        assert "extraneous bytes before marker 0xd9" in reader.notes[0]
    assert capfd.readouterr().err == ""


def test_a_thumbnail_does_not_hide_a_missing_end(tmp_path):
    inner = io.BytesIO()
    Image.fromarray(picture((16, 16, 3), "uint8")).save(inner, "JPEG")
    outer = io.BytesIO()
    Image.fromarray(picture((200, 200, 3), "uint8")).save(outer, "JPEG")
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(inner.getvalue()) + 2) + inner.getvalue()
    data = outer.getvalue()[:2] + thumbnail + outer.getvalue()[2:]
    (tmp_path / "a.jpg").write_bytes(data)
    assert whole(tmp_path / "a.jpg").shape == (200, 200, 3)
    (tmp_path / "a.jpg").write_bytes(data[:-500])
    with pytest.raises(ImageError, match="cut short"):
        open_slide(tmp_path / "a.jpg")


def test_refuses_absurd_headers_before_allocating(tmp_path):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"x" * 900) + chunk(b"IEND", b"")
    )
    bmp = bytearray(save(tmp_path / "a.bmp", picture((10, 10, 3), "uint8")).read_bytes())
    struct.pack_into("<ii", bmp, 18, 100_000, 100_000)
    (tmp_path / "a.bmp").write_bytes(bmp)
    for name in ("a.png", "a.bmp"):
        tracemalloc.start()
        with pytest.raises(ImageError, match=f"{name}: its header claims 100,000×100,000 pixels"):
            open_slide(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 10e6
        tracemalloc.stop()
