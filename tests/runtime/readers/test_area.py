"""Area averaging against matrices of overlaps, whatever strips the picture comes in."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellseg.runtime.readers.area import Shrinker


def overlaps(size: int, out: int) -> NDArray[np.float64]:
    """Share of each source pixel in each pixel of the result, shape (out, size)."""
    source, target = np.arange(size) * out, np.arange(out)[:, None] * size
    return np.clip(np.minimum(source + out, target + size) - np.maximum(source, target), 0, None) / size


def shrunk(picture: NDArray[Any], height: int, width: int, strip: int) -> NDArray[Any]:
    shrinker = Shrinker(*picture.shape[:2], height, width, picture.dtype)
    for y in range(0, len(picture), strip):
        shrinker.push(picture[y : y + strip])
    return shrinker.result()


@settings(deadline=None)
@given(st.data(), st.integers(1, 50), st.integers(1, 40), st.integers(1, 5))
def test_equals_numpy_in_any_strips(data: st.DataObject, height: int, width: int, channels: int) -> None:
    out = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "float32"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    picture = (rng.random((height, width, channels)) * (65535 if dtype == "uint16" else 255)).astype(dtype)
    found = shrunk(picture, *out, data.draw(st.integers(1, 60)))
    exact = np.einsum(
        "ir,rcx,jc->ijx", overlaps(height, out[0]), picture.astype(float), overlaps(width, out[1])
    )
    assert found.dtype == picture.dtype
    assert np.abs(found - exact).max() <= (0.55 if dtype != "float32" else 1e-3)
    assert (found == shrunk(picture, *out, height)).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_same_size_is_the_same_picture(dtype: str) -> None:
    picture = (np.random.default_rng(0).random((20, 30, 3)) * 255).astype(dtype)
    assert (shrunk(picture, 20, 30, 7) == picture).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_counts_as_nothing(bad: float) -> None:
    picture = np.full((8, 8, 1), 4, np.float32)
    picture[0, 0] = bad
    assert (shrunk(picture, 2, 2, 3)[:, :, 0] == [[3.75, 4], [4, 4]]).all()
