"""Pictures as PNG come back as they were, by readers that are not ours."""

import zlib

import cv2
import numpy as np
import pytest

from cellseg.runtime.writers.png import encode_png


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (33, 64), (300, 257)])
def test_pixels_come_back(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    for each in (pixels, pixels[::-1], np.zeros_like(pixels)):
        data = encode_png(each)
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert (found[:, :, ::-1] == each).all()


def test_every_part_has_its_checksum() -> None:
    """Strict readers refuse a file without."""
    data = encode_png(np.full((20, 30, 3), 7, np.uint8))[8:]
    kinds = []
    while data:
        length = int.from_bytes(data[:4], "big")
        kinds.append(data[4:8])
        assert int.from_bytes(data[8 + length : 12 + length], "big") == zlib.crc32(data[4 : 8 + length])
        data = data[12 + length :]
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
