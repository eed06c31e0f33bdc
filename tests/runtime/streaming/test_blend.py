"""Blended overlaps against plain NumPy, for any tiling, order and batch."""

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellseg.runtime.geometry.tiling import TileGrid
from cellseg.runtime.kernels.stitch import use_instructions
from cellseg.runtime.options import Blend
from cellseg.runtime.streaming.blend import WHOLE, Blender, blend_weights

KINDS = [kind for kind in get_args(Blend) if kind != "none"]


def reference(grid: TileGrid, planes: NDArray[np.uint8], kind: Blend) -> NDArray[np.uint8]:
    """The whole image's average, rounded half up; ``planes`` (tiles, K, T, T) by index."""
    halo, tile = grid.halo, grid.tile
    down = blend_weights(grid.height, tile, halo, kind).astype(np.int64)
    across = blend_weights(grid.width, tile, halo, kind).astype(np.int64)
    size = grid.height + 2 * tile, grid.width + 2 * tile
    sums, total = np.zeros((planes.shape[1], *size), np.int64), np.zeros(size, np.int64)
    for band in grid:
        for t in band.tiles:
            place = slice(t.read.y + tile, t.read.y1 + tile), slice(t.read.x + tile, t.read.x1 + tile)
            weights = down[band.index][:, None] * across[t.index % grid.n_columns]
            sums[:, *place] += weights * planes[t.index]
            total[place] += weights
    inner = slice(tile, tile + grid.height), slice(tile, tile + grid.width)
    assert (total[inner] == WHOLE**2).all()
    return ((sums[:, *inner] + WHOLE**2 // 2) // WHOLE**2).astype(np.uint8)


def blended(
    grid: TileGrid, planes: NDArray[np.uint8], kind: Blend, rng: np.random.Generator, batch: int
) -> NDArray[np.uint8]:
    """The same in bands, the tiles of each in any order and in batches."""
    heads = planes.shape[1]
    blender, found = Blender(grid, heads, kind), []
    for band in grid:
        rows = blender.rows(band)
        assert rows.height <= blender.most_rows
        assert band.rows.y <= rows.y
        assert rows.y1 <= band.rows.y1
        out = np.full((heads, rows.height, grid.width), 99, np.uint8)
        tiles = [band.tiles[i] for i in rng.permutation(len(band.tiles))]
        for start in range(0, len(tiles), batch):
            part = tiles[start : start + batch]
            spare = np.zeros((1, heads, grid.tile, grid.tile), np.uint8)
            blender.add(np.concatenate([planes[[t.index for t in part]], spare]), part, band, out)
        blender.finish(band, out)
        found.append(out)
    return np.concatenate(found, axis=1)


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(1, 9),
    st.integers(0, 7),
    st.integers(1, 2),
    st.integers(1, 4),
    st.sampled_from(KINDS),
    st.integers(0, 99),
)
def test_equals_numpy_in_any_order(
    size: tuple[int, int], core: int, halo: int, heads: int, batch: int, kind: Blend, seed: int
) -> None:
    grid = TileGrid(*size, core + 2 * halo, halo)
    rng = np.random.default_rng(seed)
    planes = rng.integers(0, 256, (len(grid), heads, grid.tile, grid.tile)).astype(np.uint8)
    expected = reference(grid, planes, kind)
    assert (blended(grid, planes, kind, rng, batch) == expected).all()


@pytest.fixture(params=[0, 1, 2], ids=["baseline", "avx2", "avx512"])
def instructions(request: pytest.FixtureRequest) -> Any:
    if use_instructions(request.param) < request.param:
        pytest.skip("this CPU lacks these instructions")
    yield
    use_instructions()


@pytest.mark.parametrize("halo", [13, 24, 41])
def test_equals_numpy_with_every_instruction_set(instructions: None, halo: int) -> None:
    """Overlaps wide enough for vectors, and for what is left over."""
    grid = TileGrid(331, 277, 120, halo)
    rng = np.random.default_rng(halo)
    planes = rng.integers(0, 256, (len(grid), 2, grid.tile, grid.tile)).astype(np.uint8)
    assert (blended(grid, planes, "hann", rng, 3) == reference(grid, planes, "hann")).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0, 1, 254, 255])
def test_tiles_that_agree_stay_as_they_are(kind: Blend, value: int) -> None:
    """Also with very many overlaps."""
    grid = TileGrid(37, 41, 33, 16)
    planes = np.full((len(grid), 1, 33, 33), value, np.uint8)
    assert (blended(grid, planes, kind, np.random.default_rng(0), 64) == value).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tile", "halo"), [(512, 32), (512, 128), (96, 40), (16, 0), (2896, 1447)])
def test_weights_are_those_of_the_curve(kind: Blend, tile: int, halo: int) -> None:
    size, core = 4 * tile + 5, tile - 2 * halo
    weights = blend_weights(size, tile, halo, kind).astype(int)
    count = -(-size // core)
    assert weights.shape == (count, tile)
    place = np.arange(tile) + 0.5
    curve = (
        np.sin(np.pi * place / tile) ** 2
        if kind == "hann"
        else np.exp(-(((place - tile / 2) * 8 / tile) ** 2) / 2)
    )
    total, exact = np.zeros(size), np.zeros(size)
    for index in range(count):
        x = np.arange(tile) + index * core - halo
        inside = (x >= 0) & (x < size)
        total[x[inside]] += weights[index][inside]
        exact[x[inside]] += curve[inside]
        assert (weights[index][~inside] == 0).all()
    assert (total == WHOLE).all()
    for index in range(0, count, max(1, count // 9)):
        x = np.arange(tile) + index * core - halo
        inside = (x >= 0) & (x < size)
        assert np.abs(weights[index][inside] - WHOLE * curve[inside] / exact[x[inside]]).max() <= 1
