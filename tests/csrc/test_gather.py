from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellseg.runtime.geometry.tiling import reflect
from cellseg.runtime.intensity.normalization import DTYPES, Normalization, luma
from cellseg.runtime.kernels.gather import gather, use_instructions


def reference(
    image: NDArray[Any],
    origin: tuple[int, int],
    tile: int,
    pick: list[int],
    grey: bool,
    mapping: Normalization,
) -> NDArray[np.uint8]:
    """What a tile of one channel or three must hold, in plain NumPy."""
    y = [reflect(origin[0] + i, image.shape[0]) for i in range(tile)]
    x = [reflect(origin[1] + i, image.shape[1]) for i in range(tile)]
    raw = image[np.ix_(y, x, pick)]
    return mapping.apply(luma(raw) if grey else raw)


@pytest.fixture(params=[0, 1, 2, 3], ids=["baseline", "avx2", "avx512", "vbmi"])
def instructions(request: pytest.FixtureRequest) -> Any:
    if use_instructions(request.param) != request.param:
        pytest.skip("this CPU lacks these instructions")
    yield
    use_instructions()


def make(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> tuple[NDArray[Any], Normalization]:
    if dtype == "float32":
        image = rng.normal(0, 1, shape).astype(dtype)
        image[rng.random(shape) < 0.05] = np.nan
        image[rng.random(shape) < 0.02] = np.inf
        return image, Normalization(-0.7, 1.3, dtype)
    top = np.iinfo(dtype).max
    low = int(rng.integers(0, top))
    return rng.integers(0, top + 1, shape).astype(dtype), Normalization(
        low, int(rng.integers(low + 1, top + 1)), dtype
    )


def run(
    image: NDArray[Any],
    origins: list[tuple[int, int]],
    batch: NDArray[np.uint8],
    pick: list[int],
    grey: bool,
    mapping: Normalization,
    top: int = 0,
    height: int | None = None,
) -> None:
    fixed = (0, 0, 0, 0) if mapping.dtype == "float32" else mapping.fixed_point
    gather(
        image, top, height or image.shape[0], np.array(origins, np.int64).reshape(-1, 2), batch,
        np.array(pick, np.int32), grey, *fixed, float(mapping.offset), float(mapping.scale),
    )  # fmt: skip


CHOICES = [(1, [0], False), (3, [0], False), (3, [2], False), (3, [0, 1, 2], False), (3, [2, 0, 0], False),
           (1, [0, 1, 2], True), (1, [1], False)]  # fmt: skip


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("wanted", "pick", "grey"), CHOICES)
def test_equals_numpy(dtype: str, wanted: int, pick: list[int], grey: bool) -> None:
    rng = np.random.default_rng(7)
    channels = max(pick) + 1
    image, mapping = make(rng, (70, 150, channels), dtype)
    origins = [(-5, -9), (3, 11), (40, 110), (69, 149)]
    tile = 67  # not a multiple of any vector width
    batch = np.full((5, tile, tile, wanted), 77, np.uint8)
    run(image, origins, batch, pick, grey, mapping)
    for n, origin in enumerate(origins):
        expected = reference(image, origin, tile, pick, grey, mapping)
        assert (batch[n] == expected).all()  # one channel broadcasts to three
    assert (batch[4] == 77).all()


@settings(deadline=None)
@given(st.data(), st.sampled_from(DTYPES), st.sampled_from(CHOICES))
def test_any_size_any_origin(data: st.DataObject, dtype: str, choice: tuple[int, list[int], bool]) -> None:
    wanted, pick, grey = choice
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    tile = data.draw(st.integers(1, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    image, mapping = make(rng, (height, width, max(pick) + data.draw(st.integers(1, 2))), dtype)
    origins = data.draw(st.lists(st.tuples(st.integers(-30, 30), st.integers(-30, 30)), max_size=3))
    batch = np.zeros((3, tile, tile, wanted), np.uint8)
    run(image, origins, batch, pick, grey, mapping)
    for n, origin in enumerate(origins):
        assert (batch[n] == reference(image, origin, tile, pick, grey, mapping)).all()


def test_rows_may_be_a_part_of_the_image() -> None:
    image, mapping = make(np.random.default_rng(1), (40, 30, 3), "uint8")
    batch = np.zeros((1, 16, 16, 3), np.uint8)
    run(image[20:].copy(), [(30, 8)], batch, [0, 1, 2], False, mapping, top=20, height=40)
    assert (batch[0] == reference(image, (30, 8), 16, [0, 1, 2], False, mapping)).all()


def test_read_only_rows_are_accepted() -> None:
    image, mapping = make(np.random.default_rng(1), (8, 8, 1), "uint8")
    image.setflags(write=False)
    batch = np.zeros((1, 4, 4, 1), np.uint8)
    run(image, [(0, 0)], batch, [0], False, mapping)
    assert (batch[0] == reference(image, (0, 0), 4, [0], False, mapping)).all()
