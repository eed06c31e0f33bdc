"""Nuclei grown into cells while strips of them stream by.

The cell of a nucleus is all that is nearer to it than to any other, within a distance: see
:mod:`cellseg.runtime.kernels.expand`. A row of cells is known when the rows within that distance are; a cell
can be measured when the rows within that distance below its nucleus are; a strip can leave when that is so of
all cells that reach into it. So rows are held back to the tallest nucleus and twice the distance, and nothing
depends on how strips were cut.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.buffers import Recycler
from ..common.closing import Closing
from ..intensity.stains import Stains
from ..kernels.expand import expand, measure_cells
from .cells import Cells, Rings, Strip, image_columns
from .window import row_addresses

#: Longest distance in pixels.
FARTHEST = 1000
#: Pixels of label images that are worth a task of their own for a thread, and cells.
TASK_PIXELS, TASK_CELLS = 1 << 18, 256
#: Buffers of image rows that wait to be used again.
BUFFERS = 8

_KINDS = {"uint8": 1, "uint16": 2, "float32": 3}


@dataclass(slots=True)
class _Waiting:
    """A strip whose cells are not known yet."""

    strip: Strip
    #: Row behind the last of its nuclei, and with the distance behind those of its cells.
    end: int
    measured: Cells | None = None


class Expansion(Closing):
    """Strips of nuclei, pushed from top to bottom, into strips of nuclei and cells.

    Parameters
    ----------
    height, width
        Size of the image in pixels.
    distance
        How far a cell reaches from its nucleus, in pixels; at most :data:`FARTHEST`.
    image_channels
        Channels of the image rows to measure intensities on; 0 for none.
    stains
        Whose optical densities are measured; ``None`` for none.
    workers
        Threads; the result does not depend on them.
    """

    def __init__(
        self,
        height: int,
        width: int,
        distance: float,
        *,
        image_channels: int = 0,
        stains: Stains | None = None,
        workers: int = 1,
    ) -> None:
        if not 0 < distance <= FARTHEST:
            raise ValueError(f"a distance of {distance} pixels; wanted more than 0 and at most {FARTHEST}")
        self.height, self.width = height, width
        self._limit = math.floor(distance * distance)
        self._reach = math.isqrt(self._limit)
        self._channels, self._stains = image_channels, stains
        self._names = image_columns(image_channels, len(stains or ()))
        self._table: NDArray[np.int32] | None = None
        self._workers = workers
        self._executor = ThreadPoolExecutor(workers, "cellseg-expand") if workers > 1 else None
        #: Label images of nuclei and of cells, from row `_y` on.
        self._nuclei = np.empty((0, width), np.int32)
        self._cells = np.empty((0, width), np.int32)
        self._y = 0
        self._expanded = 0  # rows whose cells are known
        self._image: deque[tuple[int, NDArray[Any]]] = deque()
        self._buffers = Recycler(BUFFERS)
        self._waiting: deque[_Waiting] = deque()

    def close(self) -> None:
        """End the threads."""
        if self._executor is not None:
            self._executor.shutdown()

    def see(self, y: int, image: NDArray[Any]) -> None:
        """Take image rows, shape (rows, W, channels), that follow on; they are copied.

        A strip may be pushed when all of its rows have been seen.
        """
        kept = self._buffers.take(image.shape, image.dtype)
        kept[...] = image
        self._image.append((y, kept))

    def push(self, strip: Strip) -> list[Strip]:
        """Take the next strip of nuclei; return the strips that are final by now, with their cells.

        A strip gets its label image ``whole``, and its cells their outlines ``whole`` and the columns of
        :func:`~.cells.column_types` for cells that are expanded.
        """
        ends = strip.cells.columns["y1"]
        end = int(ends.max(initial=strip.y)) + self._reach
        self._waiting.append(_Waiting(strip, min(end, self.height)))
        self._nuclei = np.concatenate([self._nuclei, strip.labels])
        self._cells = np.concatenate([self._cells, np.empty_like(strip.labels)])
        have = self._y + len(self._nuclei)
        known = have if have == self.height else max(self._expanded, have - self._reach)
        self._grow(known)
        for waiting in self._waiting:
            if waiting.measured is None and waiting.end <= known:
                waiting.measured = self._measure(waiting.strip.cells)
        done = self._done(known)
        self._release()
        return done

    def _grow(self, known: int) -> None:
        """Expand the rows up to ``known``."""
        begin, end = self._expanded - self._y, known - self._y
        if end <= begin:
            return
        rows = max(1, min(end - begin, max(2 * self._reach, TASK_PIXELS // self.width)))
        tasks = [(y, min(y + rows, end)) for y in range(begin, end, rows)]

        def work(task: tuple[int, int]) -> None:
            expand(self._nuclei, *task, 0, self.width, self._limit, self._cells)

        self._map(work, tasks)
        self._expanded = known

    def _measure(self, cells: Cells) -> Cells:
        """Return nuclei with what is known of their cells; take strays out of the label image."""
        n = len(cells)
        columns: dict[str, NDArray[Any]] = dict(cells.columns)
        boxes = np.stack([columns[name] for name in ("y0", "x0", "y1", "x1")], axis=1).astype(np.int32)
        boxes[:, :2] = np.maximum(boxes[:, :2] - self._reach, 0)
        boxes[:, 2:] = np.minimum(boxes[:, 2:] + self._reach, [self.height, self.width])
        labels = np.ascontiguousarray(columns["label"], np.int32)
        rows, kind = self._rows()
        stains = 0 if self._table is None else len(self._stains or ())

        def work(task: tuple[int, int]) -> Any:
            part = slice(*task)
            return measure_cells(
                self._nuclei, self._cells, self._y, labels[part], boxes[part], rows, kind,
                self._channels if kind else 0, self._table, stains,
            )  # fmt: skip

        cuts = [*range(0, n, TASK_CELLS), n]
        parts = self._map(work, list(itertools.pairwise(cuts)) if n else [(0, 0)])
        found, values, outline, ring_area, ring_values = (
            np.concatenate([part[at] for part in parts]) for at in range(5)
        )
        counts = [np.diff(part[0]["outline_end"], prepend=0) for part in parts]
        columns |= {
            "cell_area": found["area"],
            "cell_perimeter": found["perimeter"],
            "ring_area": ring_area,
        }
        for what, given in (("cell", values), ("ring", ring_values)):
            columns |= {f"{what}_{name}": given[:, at].copy() for at, name in enumerate(self._names)}
        starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
        return replace(cells, columns=columns, whole=Rings(outline, starts))

    def _rows(self) -> tuple[NDArray[np.uintp] | None, int]:
        """Return the addresses of the image rows from `_y` on, and the kind of their values."""
        if not self._image:
            return None, 0
        dtype = self._image[0][1].dtype
        if self._stains is not None and self._table is None:
            self._table = self._stains.table(dtype)
        first = self._image[0][0]
        return row_addresses(rows for _, rows in self._image)[self._y - first :], _KINDS[dtype.name]

    def _done(self, known: int) -> list[Strip]:
        """Take the strips out that no cell can change any more."""
        done = []
        while self._waiting:
            strip = self._waiting[0].strip
            end = strip.y + len(strip.labels)
            reaching = (each for each in self._waiting if each.strip.y < end + self._reach)
            if known < end or any(each.measured is None for each in reaching):
                break
            measured = self._waiting.popleft().measured
            assert measured is not None
            rows = self._cells[strip.y - self._y : end - self._y].copy()
            done.append(replace(strip, cells=measured, whole=rows))
        return done

    def _release(self) -> None:
        """Forget the rows that nothing waits for."""
        first = min(
            (max(0, waiting.strip.y - self._reach) for waiting in self._waiting),
            default=self._y + len(self._nuclei),
        )
        first = min(first, max(self._y, self._expanded - self._reach))
        if self._expanded == self.height and not self._waiting:
            first = self.height
        if first > self._y:
            self._nuclei = self._nuclei[first - self._y :].copy()
            self._cells = self._cells[first - self._y :].copy()
            self._y = first
        while self._image and self._image[0][0] + len(self._image[0][1]) <= first:
            self._image.popleft()

    def _map(self, work: Callable[[Any], Any], tasks: list[Any]) -> list[Any]:
        if self._executor is None or len(tasks) < 2:
            return [work(task) for task in tasks]
        return list(self._executor.map(work, tasks))
