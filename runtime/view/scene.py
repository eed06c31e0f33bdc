"""One finished result, opened to be looked at: its picture, its label image, its table.

Everything is read as it is needed and closed at the end; nothing is ever written. This module knows
nothing of colours, tiles or HTTP.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from ..common.closing import Closing
from ..common.names import readable
from ..errors import CellsegError, DataError, UsageError
from ..geometry.tiling import Region
from ..intensity.display import Display
from ..readers import SlideReader
from ..results.original import is_gone, open_original
from ..results.result import Result
from ..results.stored import check_table
from ..writers.contents import TABLE

#: The longer edge of the reduced picture that serves where a file has no small level, in pixels, and how
#: much it may be enlarged before the file is read again: blur that nobody sees, for a tenth of the time.
OVERVIEW_EDGE, ENLARGED = 4096, 1.3
#: Pixels that are read of the file for one tile at most; the reduced picture serves beyond.
MOST_PIXELS = 1 << 26
#: Tiles of labels that are kept: a slider changes colours, and the labels stay.
KEPT_TILES = 192
#: Columns that say where a cell is; nobody colours by them.
PLACES = frozenset(
    {"label", "y0", "x0", "y1", "x1", "centroid_y", "centroid_x", "centroid_y_um", "centroid_x_um"}
)
#: Pixels of the image across which neighbours are counted, where its scale is unknown, and micrometres.
NEIGHBOURHOOD, NEIGHBOURHOOD_UM = 100.0, 50.0


class Scene(Closing):
    """A folder of results.

    Parameters
    ----------
    folder
        What ``cellseg-infer`` wrote.
    image
        Where the picture is, if not where it was.

    Attributes
    ----------
    height, width
        Size of the image in pixels.
    missing
        Why there is no picture, in one line; ``None`` where there is one.

    Raises
    ------
    OutputError
        The folder holds no result, or one that is damaged or of a newer release.
    DataError
        Its parts do not fit each other, or the picture is of another size.
    """

    def __init__(self, folder: Path, image: str | None = None) -> None:
        self.folder = folder
        result = Result.open(folder)
        self.record = result.record
        self.height, self.width = self.record.image.height, self.record.image.width
        self.levels = result.levels
        if self.levels[0].shape != (self.height, self.width):
            raise DataError(
                f"{folder}: labels of {self.levels[0].shape} pixels do not fit a picture of "
                f"({self.height}, {self.width}); is it two results mixed?"
            )
        self._table: Any = pyarrow.parquet.ParquetFile((folder / TABLE).open("rb"))
        self._columns: dict[str, NDArray[Any]] = {}
        self._lock, self._overview_lock = threading.Lock(), threading.Lock()
        self._tiles: OrderedDict[tuple[int, int, int, int, int], NDArray[np.int32]] = OrderedDict()
        try:
            check_table(folder / TABLE, self._table.metadata)
            if self.count != self.record.counts.cells:
                raise DataError(
                    f"{folder}: its table has {self.count:,} rows, its record names "
                    f"{self.record.counts.cells:,} cells; is it two results mixed?"
                )
            self.picture, self.missing = self._open_picture(image)
        except BaseException:
            self._table.close(force=True)
            raise
        self.planes = _planes(result)

    @property
    def name(self) -> str:
        """What the image is called."""
        return Path(self.record.image.path).name or readable(self.folder.name)

    @property
    def pixel_size(self) -> float | None:
        """Micrometres a pixel, where known."""
        return self.record.image.pixel_size_um

    @property
    def model(self) -> str:
        """Name of the model that found the cells."""
        return self.record.model.name

    @property
    def min_score(self) -> float:
        """Score below which cells were dropped when the result was made."""
        rule = self.record.settings.split.score
        return rule.minimum if rule else 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the run, one line each."""
        return self.record.notes

    @property
    def count(self) -> int:
        """Number of cells."""
        return int(self._table.metadata.num_rows)

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """Columns that cells can be coloured and filtered by: numbers, and classes."""
        names = [name for name in self._table.schema_arrow.names if name not in PLACES]
        return (*names, "density")

    def column(self, name: str) -> NDArray[Any]:
        """Return one value a cell, in the order of the table.

        Raises
        ------
        UsageError
            There is no such column.
        """
        with self._lock:
            if name not in self._columns:
                if name == "density":
                    values = self._density()
                elif name in self._table.schema_arrow.names:
                    values = self._table.read(columns=[name])[name].to_numpy()
                else:
                    raise UsageError(f"{self.name} has no column '{name}'")
                self._columns[name] = values
            return self._columns[name]

    def _density(self) -> NDArray[np.float64]:
        """Return for each cell the cells around it: per mm², or per megapixel."""
        places = self._table.read(columns=["centroid_y", "centroid_x"])
        y, x = (places[name].to_numpy() for name in ("centroid_y", "centroid_x"))
        edge = NEIGHBOURHOOD if self.pixel_size is None else NEIGHBOURHOOD_UM / self.pixel_size
        edge = max(edge, max(self.height, self.width) / 4096)
        rows, columns = int(self.height / edge) + 1, int(self.width / edge) + 1
        at = np.minimum((y / edge).astype(int), rows - 1), np.minimum((x / edge).astype(int), columns - 1)
        counts = np.bincount(at[0] * columns + at[1], minlength=rows * columns).reshape(rows, columns)
        padded = np.pad(counts.astype(np.float64), 1)
        around = sum(padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3))
        area = (3 * edge) ** 2 * (1e-6 if self.pixel_size is None else (self.pixel_size / 1000) ** 2)
        found: NDArray[np.float64] = np.asarray(around)[at] / area
        return found

    def row(self, label: int) -> dict[str, Any] | None:
        """Return all that the table says of a cell, by its number; ``None`` where there is none."""
        index = self.index_of(label)
        if index is None:
            return None
        group, first = 0, 0
        while first + self._table.metadata.row_group(group).num_rows <= index:
            first += self._table.metadata.row_group(group).num_rows
            group += 1
        found = self._table.read_row_group(group).slice(index - first, 1).to_pylist()[0]
        return {name: value for name, value in found.items() if value is not None}

    def index_of(self, label: int) -> int | None:
        """Return the row of a cell, by its number."""
        labels = self.column("label")
        index = int(np.searchsorted(labels, label))
        return index if index < len(labels) and labels[index] == label else None

    def box(self, label: int) -> tuple[int, int, int, int] | None:
        """Return the first row and column of a cell, and those behind its last."""
        index = self.index_of(label)
        if index is None:
            return None
        y0, x0, y1, x1 = (int(self.column(name)[index]) for name in ("y0", "x0", "y1", "x1"))
        return y0, x0, y1, x1

    def labels_at(self, y: int, x: int, height: int, width: int, step: int = 1) -> NDArray[np.int32]:
        """Read labels, every ``step``-th pixel, with zeros outside of the image.

        Parameters
        ----------
        y, x
            The first pixel, in units of ``step``; it may lie outside.
        height, width
            Of the result.
        step
            A power of two.
        """
        key = (y, x, height, width, step)
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        number = min(step.bit_length() - 1, len(self.levels) - 1)
        level, rest = self.levels[number], step >> number
        rows, columns = (-(-size // rest) for size in level.shape)
        out = np.zeros((height, width), np.int32)
        top, left, bottom, right = max(y, 0), max(x, 0), min(y + height, rows), min(x + width, columns)
        if top < bottom and left < right:
            part = level[top * rest : bottom * rest : rest, left * rest : right * rest : rest]
            out[top - y : bottom - y, left - x : right - x] = part
        with self._lock:
            self._tiles[key] = out
            while len(self._tiles) > KEPT_TILES:
                self._tiles.popitem(last=False)
        return out

    def _open_picture(self, image: str | None) -> tuple[SlideReader | None, str | None]:
        """Open the image that the result is of, with the plane and channels that the run saw."""
        try:
            return open_original(self.record, image), None
        except CellsegError as error:
            if image is not None:
                raise
            advice = " with --image" if is_gone(self.record) else ""
            return None, " ".join(str(error).split()) + advice

    @cached_property
    def _display(self) -> Display:
        assert self.picture is not None
        return Display.of(self.picture.sample(1_000_000))

    @cached_property
    def _overview(self) -> NDArray[Any]:
        assert self.picture is not None
        return self.picture.overview(OVERVIEW_EDGE)

    def picture_at(self, region: Region, step: int) -> NDArray[np.uint8] | None:
        """Return a part of the picture as people see it, reduced by ``step``.

        Parameters
        ----------
        region
            In pixels of the image, inside of it.
        step
            How many of them make one.

        Returns
        -------
        ndarray of uint8, shape (ceil(height / step), ceil(width / step), 3), or None without a picture
        """
        import cv2

        reader = self.picture
        if reader is None:
            return None
        number = max(
            (n for n, level in enumerate(reader.levels) if level.downsample <= step * 1.01), default=0
        )
        level = reader.levels[number]
        if region.height * region.width / level.downsample**2 > MOST_PIXELS or (
            step * OVERVIEW_EDGE * ENLARGED >= max(self.height, self.width) and level.downsample * 2 <= step
        ):
            with self._overview_lock:
                whole = self._overview
            part = _inside(region, whole.shape[0] / self.height, whole.shape[1] / self.width, whole.shape[:2])
            pixels = whole[part.y : part.y1, part.x : part.x1]
        else:
            part = _inside(
                region, level.height / self.height, level.width / self.width, (level.height, level.width)
            )
            pixels = reader.read(part, number)
        shown = self._display.apply(pixels)
        size = -(-region.width // step), -(-region.height // step)
        if shown.shape[1::-1] != size:
            shown = np.asarray(cv2.resize(shown, size, interpolation=cv2.INTER_AREA), np.uint8)
        return shown

    def plane_at(self, head: str, region: Region, step: int) -> NDArray[np.uint8] | None:
        """Return a part of one of the network's planes, as :meth:`picture_at` does of the picture."""
        import cv2

        if head not in self.planes:
            return None
        levels = self.planes[head]
        across = levels[0].shape[1] / self.width
        number = max((n for n in range(len(levels)) if (1 << n) <= step * across), default=0)
        level = levels[number]
        part = _inside(region, level.shape[0] / self.height, level.shape[1] / self.width, level.shape)
        pixels = np.asarray(level[part.y : part.y1, part.x : part.x1], np.uint8)
        size = -(-region.width // step), -(-region.height // step)
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)

    def close(self) -> None:
        """Close the files."""
        if self.picture is not None:
            self.picture.close()
        self._table.close(force=True)


def _inside(region: Region, tall: float, wide: float, size: tuple[int, int]) -> Region:
    """Return the region in pixels of a reduced picture, at least one of them."""
    y, x = min(int(region.y * tall), size[0] - 1), min(int(region.x * wide), size[1] - 1)
    y1, x1 = min(round(region.y1 * tall), size[0]), min(round(region.x1 * wide), size[1])
    return Region(y, x, max(1, y1 - y), max(1, x1 - x))


def _planes(result: Result) -> dict[str, list[Any]]:
    """Return the levels of each of the network's planes that were kept."""
    levels = result.planes or []
    heads = result.record.model.heads if levels else ()
    return {head: [_Plane(level, number) for level in levels] for number, head in enumerate(heads)}


class _Plane:
    """One plane of an array of several."""

    def __init__(self, array: Any, number: int) -> None:
        self._array, self._number = array, number
        self.shape: tuple[int, int] = array.shape[1:]

    def __getitem__(self, part: tuple[slice, slice]) -> Any:
        return self._array[(self._number, *part)]
