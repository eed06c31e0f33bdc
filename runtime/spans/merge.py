"""The cells of all parts of a slide, numbered as by one run, and by rows."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.closing import Closing
from ..instances import Cells
from ..instances.fragments import number_parts
from ..kernels.paint import Painter
from ..writers.blocks import part as some_of
from .blocks import BlockReader, BlockWriter
from .compute import CELLS, OTHERS, Part
from .plan import Plan

#: The file with the numbers of all cells, in the folder of the parts.
NUMBERS = "numbers"
#: Decoded fragments of a part that are kept: rows that are asked for may lie in two.
KEPT = 2
#: Rows whose cells are put together at once.
ROWS = 512


def number_cells(plan: Plan, parts: Sequence[Part]) -> int:
    """Give all cells their numbers, which :class:`MergedParts` will read; return how many there are."""
    keys = []
    for part in parts:
        with BlockReader(plan.parts / part.name / CELLS) as file:
            blocks = [file.load(block, "keys")["keys"] for block in range(len(file))]
        keys.append(np.concatenate([*blocks, np.empty(0, np.int64)]))
    with BlockWriter(plan.parts / NUMBERS) as made:
        for part, numbers in zip(parts, number_parts(keys), strict=True):
            made.add({"name": part.name}, {"numbers": numbers})
        made.commit()
    return sum(map(len, keys))


class MergedParts(Closing):
    """Cells and labels of all parts that have some in the rows that are asked for.

    Parameters
    ----------
    plan
        Of the slide.
    parts
        Those whose numbers :func:`number_cells` has left, in the same order.
    """

    def __init__(self, plan: Plan, parts: Sequence[Part]) -> None:
        self._plan = plan
        self._numbers = BlockReader(plan.parts / NUMBERS)
        self._parts = [
            _OnePart(plan.parts / part.name / CELLS, (part.y, part.y1), self._numbers, number)
            for number, part in enumerate(parts)
            if part.stats.cells
        ]

    def close(self) -> None:
        """Close the files."""
        for part in self._parts:
            part.close()
        self._numbers.close()

    def _here(self, y: int, y1: int) -> list[_OnePart]:
        """Return the parts that have these rows; the others hold no file and no memory from now on."""
        here = []
        for part in self._parts:
            if part.rows[0] < y1 and y < part.rows[1]:
                here.append(part)
            else:
                part.close()
        return here

    def cells(self) -> Iterator[Cells]:
        """Yield all cells in the order of their numbers."""
        for y in range(0, self._plan.rows[-1], ROWS):
            if (cells := self.cells_of(y, y + ROWS)) is not None:
                yield cells

    def cells_of(self, y: int, y1: int) -> Cells | None:
        """Return the cells that begin in some rows, in the order of their numbers; ``None`` for none."""
        found = [cells for part in self._here(y, y1) if len(cells := part.cells(y, y1))]
        if len(found) < 2:
            return found[0] if found else None
        table = Cells.concatenate(found)
        return _reordered(table, np.argsort(table.columns["label"]))

    def labels(self, y: int, y1: int) -> NDArray[np.int32]:
        """Return the label image of some rows, shape (y1 - y, W)."""
        labels = np.empty((y1 - y, self._plan.settled.grid.width), np.int32)
        batches = [batch for part in self._here(y, y1) for batch in part.runs(y, y1)]
        Painter(batches).paint(labels, y)
        return labels


class _OnePart:
    """The fragments of a part, opened when they are asked for; those of last time are kept."""

    def __init__(self, path: Path, rows: tuple[int, int], numbers: BlockReader, number: int) -> None:
        self._path, self.rows = path, rows
        self._numbers_file, self._number = numbers, number
        self._opened: BlockReader | None = None
        self._numbers: NDArray[np.int32] | None = None
        self._places: list[tuple[int, int]] = []
        self._first: list[int] = []
        self._kept: OrderedDict[tuple[int, bool], Any] = OrderedDict()

    @property
    def _file(self) -> BlockReader:
        if self._opened is None:
            self._opened = BlockReader(self._path)
            told = [self._opened.told(block) for block in range(len(self._opened))]
            self._places = [(about["y"], about["y1"]) for about in told]
            self._first = list(itertools.accumulate((about["cells"] for about in told), initial=0))
        return self._opened

    def close(self) -> None:
        """Let go of the file, and of what was read of it."""
        if self._opened is not None:
            self._opened.close()
            self._opened = self._numbers = None
            self._kept.clear()

    @property
    def numbers(self) -> NDArray[np.int32]:
        """Number in the image of each cell."""
        if self._numbers is None:
            self._numbers = self._numbers_file.load(self._number)["numbers"]
        return self._numbers

    def cells(self, y: int, y1: int) -> Cells:
        """Return the cells that begin in these rows."""
        found = []
        for block in self._blocks(y, y1):
            cells: Cells = self._load(block, whole=True)
            start, end = np.searchsorted(cells.columns["y0"], (y, y1))
            if start < end:
                found.append(some_of(cells, int(start), int(end)))
        return Cells.concatenate(found) if found else Cells.empty()

    def runs(self, y: int, y1: int) -> Iterator[tuple[NDArray[np.void], NDArray[np.int32]]]:
        """Yield runs in these rows, and the numbers of their cells."""
        for block in self._blocks(y, y1):
            runs: NDArray[np.void] = self._load(block, whole=False)
            here = runs[(runs["y"] >= y) & (runs["y"] < y1)]
            if len(here):
                yield here, self.numbers

    def _blocks(self, y: int, y1: int) -> list[int]:
        if not len(self._file):
            return []
        return [n for n, (start, end) in enumerate(self._places) if start < y1 and y < end]

    def _load(self, block: int, *, whole: bool) -> Any:
        """Return the cells of a fragment, or its runs."""
        if (block, whole) in self._kept:
            self._kept.move_to_end((block, whole))
            return self._kept[block, whole]
        found: Any
        if whole:
            arrays = self._file.load(block, *(name for name in self._file.names(block) if name != "runs"))
            columns = {name: values for name, values in arrays.items() if name not in OTHERS}
            first = self._first[block]
            columns["label"] = self.numbers[first : first + len(columns["label"])]
            found = Cells(columns, arrays["outline"], arrays["outline_start"])
        else:
            found = self._file.load(block, "runs")["runs"]
        self._kept[block, whole] = found
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found


def _reordered(cells: Cells, order: NDArray[np.int64]) -> Cells:
    """Return the same cells in another order."""
    lengths = np.diff(cells.outline_start)[order]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    points = np.repeat(cells.outline_start[:-1][order] - starts[:-1], lengths) + np.arange(starts[-1])
    return Cells(
        {name: values[order] for name, values in cells.columns.items()}, cells.outline[points], starts
    )
