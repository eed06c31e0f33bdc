"""Regroup the cells of the strips into blocks of one size.

What is written in blocks then does not depend on how the rows were handed in: the same run gives the
same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..instances import Cells


class CellBlocks:
    """Gathers cells and hands them out in blocks of exactly ``size``.

    Parameters
    ----------
    size
        Cells of a block.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._waiting: list[Cells] = []
        self._count = 0

    def push(self, cells: Cells) -> Iterator[Cells]:
        """Take the next cells; yield the blocks that are full."""
        if not len(cells):
            return
        self._waiting.append(cells)
        self._count += len(cells)
        if self._count < self.size:
            return
        table = Cells.concatenate(self._waiting)
        full = self._count // self.size * self.size
        self._count -= full
        self._waiting = [part(table, full, len(table))] if self._count else []
        for start in range(0, full, self.size):
            yield part(table, start, start + self.size)

    def finish(self) -> Iterator[Cells]:
        """Yield the cells that are left, if any."""
        if self._count:
            yield Cells.concatenate(self._waiting)
        self._waiting, self._count = [], 0


def part(cells: Cells, start: int, end: int) -> Cells:
    """Return the cells from ``start`` to ``end``."""
    rings = cells.rings.part(start, end)
    return Cells(
        {name: values[start:end] for name, values in cells.columns.items()},
        rings.points,
        rings.start,
        None if cells.whole is None else cells.whole.part(start, end),
    )
