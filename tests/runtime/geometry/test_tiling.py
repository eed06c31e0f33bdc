import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.runtime.geometry.tiling import Region, TileGrid, reflect


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    multiple = draw(st.sampled_from([1, 2, 4, 8]))
    halo = multiple * draw(st.integers(0, 3))
    core = multiple * draw(st.integers(1, 5))
    return TileGrid(draw(st.integers(1, 60)), draw(st.integers(1, 60)), core + 2 * halo, halo, multiple)


@given(grids())
def test_cores_partition_the_image(grid: TileGrid) -> None:
    covered = np.zeros((grid.height, grid.width), np.int32)
    indices = []
    for band in grid:
        for tile in band.tiles:
            indices.append(tile.index)
            assert tile.band == band.index
            covered[tile.core.y : tile.core.y1, tile.core.x : tile.core.x1] += 1
            assert (tile.core.y, tile.core.height) == (band.region.y, band.region.height)
    assert (covered == 1).all()
    assert indices == list(range(len(grid)))


@given(grids())
def test_reads_are_whole_aligned_tiles_around_their_cores(grid: TileGrid) -> None:
    for band in grid:
        for tile in band.tiles:
            read, core = tile.read, tile.core
            assert read.height == read.width == grid.tile
            assert read.y % grid.multiple == 0
            assert read.x % grid.multiple == 0
            assert core.y - read.y == core.x - read.x == grid.halo
            assert read.y1 - core.y1 >= grid.halo
            assert read.x1 - core.x1 >= grid.halo


@given(grids())
def test_rows_of_a_band_are_just_those_its_tiles_refer_to(grid: TileGrid) -> None:
    previous = 0
    for band in grid:
        read = band.tiles[0].read
        seen = [reflect(y, grid.height) for y in range(read.y, read.y1)]
        assert (band.rows.y, band.rows.y1) == (min(seen), max(seen) + 1)
        assert band.rows.height <= grid.tile + 1
        assert band.rows.y >= previous  # a reader never goes back
        previous = band.rows.y


@given(st.integers(1, 9), st.integers(0, 40))
def test_reflect_is_numpys(size: int, pad: int) -> None:
    line = np.arange(size)
    expected = np.pad(line, pad, mode="reflect") if size > 1 else np.zeros(size + 2 * pad, int)
    assert [reflect(i, size) for i in range(-pad, size + pad)] == expected.tolist()


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([1, 8, 48]))
def test_fitting_wastes_no_more_than_the_largest_tile(height: int, width: int, multiple: int) -> None:
    tile, halo = 480, 48
    grid = TileGrid.fitting(height, width, tile, halo, multiple)
    assert grid.tile <= tile
    assert grid.useful_fraction >= TileGrid(height, width, tile, halo, multiple).useful_fraction


def test_fitting_shrinks_tiles() -> None:
    small = TileGrid.fitting(250, 250, 512, 32, 8)
    assert (small.tile, len(small)) == (320, 1)
    balanced = TileGrid.fitting(1000, 1000, 512, 32, 8)
    assert (balanced.tile, len(balanced)) == (416, 9)
    assert TileGrid.fitting(8 * 448, 8 * 448, 512, 32, 8).tile == 512


def test_useful_fraction() -> None:
    assert TileGrid(64, 128, 128, 32, 8).useful_fraction == 64 * 128 / (2 * 128 * 128)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, 16, 0, 1), "at least one pixel"),
        ((5, 5, 20, 4, 8), "tile 20 is not a multiple of 8"),
        ((5, 5, 16, 4, 8), "halo 4 is not a multiple of 8"),
        ((5, 5, 16, 8, 8), "smallest tile is 24"),
    ],
)
def test_impossible_grids_say_why(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TileGrid(*arguments)


def test_band_out_of_range() -> None:
    with pytest.raises(IndexError):
        TileGrid(5, 5, 16, 0).band(1)


def test_region_edges() -> None:
    region = Region(2, 3, 4, 5)
    assert (region.y1, region.x1, region.area) == (6, 8, 20)
