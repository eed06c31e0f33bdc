"""Label images as OME-Zarr 0.5: sharded, with a pyramid by nearest neighbour, written row by row."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from ..common.files import writing
from ..errors import UsageError
from ..instances import Strip
from .base import Writer, compressors, opening
from .shards import LEVEL, write_shard
from .store import DiscardableStore

#: Edge of a chunk in pixels; a row of chunks is what is held in memory at each level.
CHUNK = 256
#: Width of a shard in pixels: one file holds so many chunks of one row.
SHARD_WIDTH = 4096
#: The pyramid ends when the longer edge is at most this.
SMALLEST = 1024


class LabelsZarr(Writer):
    """Writes ``labels.ome.zarr``.

    The root group is an OME-Zarr label image: int32, axes y and x, 0 is background. Level k keeps
    every 2^k-th row and column, so no label is ever mixed or invented.

    Parameters
    ----------
    path
        The folder to make.
    height, width
        Size of the image in pixels.
    pixel_size
        Micrometres a pixel; without it the axes have no unit.
    name
        Name of the image, for viewers.
    """

    def __init__(
        self,
        path: Path,
        height: int,
        width: int,
        *,
        pixel_size: float | None = None,
        name: str = "labels",
    ) -> None:
        self.path = path
        self._store = DiscardableStore(path)
        self._pool = compressors("cellseg-labels")
        self._committed = False
        self._row = 0
        with writing(path):
            path.mkdir(parents=True)
        with opening(self, path):
            group = zarr.open_group(self._store, mode="w-", zarr_format=3)
            self._levels = [
                _Level(path, group, number, rows, columns, self._pool)
                for number, (rows, columns) in enumerate(pyramid_shapes(height, width))
            ]
            group.attrs["ome"] = _metadata(len(self._levels), pixel_size, name)

    def write(self, strip: Strip) -> None:
        """Take the next strip; writes the rows of chunks that are complete."""
        if strip.y != self._row:
            raise UsageError(f"{self.path}: strip at row {strip.y} comes out of order, wanted {self._row}")
        self._row += len(strip.labels)
        with writing(self.path):
            for number, level in enumerate(self._levels):
                step = 1 << number
                level.push(strip.labels[-strip.y % step :: step, ::step])
            for level in self._levels:
                level.settle()

    def commit(self) -> None:
        """Check that all rows were written."""
        if self._row != self._levels[0].height:
            raise UsageError(f"{self.path}: {self._row} of {self._levels[0].height} rows were written")
        self._pool.shutdown()
        self._committed = True

    def written(self) -> dict[Path, int]:
        """Return the files of all levels, and of their metadata, with their sizes in bytes."""
        shards = [level.written for level in self._levels]
        return self._store.written() | {path: size for level in shards for path, size in level.items()}

    def discard(self) -> None:
        """Remove the folder, unless committed."""
        if not self._committed:
            self._pool.shutdown(cancel_futures=True)
            self._store.discard()


class _Level:
    """One resolution: gathers rows until a row of chunks is full; its shards are written side by side."""

    def __init__(
        self, path: Path, group: Any, number: int, height: int, width: int, pool: ThreadPoolExecutor
    ) -> None:
        self.height = height
        self._pool = pool
        self._pending: list[tuple[Path, Future[int]]] = []
        #: Size in bytes of every shard that is there.
        self.written: dict[Path, int] = {}
        self._folder = path / str(number)
        self._per_shard = min(SHARD_WIDTH // CHUNK, -(-width // CHUNK))
        group.create_array(
            str(number),
            shape=(height, width),
            dtype=np.int32,
            chunks=(CHUNK, CHUNK),
            shards=(CHUNK, self._per_shard * CHUNK),
            fill_value=0,
            dimension_names=("y", "x"),
            # Labels are long runs of equal numbers: shuffling their bytes only breaks these up (measured:
            # plain zstd packs them 146-fold at twice the speed of bit-shuffled blosc, which makes 86).
            compressors=ZstdCodec(level=LEVEL),
        )
        self._rows = np.empty((min(CHUNK, height), width), np.int32)
        self._filled = 0
        self._lent = False  # whether the rows gathered before are still on their way
        self._done = 0  # rows that are written

    def push(self, rows: npt.NDArray[np.int32]) -> None:
        """Append rows of this level, which must not change until :meth:`settle`."""
        while len(rows):
            if not self._filled and len(rows) >= CHUNK:  # a whole row of chunks need not be copied
                self._put(rows[:CHUNK])
                rows = rows[CHUNK:]
                continue
            if self._lent:
                self.settle()
            take = min(len(rows), len(self._rows) - self._filled)
            self._rows[self._filled : self._filled + take] = rows[:take]
            self._filled += take
            rows = rows[take:]
            if self._filled == len(self._rows) or self._done + self._filled == self.height:
                self._put(self._rows[: self._filled])
                self._filled, self._lent = 0, True

    def settle(self) -> None:
        """Wait until all that is full is written."""
        while self._pending:
            path, written = self._pending.pop(0)
            if size := written.result():
                self.written[path] = size
        self._lent = False

    def _put(self, rows: npt.NDArray[np.int32]) -> None:
        """Begin to write one row of chunks."""
        folder = self._folder / "c" / str(self._done // CHUNK)
        wide = self._per_shard * CHUNK
        for number, x in enumerate(range(0, rows.shape[1], wide)):
            path, part = folder / str(number), rows[:, x : x + wide]
            self._pending.append((path, self._pool.submit(write_shard, path, part, CHUNK, self._per_shard)))
        self._done += len(rows)


def pyramid_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Return rows and columns of each level: halved, rounding up, until small enough."""
    shapes = [(height, width)]
    while max(shapes[-1]) > SMALLEST:
        step = 1 << len(shapes)
        shapes.append((-(-height // step), -(-width // step)))
    return shapes


def _metadata(levels: int, pixel_size: float | None, name: str) -> dict[str, Any]:
    """Return the OME record of a label image."""
    unit = {} if pixel_size is None else {"unit": "micrometer"}
    scale = 1.0 if pixel_size is None else float(pixel_size)
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": name,
                "type": "nearest",
                "axes": [{"name": axis, "type": "space", **unit} for axis in "yx"],
                "datasets": [
                    {
                        "path": str(level),
                        "coordinateTransformations": [{"type": "scale", "scale": [scale * (1 << level)] * 2}],
                    }
                    for level in range(levels)
                ],
            }
        ],
        "image-label": {"version": "0.5"},
    }
