"""Micro-Manager sets, as its own software writes them: one file a position, an index of planes in each."""

import json
import struct

import numpy as np
import pytest
import tifffile

from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide

SIZE = 32, 48
POSITIONS, CHANNELS = 3, ("DAPI", "GFP")


def plane(position, channel):
    return np.random.default_rng([position, channel]).integers(0, 60000, SIZE).astype(np.uint16)


def stack(path, position, *, pixel_size=0.325):
    """Write one position: a summary, each plane behind its IFD of 13 tags, the index at the end."""
    summary = json.dumps(
        {
            "MicroManagerVersion": "2.0.0",
            "Prefix": "run",
            "Frames": 1,
            "Slices": 1,
            "Channels": len(CHANNELS),
            "Positions": POSITIONS,
            "ChNames": list(CHANNELS),
            "TimeFirst": True,
            "SlicesFirst": True,
            "PixelSize_um": pixel_size,
        }
    ).encode()
    height, width = SIZE
    data = bytearray(b"II*\0" + bytes(4) + bytes(24) + struct.pack("<II", 2355492, len(summary)) + summary)
    data += bytes(len(data) % 2)
    index = []
    link = 4
    for channel in range(len(CHANNELS)):
        at = len(data)
        struct.pack_into("<I", data, link, at)
        index.append((channel, 0, 0, position, at))
        pixels = plane(position, channel).tobytes()
        after = at + 162 + len(pixels)
        note = b'{"PixelSizeUm": %f}\0' % pixel_size
        tags = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, 1, at + 162), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, len(pixels)),
            (282, 5, 1, after), (283, 5, 1, after), (296, 3, 1, 3), (51123, 2, len(note), after + 8),
        ]  # fmt: skip
        data += struct.pack("<H", 13) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        link = len(data)
        data += bytes(4) + pixels + struct.pack("<II", round(1e4 / pixel_size), 1) + note
        data += bytes(len(data) % 2)
    struct.pack_into("<II", data, 8, 54773648, len(data))
    data += struct.pack("<II", 3453623, len(index)) + b"".join(struct.pack("<IIIII", *each) for each in index)
    path.write_bytes(data)
    return path


@pytest.fixture
def files(tmp_path):
    return [stack(tmp_path / f"run_MMStack_Pos{n}.ome.tif", n) for n in range(POSITIONS)]


def whole(path, **options):
    with open_slide(path, **options) as reader:
        return reader.read(Region(0, 0, *SIZE))


def wanted(position):
    return np.stack([plane(position, channel) for channel in range(len(CHANNELS))], axis=2)


def test_tifffile_takes_it_for_micro_manager(files):
    with tifffile.TiffFile(files[0]) as tiff:
        assert tiff.is_mmstack
        assert tiff.series[0].axes == "RCYX"
        assert tiff.series[0].shape[0] == POSITIONS


def test_each_position_is_its_own(files):
    for number, path in enumerate(files):
        with open_slide(path) as reader:
            assert np.array_equal(reader.read(Region(0, 0, *SIZE)), wanted(number))
            assert reader.channel_names == CHANNELS
            assert reader.pixel_size == pytest.approx(0.325, rel=1e-3)


def test_another_position_can_be_asked_for_and_missing_ones_do_no_harm(files):
    assert np.array_equal(whole(files[0], page=2), wanted(2))
    files[0].unlink()
    assert np.array_equal(whole(files[1]), wanted(1))
    files[2].unlink()
    assert np.array_equal(whole(files[1]), wanted(1))
