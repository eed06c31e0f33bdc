"""The network's own planes, for those who want to look at them: ``planes.ome.zarr``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from ..common.files import writing
from ..errors import UsageError
from .base import Discarding, opening
from .pyramid import CHUNK, SHARD_WIDTH, pyramid_shapes
from .store import DiscardableStore

#: Colours in which viewers show the planes, as RRGGBB.
COLOURS = {"mask": "FFFFFF", "boundary": "FF8800", "density": "00C0FF"}


class PlanesZarr(Discarding):
    """Writes bytes of every head as a multiscale OME-Zarr image, axes c, y and x.

    It takes rows of planes instead of strips of labels; else it behaves as a
    :class:`~cellseg.runtime.writers.Writer`. Each level halves the one before by averaging.

    Parameters
    ----------
    path
        The folder to make.
    heads
        Names of the planes.
    height, width
        Size of the planes in pixels.
    pixel_size
        Micrometres a pixel of the slide, where known.
    full_size
        Height and width of the slide in its pixels, where the planes are of another size. The record
        says how large a pixel of theirs is and where it lies, so that viewers lay them over the slide.
    """

    def __init__(
        self,
        path: Path,
        heads: Sequence[str],
        height: int,
        width: int,
        *,
        pixel_size: float | None = None,
        full_size: tuple[int, int] | None = None,
    ) -> None:
        tall, wide = full_size or (height, width)
        self.path = path
        self._store = DiscardableStore(path)
        self._committed = False
        with writing(path):
            path.mkdir(parents=True)
        with opening(self, path):
            group: Any = zarr.open_group(self._store, mode="w-", zarr_format=3)
            shapes = pyramid_shapes(height, width)
            self._levels = [
                _Level(group, number, (len(heads), *shape)) for number, shape in enumerate(shapes)
            ]
            group.attrs["ome"] = _metadata(heads, len(shapes), pixel_size, (tall / height, wide / width))

    def push(self, planes: npt.NDArray[np.uint8]) -> None:
        """Take the next rows.

        Parameters
        ----------
        planes
            Shape (heads, rows, width), any number of rows.

        Raises
        ------
        OutputError
            They cannot be written.
        """
        with writing(self.path):
            for number, level in enumerate(self._levels):
                full = level.push(planes)
                if number + 1 == len(self._levels) or not full.shape[1]:
                    return
                planes = _halved(full)

    def commit(self) -> None:
        """Check that all rows were written."""
        for level in self._levels:
            if level.written != level.height:
                raise UsageError(f"{self.path}: {level.written} of {level.height} rows were written")
        self._committed = True

    def written(self) -> dict[Path, int]:
        """Return the files of all levels, and of their metadata, with their sizes in bytes."""
        return self._store.written()

    def discard(self) -> None:
        """Remove the folder, unless committed."""
        if not self._committed:
            self._store.discard()


class _Level:
    """One resolution: gathers rows until a row of chunks is full."""

    def __init__(self, group: Any, number: int, shape: tuple[int, int, int]) -> None:
        heads, self.height, width = shape
        self._array = group.create_array(
            str(number),
            shape=shape,
            dtype=np.uint8,
            chunks=(1, CHUNK, CHUNK),
            shards=(heads, CHUNK, min(SHARD_WIDTH, -(-width // CHUNK) * CHUNK)),
            fill_value=0,
            dimension_names=("c", "y", "x"),
            compressors=ZstdCodec(level=1),
        )
        self._rows = np.empty((heads, min(CHUNK, self.height), width), np.uint8)
        self._filled = 0
        self.written = 0

    def push(self, planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Append rows; return the rows that were written, whose number is even but at the end."""
        done = []
        at = 0
        while at < planes.shape[1]:
            take = min(planes.shape[1] - at, self._rows.shape[1] - self._filled)
            self._rows[:, self._filled : self._filled + take] = planes[:, at : at + take]
            self._filled += take
            at += take
            end = self.written + self._filled
            if self._filled == self._rows.shape[1] or end == self.height:
                self._array[:, self.written : end] = self._rows[:, : self._filled]
                done.append(self._rows[:, : self._filled].copy())
                self.written, self._filled = end, 0
        return np.concatenate(done, axis=1) if done else planes[:, :0]


def _halved(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Average 2 × 2 pixels, those at an odd end with themselves; rounds half up."""
    heads, rows, columns = planes.shape
    padded = np.pad(planes, ((0, 0), (0, rows % 2), (0, columns % 2)), mode="edge")
    quads = padded.reshape(heads, (rows + 1) // 2, 2, (columns + 1) // 2, 2)
    return np.asarray((quads.sum(axis=(2, 4), dtype=np.uint16) + 2) >> 2, np.uint8)


def _metadata(
    heads: Sequence[str], levels: int, pixel_size: float | None, factors: tuple[float, float]
) -> dict[str, Any]:
    """Return the OME record of the image; ``factors`` are slide pixels a pixel along y and x."""
    unit = {} if pixel_size is None else {"unit": "micrometer"}
    scale = 1.0 if pixel_size is None else float(pixel_size)
    datasets = []
    for level in range(levels):
        step = 1 << level
        sizes = [scale * factor * step for factor in factors]
        # The slide's first pixel is centred at 0, as in the label image; a larger one further on.
        shifts = [(size - scale) / 2 for size in sizes]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, *sizes]},
                    {"type": "translation", "translation": [0.0, *shifts]},
                ],
            }
        )
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": "planes",
                "type": "mean",
                "axes": [
                    {"name": "c", "type": "channel"},
                    *({"name": axis, "type": "space", **unit} for axis in "yx"),
                ],
                "datasets": datasets,
            }
        ],
        "omero": {
            "channels": [
                {"label": head, "color": COLOURS.get(head, "FFFFFF"), "window": window, "active": True}
                for head in heads
            ]
        },
    }
