from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellseg.runtime.errors import ImageError
from cellseg.runtime.geometry.tiling import Region, TileGrid, reflect
from cellseg.runtime.intensity.channels import ChannelChoice
from cellseg.runtime.intensity.normalization import Normalization
from cellseg.runtime.readers import ArrayReader
from cellseg.runtime.streaming import bands
from cellseg.runtime.streaming.bands import TileGatherer, read_bands, row_buffer
from cellseg.runtime.streaming.stitch import Cores


class CountingReader(ArrayReader):
    """Counts how often each row is read."""

    def __init__(self, array: NDArray[Any]) -> None:
        super().__init__(array)
        self.counts = np.zeros(len(array), int)

    def _read(self, region: Region, level: int) -> NDArray[Any]:
        self.counts[region.y : region.y1] += 1
        return super()._read(region, level)


@given(st.data(), st.integers(1, 3))
def test_bands_hold_their_rows_and_each_row_is_read_once(data: st.DataObject, buffers: int) -> None:
    height, width = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 5))
    halo, core = data.draw(st.integers(0, 7)), data.draw(st.integers(1, 12))
    image = np.arange(height * width * 2, dtype=np.uint16).reshape(height, width, 2)
    grid, reader = TileGrid(height, width, core + 2 * halo, halo), CountingReader(image)
    pool = [row_buffer(reader, grid) for _ in range(buffers)]
    step = data.draw(st.sampled_from([1, 64, 1 << 20]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "READ_BYTES", step)
        taken = iter(range(10**6))
        for source in read_bands(reader, grid, lambda: pool[next(taken) % buffers]):
            band = source.band
            assert (source.rows == image[band.rows.y : band.rows.y1]).all()
            assert (source.core == image[band.region.y : band.region.y1]).all()
            read = band.tiles[0].read
            assert all(band.rows.y <= reflect(y, height) < band.rows.y1 for y in range(read.y, read.y1))
    assert (reader.counts == 1).all()


def test_a_reader_that_breaks_its_promise_is_named() -> None:
    class Shrunk(ArrayReader):
        def _read(self, region: Region, level: int) -> NDArray[Any]:
            return super()._read(region, level)[:-1]

    reader = Shrunk(np.zeros((9, 9), np.uint8), "odd.tif")
    grid = TileGrid(9, 9, 4, 1)
    with pytest.raises(ImageError, match=r"odd\.tif: rows 0 to .* expected uint8"):
        next(read_bands(reader, grid, lambda: row_buffer(reader, grid)))


@given(st.data())
def test_cut_and_stitched_is_the_mapped_image(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    halo, core = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 9))
    image = np.random.default_rng(0).integers(0, 999, (height, width, 3)).astype(np.uint16)
    mapping = Normalization(100, 900, "uint16")
    grid, reader = TileGrid(height, width, core + 2 * halo, halo), ArrayReader(image)
    gatherer, stitcher = TileGatherer(grid, ChannelChoice((2, 0, 1)), mapping), Cores(grid)
    expected = mapping.apply(image[:, :, [2, 0, 1]])
    for source in read_bands(reader, grid, lambda: row_buffer(reader, grid)):
        tiles = source.band.tiles
        batch = np.zeros((len(tiles) + 1, grid.tile, grid.tile, 3), np.uint8)
        gatherer(source, tiles, batch)
        planes = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
        region = source.band.region
        out = np.zeros((3, region.height, width), np.uint8)
        stitcher.add(planes, tiles, source.band, out)
        assert stitcher.rows(source.band) == region
        assert (out.transpose(1, 2, 0) == expected[region.y : region.y1]).all()


def test_the_mapping_must_be_of_the_slides_type() -> None:
    reader, grid = ArrayReader(np.zeros((9, 9), np.uint8)), TileGrid(9, 9, 4, 1)
    source = next(read_bands(reader, grid, lambda: row_buffer(reader, grid)))
    gatherer = TileGatherer(grid, ChannelChoice((0,)), Normalization(0, 1, "float32"))
    with pytest.raises(ValueError, match="mapping is for float32"):
        gatherer(source, source.band.tiles, np.zeros((4, 4, 4, 1), np.uint8))
