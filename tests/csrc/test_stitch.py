import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.runtime.geometry.tiling import TileGrid
from cellseg.runtime.kernels.stitch import stitch


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(0, 4), st.integers(1, 3))
def test_cut_and_stitched_is_the_image(height: int, width: int, core: int, halo: int, heads: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (heads, height, width)).astype(np.uint8)
    grid = TileGrid(height, width, core + 2 * halo, halo)
    padded = np.full((heads, height + 2 * grid.tile, width + 2 * grid.tile), 99, np.uint8)
    padded[:, halo : halo + height, halo : halo + width] = image
    for band in grid:
        cut = np.stack([padded[:, t.core.y :, t.core.x :][:, : grid.tile, : grid.tile] for t in band.tiles])
        cores = [(0, t.core.x, t.core.height, t.core.width) for t in band.tiles]
        planes = np.full((heads, band.region.height, width), 7, np.uint8)
        stitch(cut, np.array(cores, np.int64), halo, planes)
        assert (planes == image[:, band.region.y : band.region.y1]).all()


def test_leaves_the_rest_alone() -> None:
    planes = np.full((1, 4, 6), 7, np.uint8)
    stitch(np.ones((2, 1, 4, 4), np.uint8), np.array([[1, 2, 2, 3]], np.int64), 1, planes)
    assert (planes[0, 1:3, 2:5] == 1).all()
    assert (planes == 7).sum() == 24 - 6
