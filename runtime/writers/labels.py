"""Label images as OME-Zarr 0.5: sharded, with a pyramid by nearest neighbour, written row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from ..common.files import writing
from ..errors import UsageError
from ..instances import Strip
from .base import Writer, compressors, opening
from .pyramid import CHUNK, PyramidWriter, pyramid_shapes, shard_chunks
from .shards import LEVEL
from .store import DiscardableStore

#: A label image of a strip.
LabelField = Literal["labels", "whole"]


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
    field
        Which label image of the strips: ``labels``, or ``whole`` for whole cells.
    """

    stage = "labels"

    def __init__(
        self,
        path: Path,
        height: int,
        width: int,
        *,
        pixel_size: float | None = None,
        name: str = "labels",
        field: LabelField = "labels",
    ) -> None:
        self.path = path
        self._field = field
        self._store = DiscardableStore(path)
        self._pool, threads = compressors("cellseg-labels")
        self._committed = False
        self._height, self._row = height, 0
        shapes = pyramid_shapes(height, width)
        with writing(path):
            path.mkdir(parents=True)
        with opening(self, path):
            create_group(self._store, shapes, pixel_size, name)
        self._pyramid = PyramidWriter(path, shapes, self._pool, threads)

    def write(self, strip: Strip) -> None:
        """Take the next strip; begins to write the rows of chunks that are complete."""
        if strip.y != self._row:
            raise UsageError(f"{self.path}: strip at row {strip.y} comes out of order, wanted {self._row}")
        self._row += len(strip.labels)
        with writing(self.path):
            self._pyramid.push(getattr(strip, self._field))

    def commit(self) -> None:
        """Check that all rows were given, and wait until they are written."""
        if self._row != self._height:
            raise UsageError(f"{self.path}: {self._row} of {self._height} rows were written")
        with writing(self.path):
            self._pyramid.finish()
        self._pool.shutdown()
        self._committed = True

    def written(self) -> dict[Path, int]:
        """Return the files of all levels, and of their metadata, with their sizes in bytes."""
        return self._store.written() | self._pyramid.written

    def discard(self) -> None:
        """Remove the folder, unless committed."""
        if not self._committed:
            self._pool.shutdown(cancel_futures=True)
            self._store.discard()


def create_group(
    store: DiscardableStore, shapes: Sequence[tuple[int, int]], pixel_size: float | None, name: str
) -> None:
    """Make the group and its arrays, without any shard of theirs."""
    group = zarr.open_group(store, mode="w-", zarr_format=3)
    for number, shape in enumerate(shapes):
        _create_level(group, number, shape)
    group.attrs["ome"] = _metadata(len(shapes), pixel_size, name)


def _create_level(group: Any, number: int, shape: tuple[int, int]) -> None:
    """Make the array of one resolution; its shards are written without zarr."""
    group.create_array(
        str(number),
        shape=shape,
        dtype=np.int32,
        chunks=(CHUNK, CHUNK),
        shards=tuple(count * CHUNK for count in shard_chunks(*shape)),
        fill_value=0,
        dimension_names=("y", "x"),
        # Labels are long runs of equal numbers: shuffling their bytes only breaks these up (measured:
        # plain zstd packs them 146-fold at twice the speed of bit-shuffled blosc, which makes 86).
        compressors=ZstdCodec(level=LEVEL),
    )


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
