"""Outlines and measurements for QuPath: ``cells.geojson.gz``, written as a stream.

Each cell is a feature of ``objectType`` *detection* (annotations are unusably slow by the million)
with a closed ring in full-resolution pixels, an identifier and its measurements. The file is a gzip
of several members, each a block of cells, so that blocks are compressed side by side.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from ..features import capacity, write_features
from ..instances import Cells, Strip
from .base import Writer, writing
from .table import intensity_columns, measured

#: Cells of a block; the same whatever the strips were, so that the file's bytes are too.
BLOCK = 8192
_LEVEL = 1


class GeoJson(Writer):
    """Writes a FeatureCollection, compressed where the name ends in ``.gz``.

    Parameters
    ----------
    path
        The file to make.
    channel_names
        Names of the channels whose intensity was measured.
    pixel_size
        Micrometres a pixel, where known.
    space
        Text that decides the identifiers together with the labels, for example the names of image and
        model: the same run gives the same identifiers, another image gives others.
    intensity_decimals
        Digits behind the point of intensities.
    workers
        Threads that compress.
    """

    def __init__(
        self,
        path: Path,
        *,
        channel_names: Sequence[str] = (),
        pixel_size: float | None = None,
        space: str = "",
        intensity_decimals: int = 2,
        workers: int | None = None,
    ) -> None:
        self.path = path
        self._channels = tuple(channel_names)
        self._pixel_size = pixel_size
        self._layout = _Layout(self._channels, pixel_size, space, intensity_decimals)
        self._waiting: list[Cells] = []
        self._count = 0
        self._first = True
        self._committed = False
        self._pool = ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1), "cellseg-geojson")
        self._blocks: deque[Future[Any]] = deque()
        with writing(path):
            self._file = path.open("xb")
            self._put(b'{"type":"FeatureCollection","features":[\n')

    def write(self, strip: Strip) -> None:
        """Take the cells of the next strip."""
        if not len(strip.cells):
            return
        self._waiting.append(strip.cells)
        self._count += len(strip.cells)
        if self._count >= BLOCK:
            self._flush(self._count // BLOCK * BLOCK)

    def _flush(self, count: int) -> None:
        """Hand so many of the waiting cells to the threads, and write what they have finished."""
        cells = self._waiting[0] if len(self._waiting) == 1 else Cells.concatenate(self._waiting)
        for start in range(0, count, BLOCK):
            self._blocks.append(
                self._pool.submit(self._encode, _part(cells, start, min(start + BLOCK, count)), self._first)
            )
            self._first = False
        self._count -= count
        self._waiting = [_part(cells, count, len(cells))] if self._count else []
        with writing(self.path):
            while self._blocks and (self._blocks[0].done() or len(self._blocks) > 8):
                self._file.write(self._blocks.popleft().result())

    def _encode(self, cells: Cells, first: bool) -> Any:
        text = self._layout.text(cells, measured(cells, self._channels, self._pixel_size))
        # The kernel ends each feature with a comma; between blocks it stands at the start of the next.
        return self._squeeze(text[:-1] if first else b",\n" + text[:-1])

    def _squeeze(self, text: bytes) -> Any:
        return imagecodecs.gzip_encode(text, level=_LEVEL) if self.path.suffix == ".gz" else text

    def _put(self, text: bytes) -> None:
        self._file.write(self._squeeze(text))

    def commit(self) -> None:
        """Write the remaining cells and close the file."""
        if self._count:
            self._flush(self._count)
        with writing(self.path):
            while self._blocks:
                self._file.write(self._blocks.popleft().result())
            self._put(b"\n]}\n")
            self._file.close()
        self._pool.shutdown()
        self._committed = True

    def discard(self) -> None:
        """Remove the file, unless committed."""
        if self._committed:
            return
        self._pool.shutdown(cancel_futures=True)
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)


class _Layout:
    """What is the same for all cells: names, decimals and the space of identifiers."""

    def __init__(
        self, channels: tuple[str, ...], pixel_size: float | None, space: str, intensity_decimals: int
    ) -> None:
        columns = {"Label": ("label", 0), "Area px^2": ("area", 0)}
        if pixel_size is not None:
            columns |= {"Area µm^2": ("area_um2", 3)}
        columns |= {"Perimeter px": ("perimeter", 2)}
        if pixel_size is not None:
            columns |= {"Perimeter µm": ("perimeter_um", 3)}
        columns |= {
            "Eccentricity": ("eccentricity", 4),
            "Solidity": ("solidity", 4),
            "Mean probability": ("mean_probability", 4),
        }
        for channel, name in zip(channels, intensity_columns(channels), strict=True):
            columns[f"Mean intensity {channel}"] = (name, intensity_decimals)
        self._columns = [name for name, _ in columns.values()]
        self._decimals = np.array([digits for _, digits in columns.values()], np.int32)
        names = [json.dumps(name, ensure_ascii=False).encode() + b":" for name in columns]
        keys = [names[0], *(b"," + name for name in names[1:])]
        self._keys = np.frombuffer(b"".join(keys), np.uint8)
        self._key_start = np.cumsum([0, *map(len, keys)]).astype(np.int32)
        digest = hashlib.sha256(space.encode()).digest()
        self._space = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")

    def text(self, cells: Cells, values: dict[str, Any]) -> bytes:
        """Return the features of some cells, each followed by a comma."""
        scale = 10.0**self._decimals
        exact = np.empty((len(cells), len(self._columns)), np.int64)
        for column, name in enumerate(self._columns):
            scaled = np.nan_to_num(np.rint(values[name] * scale[column]), nan=0.0)
            exact[:, column] = np.clip(scaled, -9e18, 9e18)
        size = capacity(len(cells), len(cells.outline), len(self._columns), len(self._keys))
        out = np.empty(size, np.uint8)
        length = write_features(
            np.ascontiguousarray(cells.outline, np.int32),
            np.ascontiguousarray(cells.outline_start, np.int64),
            np.ascontiguousarray(cells.columns["label"], np.int32),
            exact,
            self._decimals,
            self._keys,
            self._key_start,
            *self._space,
            out,
        )
        return out[:length].tobytes()


def _part(cells: Cells, start: int, end: int) -> Cells:
    """Return the cells from ``start`` to ``end``."""
    first, last = cells.outline_start[start], cells.outline_start[end]
    return Cells(
        {name: values[start:end] for name, values in cells.columns.items()},
        cells.outline[first:last],
        cells.outline_start[start : end + 1] - first,
    )
