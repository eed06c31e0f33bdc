"""What a file claims is checked before anything is allocated: in time and memory, and in one line."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
import zarr

from cellseg.runtime.errors import ImageError
from cellseg.runtime.readers import open_slide
from cellseg.runtime.readers.headers import BUDGET_BYTES
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
