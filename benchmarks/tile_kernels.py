"""Cases of cutting an image into tiles and joining their planes, against copying as many bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rivals import Case

from cellseg.runtime.geometry.tiling import TileGrid
from cellseg.runtime.intensity.channels import ChannelChoice
from cellseg.runtime.intensity.normalization import Normalization
from cellseg.runtime.streaming.bands import BandRows, TileGatherer
from cellseg.runtime.streaming.blend import Blender
from cellseg.runtime.streaming.stitch import Cores, Stitcher

#: Tile edge and halo, pixels.
TILE, HALO = 512, 32


class Tiling:
    """A square image's grid, and what its tiles are cut into and joined from.

    Parameters
    ----------
    size
        Edge of the image in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.grid = TileGrid(size, size, TILE, HALO)
        self.bands = list(self.grid)
        rng = np.random.default_rng(0)
        self.raw = rng.integers(0, 4000, (size, size, 3)).astype(np.uint16)
        self.batch = np.zeros((self.grid.n_columns, TILE, TILE, 3), np.uint8)
        self.planes = rng.integers(0, 256, (self.grid.n_columns, 3, TILE, TILE)).astype(np.uint8)
        self.out = np.zeros((3, size, size), np.uint8)

    @property
    def written(self) -> int:
        """Bytes of all tiles of three channels."""
        return len(self.grid) * TILE * TILE * 3

    def gather(
        self, image: NDArray[np.generic], pick: tuple[int, ...], mapping: Normalization
    ) -> Callable[[], None]:
        """Return a call that cuts every tile of an image."""
        gatherer = TileGatherer(self.grid, ChannelChoice(pick), mapping)
        sources = [BandRows(band, image[band.rows.y : band.rows.y1], image) for band in self.bands]

        def run() -> None:
            for source in sources:
                gatherer(source, source.band.tiles, self.batch)

        return run

    def slices(self, image: NDArray[np.uint8], table: NDArray[np.uint8]) -> Callable[[], None]:
        """Return a call that does so by slices of a padded image, and looks bytes up in a table."""
        padded = np.pad(image, ((HALO, TILE), (HALO, TILE), (0, 0)), mode="reflect")

        def run() -> None:
            for band in self.bands:
                for index, tile in enumerate(band.tiles):
                    self.batch[index] = table[padded[tile.core.y :, tile.core.x :][:TILE, :TILE]]

        return run

    def join(self, stitcher: Stitcher) -> Callable[[], None]:
        """Return a call that joins the planes of all tiles, band by band."""

        def run() -> None:
            for band in self.bands:
                rows = stitcher.rows(band)
                target = self.out.reshape(-1)[: 3 * rows.area].reshape(3, rows.height, self.size)
                stitcher.add(self.planes, band.tiles, band, target)
                stitcher.finish(band, target)

        return run

    def monai(self) -> object:
        """Slide a window over an image as MONAI does, with a network that does nothing."""
        import torch
        from monai.inferers import sliding_window_inference

        picture = torch.zeros(1, 3, self.size, self.size)
        return sliding_window_inference(picture, TILE, 4, lambda x: x, overlap=2 * HALO / TILE)

    def merger(self) -> object:
        """Join the planes with tiler's weighted merger."""
        from tiler import Merger, Tiler

        cutter = Tiler((3, self.size, self.size), (3, TILE, TILE), overlap=2 * HALO, channel_dimension=0)
        merger = Merger(cutter, window="hann")
        for index in range(len(cutter)):
            merger.add(index, self.planes[index % len(self.planes)])
        return merger.merge(unpad=True)


def copy(read: int, wrote: int) -> Callable[[], None]:
    """Return a call that moves as many bytes, read and written together."""
    count = (read + wrote) // 2
    source, target = np.ones(count, np.uint8), np.empty(count, np.uint8)
    return lambda: np.copyto(target, source)


def gather_cases(tiling: Tiling) -> list[Case]:
    """Cut tiles from pixels of 8, 16 and 32 bits."""
    raw, written = tiling.raw, tiling.written
    narrow = (raw >> 4).astype(np.uint8)
    mapping = Normalization(20, 230, "uint8")
    table = mapping.lookup()
    assert table is not None
    return [
        Case(
            "gather 8-bit RGB",
            tiling.gather(narrow, (0, 1, 2), mapping),
            {
                "memory copy": copy(written, written),
                "NumPy slices and a lookup": tiling.slices(narrow, table),
            },
        ),
        Case(
            "gather 8-bit grey to RGB",
            tiling.gather(narrow[:, :, :1].copy(), (0,), mapping),
            {"memory copy": copy(written // 3, written)},
        ),
        Case(
            "gather 16-bit RGB",
            tiling.gather(raw, (0, 1, 2), Normalization(100, 3800, "uint16")),
            {"memory copy": copy(2 * written, written)},
        ),
        Case(
            "gather float RGB",
            tiling.gather(raw.astype(np.float32), (0, 1, 2), Normalization(100, 3800, "float32")),
            {"memory copy": copy(4 * written, written)},
        ),
    ]


def tile_cases(size: int) -> list[Case]:
    """Cut an image into tiles, and put planes of tiles together."""
    tiling = Tiling(size)
    planes = 3 * size * size
    return [
        *gather_cases(tiling),
        Case(
            "stitch 3 planes",
            tiling.join(Cores(tiling.grid)),
            {"memory copy": copy(planes, planes)},
        ),
        Case(
            "blend 3 planes, Hann weights",
            tiling.join(Blender(tiling.grid, 3, "hann")),
            {
                "memory copy": copy(tiling.written, planes),
                "tiler Merger, Hann": tiling.merger,
                "MONAI sliding_window_inference, constant weights, no network": tiling.monai,
            },
        ),
    ]
