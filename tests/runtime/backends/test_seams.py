"""Tiles of every size give the same bytes, in whatever an engine computes, once the halo is wide enough."""

import cv2
import numpy as np
import pytest

from cellseg.runtime.backends import Options, open_backend
from cellseg.runtime.backends.base import Backend

#: Pixels a side that are compared.
CORE = 96
#: Part of the bytes that may be another in fp32, by one: the engine adds up in an order that depends on the
#: tile's size, and a value on the border between two bytes falls to either.
ON_THE_BORDER = 1e-4


def planes_of(backend: Backend, picture: np.ndarray, tile: int, batch: int) -> np.ndarray:
    """Return the planes of the middle of a picture, as the middle of a tile of one of its tile sizes."""
    corner = (len(picture) - tile) // 2 // 8 * 8
    with backend.prepared(tile, batch):
        cut = picture[corner : corner + tile, corner : corner + tile]
        planes = backend.submit(np.repeat(cut[None], batch, axis=0)).result()
    start = (len(picture) - CORE) // 2 - corner
    return planes[-1, :, start : start + CORE, start : start + CORE]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_bytes_do_not_depend_on_the_size_of_a_tile(precision: str) -> None:
    """Also in bfloat16: what was taken for its rounding was a halo shorter than the receptive field."""
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (640, 640, 3), np.uint8), (0, 0), 3)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    with open_backend(None, "cpu", engine="openvino", options=Options(precision=precision)) as backend:  # type: ignore[arg-type]
        allowed = ON_THE_BORDER if backend.precision == "fp32" else 0
        multiple, reach = backend.spec.multiple, backend.spec.receptive_field
        least = CORE + 2 * (reach + -reach % multiple)
        assert least <= 320
        wanted = planes_of(backend, picture, 512, 1)
        assert len(np.unique(wanted)) > 50  # it sees something
        for tile, batch in ((320, 1), (320, 3), (384, 1), (456, 1), (640, 1)):
            off = np.abs(planes_of(backend, picture, tile, batch).astype(int) - wanted)
            assert off.max() <= 1
            assert np.count_nonzero(off) <= allowed * off.size
