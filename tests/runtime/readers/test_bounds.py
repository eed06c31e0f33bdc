"""What a file claims is checked before anything is allocated: in time and memory, and in one line."""

import struct
import tracemalloc
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from cellseg.runtime.errors import ImageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide
from cellseg.runtime.readers.headers import BUDGET_BYTES, claim
from cellseg.runtime.readers.labels import read_labels

IMAGE = np.arange(96 * 112, dtype=np.uint16).reshape(96, 112)


def tag(path, code, kind, values):
    """Overwrite one tag of the first page in place: its type, count and value."""
    data = bytearray(path.read_bytes())
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, entry)[0] == code:
            struct.pack_into("<HII", data, entry, code, kind, len(values))
            data[entry : entry + 12] = struct.pack("<HHI", code, kind, len(values)) + values[0]
    path.write_bytes(data)


def png(path, width, height, bits=8, colour=0, length=None, stored=4000):
    def chunk(name, body, size=None):
        return struct.pack(">I", len(body) if size is None else size) + name + body + bytes(4)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(stored)) if stored < 400_000 else bytes(stored), length)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b""))


def refused(path, message, most=64 << 20):
    """Both readers refuse a file, without room made for what it claims."""
    for read in (open_slide, read_labels):
        tracemalloc.start()
        try:
            with pytest.raises(ImageError, match=message) as caught:
                read(path)
            assert tracemalloc.get_traced_memory()[1] < most
        finally:
            tracemalloc.stop()
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("contiguous", [True, False])
def test_more_rows_than_the_file_holds(tmp_path, contiguous):
    options = {} if contiguous else {"metadata": None, "rowsperstrip": 1, "compression": "zlib"}
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, **options)
    tag(tmp_path / "a.tif", 257, 4, [struct.pack("<I", 400_000_000)])
    if contiguous:
        tag(tmp_path / "a.tif", 278, 4, [struct.pack("<I", 1)])
    refused(tmp_path / "a.tif", "cut short|damaged|no image")


def test_offsets_that_are_no_whole_numbers(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, metadata=None)
    tag(tmp_path / "a.tif", 273, 11, [struct.pack("<f", 8.5)])
    refused(tmp_path / "a.tif", "damaged")


def test_a_damaged_table_of_colours(tmp_path):
    colours = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", IMAGE.astype(np.uint8), photometric="palette", colormap=colours, metadata=None
    )
    tag(tmp_path / "a.tif", 320, 3, [struct.pack("<HH", 40, 0)])
    with pytest.raises(ImageError, match="table of colours is damaged"):
        open_slide(tmp_path / "a.tif")
    # Labels do not look at it.
    assert np.array_equal(read_labels(tmp_path / "a.tif"), IMAGE.astype(np.uint8))


@pytest.mark.parametrize(("height", "width"), [(0, 64), (64, 0), (0, 0)])
def test_no_rows_or_columns(tmp_path, height, width):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, metadata=None)
    tag(tmp_path / "a.tif", 257, 4, [struct.pack("<I", height)])
    tag(tmp_path / "a.tif", 256, 4, [struct.pack("<I", width)])
    refused(tmp_path / "a.tif", r"a\.tif: ")


def test_a_png_is_counted_in_bytes(tmp_path):
    """32,000 × 32,000 pixels are few enough; in 16 bits and three colours they are 6 GB."""
    png(tmp_path / "a.png", 32_000, 32_000, 16, 2, stored=400_000)
    refused(tmp_path / "a.png", r"holds 6\.1 GB and must be decoded whole; save it as a tiled TIFF")
    png(tmp_path / "b.png", 20_000, 20_000)
    refused(tmp_path / "b.png", "would take 0.4 GB, but there are only")


def test_a_chunk_of_a_png_that_claims_more_than_there_is(tmp_path):
    png(tmp_path / "a.png", 64, 64, 16, length=4_294_902_002)
    refused(tmp_path / "a.png", "cut short")


def test_chunks_count_by_what_they_decode_to(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    edge = int(np.sqrt(BUDGET_BYTES / 2)) + 1
    group.create_array("0", shape=(edge, edge), chunks=(edge, edge), dtype="uint16")
    axes = [{"name": name} for name in "yx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]
    refused(tmp_path / "a.zarr", r"a chunk of /0 holds 1\.1 GB and must be decoded whole; rechunk")


def coded(name, shape):
    """Return zeros in some format."""
    pixels = np.zeros(shape, np.uint8)
    match name:
        case "jpegxl":
            return imagecodecs.jpegxl_encode(pixels, effort=1)
        case "jpegxl in boxes":
            return imagecodecs.jpegxl_encode(pixels, effort=1, usecontainer=True)
        case "jpegxr":
            return imagecodecs.jpegxr_encode(pixels)
        case "lerc 2":
            return imagecodecs.lerc_encode(pixels, version=2)
        case "lerc":
            return imagecodecs.lerc_encode(pixels)
        case _:
            return imagecodecs.jpeg2k_encode(pixels, level=0)


CODED = ("jpegxl", "jpegxl in boxes", "jpegxr", "lerc 2", "lerc", "jpeg2000")


@pytest.mark.parametrize("name", CODED)
def test_sizes_are_known_without_decoding(name):
    for shape in ((64, 64), (512, 256), (1601, 3000), (777, 19), (3000, 4000)):
        found = claim(bytes(coded(name, shape)))
        assert (found.height, found.width) == shape
        for length in range(60):
            claim(bytes(coded(name, (64, 64)))[:length])  # cut short: nothing is raised


@pytest.mark.parametrize("name", CODED)
def test_a_tile_that_holds_more_than_a_tile(tmp_path, name):
    """A few bytes of a constant picture decode to gigabytes, whatever the tags say."""
    kind = name.split()[0]
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8), tile=(64, 64), compression=kind)
    data = bytes(coded(name, (3000, 3000)))
    with (tmp_path / "a.tif").open("ab") as file:
        at = file.tell()
        file.write(data)
    tag(tmp_path / "a.tif", 324, 4, [struct.pack("<I", at)])
    tag(tmp_path / "a.tif", 325, 4, [struct.pack("<I", len(data))])
    with (
        open_slide(tmp_path / "a.tif") as slide,
        pytest.raises(ImageError, match="claims 3000×3000 pixels: damaged"),
    ):
        slide.read(Region(0, 0, 64, 64))


def test_more_scans_than_any_program_writes(tmp_path):
    """A progressive JPEG is gone over as often as it has scans: thousands of them are hours."""
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    whole = cv2.imencode(".jpg", IMAGE.astype(np.uint8), options)[1].tobytes()
    last = whole.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(whole)
    open_slide(tmp_path / "a.jpg").close()
    (tmp_path / "a.jpg").write_bytes(whole[:-2] + whole[last:-2] * 1000 + b"\xff\xd9")
    with pytest.raises(ImageError, match=r"a\.jpg: a JPEG of 1,0\d\d scans"):
        open_slide(tmp_path / "a.jpg")
