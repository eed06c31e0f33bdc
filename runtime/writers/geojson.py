"""Outlines and measurements for QuPath: ``cells.geojson.gz``, written as a stream.

Each cell is a feature of ``objectType`` *detection* (annotations are unusably slow by the million)
with a closed ring in full-resolution pixels, an identifier and its measurements. The file is a gzip
of several members, each a block of cells, so that blocks are compressed side by side.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from ..common.buffers import Recycler
from ..common.files import writing
from ..instances import Cells, Strip
from ..kernels.features import capacity, write_features
from .base import Writer, compressors, opening
from .blocks import CellBlocks
from .columns import Columns, intensity_columns, stain_columns

#: Cells of a block.
BLOCK = 8192
#: Blocks that may wait for a thread or for the disk, at least.
MIN_WAITING = 8
#: Buffers that wait to be used again: of a block's text for each thread, and of what became of it.
BUFFERS = 8
#: Digits behind the point of coordinates that are not whole pixels.
OUTLINE_DECIMALS = 2
#: Digits behind the point of optical densities.
OD_DECIMALS = 4
_LEVEL = 1
#: Largest integer that a measurement is written as, and the one that stands for none: QuPath has no null.
MOST, NONE = 9e18, -(2**63)


class GeoJson(Writer):
    """Writes a FeatureCollection, compressed where the name ends in ``.gz``.

    Parameters
    ----------
    path
        The file to make.
    columns
        What is known of the cells. Their class is QuPath's ``classification``, their region of interest is
        in its ``metadata``; where nuclei were grown into cells, they are QuPath's cells.
    space
        Text that decides the identifiers together with the labels, for example the names of image and
        model: the same run gives the same identifiers, another image gives others.
    intensity_decimals
        Digits behind the point of intensities.
    """

    stage = "geojson"

    def __init__(
        self,
        path: Path,
        columns: Columns = Columns(),  # noqa: B008  (it is frozen)
        *,
        space: str = "",
        intensity_decimals: int = 2,
    ) -> None:
        self.path = path
        self._columns = columns
        self._layout = _Layout(columns, space, intensity_decimals)
        self._cells = CellBlocks(BLOCK)
        self._first = True
        self._committed = False
        self._pool, threads = compressors("cellseg-geojson")
        # Blocks that may wait for a thread or for the disk: each thread has one, and another one waits.
        self._most = max(MIN_WAITING, 2 * threads)
        self._encoded: deque[Future[NDArray[np.uint8]]] = deque()
        self._buffers = Recycler(BUFFERS)
        self._file: Any = None
        with opening(self, path):
            self._file = path.open("wb")
            self._put(b'{"type":"FeatureCollection","features":[\n')

    def write(self, strip: Strip) -> None:
        """Take the cells of the next strip."""
        for block in self._cells.push(strip.cells):
            self._hand_over(block)

    def _hand_over(self, cells: Cells) -> None:
        """Give a block to the threads, and write what they have finished."""
        self._encoded.append(self._pool.submit(self._encode, cells, self._first))
        self._first = False
        with writing(self.path):
            while self._encoded and (self._encoded[0].done() or len(self._encoded) > self._most):
                self._write_oldest()

    def _write_oldest(self) -> None:
        self._file.write(self._encoded.popleft().result())

    def _encode(self, cells: Cells, first: bool) -> NDArray[np.uint8]:
        """Return the bytes of a block."""
        values = self._columns.values(cells)
        # The kernel ends each feature with a comma; between blocks it stands at the start of the next.
        between = b"" if first else b",\n"
        buffer = self._buffers.take(len(between) + self._layout.capacity(cells), np.uint8)
        buffer[: len(between)] = list(between)
        length = len(between) + self._layout.write(cells, values, buffer[len(between) :])
        text = buffer[: length - 1]
        if self.path.suffix != ".gz":
            return text
        packed = self._buffers.take(length + length // 8 + 1024, np.uint8)
        # Any buffers do.
        size = len(imagecodecs.gzip_encode(text.data, level=_LEVEL, out=packed.data))  # type: ignore[arg-type]
        return packed[:size]

    def _put(self, text: bytes) -> None:
        self._file.write(imagecodecs.gzip_encode(text, level=_LEVEL) if self.path.suffix == ".gz" else text)

    def commit(self) -> None:
        """Write the remaining cells and close the file."""
        for block in self._cells.finish():
            self._hand_over(block)
        with writing(self.path):
            while self._encoded:
                self._write_oldest()
            self._put(b"\n]}\n")
            self._file.close()
        self._pool.shutdown()
        self._committed = True

    def discard(self) -> None:
        """Remove the file, unless committed."""
        if self._committed:
            return
        self._pool.shutdown(cancel_futures=True)
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self.path.unlink(missing_ok=True)


class _Layout:
    """What is the same for all cells: names, decimals and the space of identifiers."""

    def __init__(self, of: Columns, space: str, intensity_decimals: int) -> None:
        columns = _keys(of, intensity_decimals)
        self._cells = of.expanded
        self._columns = [name for name, _ in columns.values()]
        self._decimals = np.array([digits for _, digits in columns.values()], np.int32)
        names = [json.dumps(name, ensure_ascii=False).encode() + b":" for name in columns]
        keys = [names[0], *(b"," + name for name in names[1:])]
        self._keys = np.frombuffer(b"".join(keys), np.uint8)
        self._key_start = np.cumsum([0, *map(len, keys)]).astype(np.int32)
        said = _said(of)
        self._regions = 1 + len(of.regions)
        self._said = np.frombuffer(b"".join(said), np.uint8)
        self._said_start = np.cumsum([0, *map(len, said)]).astype(np.int32)
        self._longest = max(map(len, said))
        digest = hashlib.sha256(space.encode()).digest()
        self._space = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")

    def capacity(self, cells: Cells) -> int:
        """Return how many bytes the features of some cells have at most."""
        keys = len(self._keys) + self._longest
        # Two rings of a cell take the place of two cells, and more.
        whole = 0 if cells.whole is None else len(cells.whole.points) + len(cells)
        return int(capacity(len(cells), len(cells.outline) + whole, len(self._columns), keys))

    def write(self, cells: Cells, values: dict[str, Any], out: NDArray[np.uint8]) -> int:
        """Write the features of some cells, each followed by a comma; return how many bytes they have."""
        scale = 10.0**self._decimals
        exact = np.empty((len(cells), len(self._columns)), np.int64)
        for column, name in enumerate(self._columns):
            scaled = np.rint(values[name] * scale[column])
            there = np.abs(scaled) <= MOST  # not where it is not a number
            exact[:, column] = np.where(there, np.where(there, scaled, 0), NONE)
        # Outlines of a slide that was enlarged for the model run between its pixels.
        digits = OUTLINE_DECIMALS if cells.outline.dtype.kind == "f" else 0
        # What lies outermost comes first.
        outer, inner = (cells.rings, None) if cells.whole is None else (cells.whole, cells.rings)
        none = np.full(len(cells), -1, np.int32)
        class_, roi = (np.asarray(cells.columns.get(name, none), np.int32) + 1 for name in ("class", "roi"))
        says = class_ * self._regions + roi
        length: int = write_features(
            _fixed(outer.points, digits),
            digits,
            outer.start,
            np.ascontiguousarray(cells.columns["label"], np.int32),
            exact,
            self._decimals,
            self._keys,
            self._key_start,
            np.ascontiguousarray(says, np.int32),
            self._said,
            self._said_start,
            *self._space,
            out,
            None if inner is None else _fixed(inner.points, digits),
            None if inner is None else inner.start,
        )
        return length


def _fixed(points: NDArray[Any], digits: int) -> NDArray[np.int32]:
    """Return coordinates in fixed point."""
    return np.ascontiguousarray(np.rint(points * 10**digits) if digits else points, np.int32)


def _keys(of: Columns, intensity_decimals: int) -> dict[str, tuple[str, int]]:
    """Return the measurements as QuPath shows them: column and digits behind the point by name."""
    micro = of.pixel_size is not None
    before = "Nucleus: " if of.expanded else ""
    found = {"Label": ("label", 0)}

    def shape(before: str, prefix: str, *what: str) -> None:
        for name in what:
            digits = 0 if name == "area" else 2
            found[f"{before}{name.title()} px{'^2' * (name == 'area')}"] = (f"{prefix}{name}", digits)
            if micro:
                unit, column = ("µm^2", "_um2") if name == "area" else ("µm", "_um")
                found[f"{before}{name.title()} {unit}"] = (f"{prefix}{name}{column}", 3)

    shape(before, "", "area", "perimeter")
    found |= {
        f"{before}Eccentricity": ("eccentricity", 4),
        f"{before}Solidity": ("solidity", 4),
        "Mean probability": ("mean_probability", 4),
        "Score": ("score", 4),
    }
    if not of.expanded:
        for channel, name in zip(of.channels, intensity_columns(of.channels), strict=True):
            found[f"Mean intensity {channel}"] = (name, intensity_decimals)
    else:
        shape("Cytoplasm: ", "ring_", "area")
        shape("Cell: ", "cell_", "area", "perimeter")
    ods = [f"{stain} OD {what}" for what in ("mean", "max") for stain in of.stains]
    parts = {"Nucleus: ": "", "Cytoplasm: ": "ring_", "Cell: ": "cell_"} if of.expanded else {"": ""}
    for part, prefix in parts.items():
        if of.expanded:
            for channel, name in zip(of.channels, intensity_columns(of.channels), strict=True):
                found[f"{part}{channel} mean"] = (f"{prefix}{name}", intensity_decimals)
        for said, name in zip(ods, stain_columns(of.stains), strict=True):
            found[f"{part}{said}"] = (f"{prefix}{name}", OD_DECIMALS)
    return found


def _said(of: Columns) -> list[bytes]:
    """Return what properties say of class and region of interest, for each of both, none first."""
    colours = {} if of.classes is None else of.classes.colours
    classes = [
        f',"classification":{{"name":"{name}","color":[{",".join(map(str, colour))}]}}'.encode()
        for name, colour in colours.items()
    ]
    places = [b',"metadata":{"roi":' + json.dumps(name).encode() + b"}" for name in of.regions]
    return [class_ + place for class_ in (b"", *classes) for place in (b"", *places)]
