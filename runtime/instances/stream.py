"""The instance stage: planes arrive row by row, finished cells leave.

Connected components are followed over the rows. A component that no further row can change is split
into cells on its own (:mod:`cellseg.runtime.kernels.split`); its result does not depend on anything else. A
strip of labels leaves when no open component reaches into it any more. So only the rows back to the
first row of the oldest open component are held, and nothing depends on how the rows were handed in.

**Giant components.** Confluent tissue can be one component from edge to edge. Whenever a row is
reached whose number is a multiple of :data:`MAX_ROWS`, each component that has been open for that many
rows is split as it stands. Its cells that end well above that row are final and leave it; the others
stay in the component and are split again with the rows to come. Likewise a component wider than
:data:`MAX_COLUMNS` is worked off from left to right. Only a cell that is itself larger than these
bounds is cut, at that row or column. The rule knows absolute rows and columns only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..common.closing import Closing
from ..errors import UsageError
from ..intensity.stains import Stains
from ..kernels.collect import Collector
from ..kernels.label import COMPONENT_DTYPE, HELD_DTYPE, RUN_DTYPE, RunLabeler
from ..kernels.split import LIMITS_DTYPE, NO_LIMITS
from ..model.spec import Head, SplitSettings
from .cells import Cells, image_columns
from .pool import Batch, SplitPool
from .rules import SplitRules
from .window import RowWindow

#: Rows that a component may be open before its finished cells are taken out of it; also the
#: height from which on a single cell may be cut.
MAX_ROWS = 512
#: The same for columns; this bounds the memory to split a component.
MAX_COLUMNS = 4096
#: A cell that ends within this many pixels of such a row or column, plus the reach of the landscape,
#: might still change.
MARGIN = 16

_IMAGE_TYPES = ("uint8", "uint16", "float32")
_FAR, _NEVER = NO_LIMITS[0], NO_LIMITS[1]

#: What becomes of rows that are final.
Piece = TypeVar("Piece")


@dataclass(slots=True)
class Stats:
    """Counts of a run.

    Attributes
    ----------
    components
        Finished connected components.
    cells
        Cells numbered.
    dropped
        Cells left out because they were too small or doubtful.
    unmeasured
        Cells with a pixel that is infinite or no number, so that a mean intensity of theirs is neither.
    holes
        Holes filled.
    giant
        Times that an open or wide component was worked off in parts.
    max_rows
        Most rows that had to be held at once.
    """

    components: int = 0
    cells: int = 0
    dropped: int = 0
    unmeasured: int = 0
    holes: int = 0
    giant: int = 0
    max_rows: int = 0


class RowStream(Closing, Generic[Piece]):
    """Planes of one image, pushed in rows from top to bottom, into pieces of finished rows.

    Parameters
    ----------
    height, width
        Size of the image in pixels.
    heads
        The model's heads, in the order of the planes.
    settings
        How planes become cells.
    image_channels
        Channels of the image rows to measure intensities on; 0 for none.
    stains
        Whose optical densities are measured, on three channels of uint8 or uint16; ``None`` for none.
    workers
        Threads that split and measure; the result does not depend on them.
    connectivity
        8 or 4: whether pixels that touch by a corner are one component. Cells themselves are
        always 4-connected.
    max_rows, max_columns
        Bounds of the rule for giant components; they are part of the result.
    rows
        First row that is pushed, and the one behind the last; the whole image by default.
    """

    def __init__(
        self,
        height: int,
        width: int,
        heads: Sequence[Head],
        settings: SplitSettings,
        *,
        image_channels: int = 0,
        stains: Stains | None = None,
        workers: int = 1,
        connectivity: int = 8,
        max_rows: int = MAX_ROWS,
        max_columns: int = MAX_COLUMNS,
        rows: tuple[int, int] | None = None,
    ) -> None:
        if height < 1 or width < 1 or max(height, width) >= 2**31:
            raise UsageError(f"image of {height} × {width} pixels; wanted 1 to 2³¹ − 1 a side")
        if connectivity not in (4, 8):
            raise UsageError(f"connectivity {connectivity}; wanted 4 or 8")
        if workers < 1:
            raise UsageError(f"{workers} workers; wanted at least 1")
        if max_rows < 1 or max_columns < 1:
            raise UsageError(f"bounds of {max_rows} rows and {max_columns} columns; wanted at least 1")
        self.height, self.width = height, width
        self.stats = Stats()
        self._n_heads = len(heads)
        self._channels = image_channels
        self._rules = SplitRules.of(heads, settings, connectivity)
        self._margin = MARGIN + self._rules.reach
        self._max_rows, self._max_columns = max_rows, max_columns
        self._emitted, self._end = rows or (0, height)  # rows that have left; those that come
        self._labeler = RunLabeler(width, settings.mask_threshold, connectivity, self._emitted)
        self._pool = SplitPool(self._rules, image_channels, workers, stains)
        self._collector = Collector(height, width, image_columns(image_channels, len(stains or ())))
        self._window = RowWindow()
        self._dtype: np.dtype[np.generic] | None = None
        self._batches: list[Batch] = []

    def close(self) -> None:
        """End the worker threads; :meth:`finish` does so too."""
        self._pool.close()

    def push(self, planes: NDArray[np.uint8], image: NDArray[np.generic] | None = None) -> list[Piece]:
        """Add the next rows.

        Parameters
        ----------
        planes
            Shape (K, rows, W), one plane for each head.
        image
            Shape (rows, W, image_channels), uint8, uint16 or float32; needed where the stream was
            made for image channels.

        Returns
        -------
        list
            The rows that are final by now, possibly none. The arrays given may be reused.

        Raises
        ------
        UsageError
            The rows do not fit the image or the model.
        """
        self._check(planes, image)
        y0, rows = self._labeler.rows, planes.shape[1]
        if rows == 0:
            return []
        self._window.append(y0, [planes[k] for k in self._rules.planes], image)
        self.stats.max_rows = max(self.stats.max_rows, y0 + rows - self._window.y)
        mask = self._window.planes[0][y0 - self._window.y :]
        start = 0
        while start < rows:
            stop = min(rows, self._next_stop(y0 + start) - y0)
            self._advance(mask[start:stop], y0 + stop)
            start = stop
        return self._let_go()

    def _let_go(self) -> list[Piece]:
        """Return the rows that are final, and forget what nothing needs any more."""
        frontier = self._labeler.oldest
        strips = self._emit(frontier)
        self._window.release(frontier)
        return strips

    def _next_stop(self, y: int) -> int:
        """Return the next row below ``y`` at which something is to be done."""
        return y + self._max_rows - y % self._max_rows

    def _advance(self, rows: NDArray[np.uintp], y: int) -> None:
        """Label rows down to row ``y``, and work off what that finishes."""
        last = y == self.height
        self._labeler.push(rows)
        components, runs = self._labeler.take(everything=last)
        self._finish_components(components, runs)
        if y % self._max_rows == 0 and not last:
            self._relieve(y)

    def _finish_components(self, components: NDArray[np.void], runs: NDArray[np.void]) -> None:
        """Work off components that no row can change any more."""
        self.stats.components += len(components)
        self._split(components, runs)

    def finish(self) -> list[Piece]:
        """Say that all rows are in, and end the worker threads.

        Returns
        -------
        list
            Always empty: the push that brings the last row returns all that was waiting.

        Raises
        ------
        UsageError
            Rows are missing.
        """
        self.close()
        if self._labeler.rows != self._end:
            raise UsageError(f"{self._labeler.rows} of {self._end} rows were pushed; push the rest first")
        return []

    def _check(self, planes: NDArray[np.uint8], image: NDArray[np.generic] | None) -> None:
        wanted = f"({self._n_heads}, rows, {self.width})"
        if planes.dtype != np.uint8 or planes.ndim != 3 or planes.shape[::2] != (self._n_heads, self.width):
            raise UsageError(f"planes of {planes.dtype} {planes.shape}; wanted uint8 {wanted}")
        end = self._labeler.rows + planes.shape[1]
        if end > self._end:
            raise UsageError(f"{end} rows were pushed for an image of {self._end}; push no more")
        if self._channels == 0:
            if image is not None:
                raise UsageError("image rows without image_channels; give image_channels to the stream")
            return
        shape = (planes.shape[1], self.width, self._channels)
        if image is None or image.shape != shape or image.dtype.name not in _IMAGE_TYPES:
            found = "no image" if image is None else f"image of {image.dtype} {image.shape}"
            raise UsageError(f"{found}; wanted {', '.join(_IMAGE_TYPES)} {shape}")
        if self._dtype not in (None, image.dtype):
            raise UsageError(f"image of {image.dtype} after one of {self._dtype}; keep to one type")
        self._dtype = image.dtype

    def _split(self, components: NDArray[np.void], runs: NDArray[np.void]) -> None:
        """Split finished components."""
        wide = self._wide(components)
        self._run(components[~wide] if wide.any() else components, runs, None)
        for component in components[wide]:
            self._split_wide(component, runs, _FAR, _NEVER)

    def _wide(self, components: NDArray[np.void]) -> NDArray[np.bool_]:
        """Return which components are worked off from left to right."""
        wide: NDArray[np.bool_] = components["x1"] - components["x0"] > self._max_columns
        return wide

    def _relieve(self, y: int) -> None:
        """Take the final cells out of the components that have been open for ``max_rows`` at ``y``."""
        components, runs = self._labeler.borrow(y - self._max_rows)
        if len(components):
            self._labeler.give_back(self._part_off(components, runs, y))

    def _part_off(self, components: NDArray[np.void], runs: NDArray[np.void], y: int) -> NDArray[np.void]:
        """Split open components at row ``y``; return what is held back of them, HELD_DTYPE (m,)."""
        limit, floor = y - self._margin, y - self._max_rows
        wide = self._wide(components)
        narrow = np.flatnonzero(~wide)
        self.stats.giant += len(narrow)
        limits = np.full(len(narrow), np.array((limit, floor, _FAR, _NEVER), LIMITS_DTYPE))
        held = self._run(components[narrow], runs, limits)
        held["component"] = narrow[held["component"]]
        parts = [held]
        for index in np.flatnonzero(wide):
            rest = self._split_wide(components[index], runs, limit, floor)
            rest["component"] = index
            parts.append(rest)
        return np.concatenate(parts)

    def _split_wide(
        self, component: np.void, runs: NDArray[np.void], limit: int, floor: int
    ) -> NDArray[np.void]:
        """Work off one wide component from left to right.

        Returns
        -------
        ndarray of HELD_DTYPE, shape (m,)
            Runs of the cells held back by the row ``limit``; their component is not said.
        """
        self.stats.giant += 1
        rest = runs[component["run_begin"] : component["run_end"]]
        held_rows = [np.empty(0, HELD_DTYPE)]
        begin, end = int(component["x0"]), int(component["x1"])
        step = self._max_columns
        for stop in [*range((begin // step + 1) * step, end, step), end]:
            here = rest[rest["x0"] < stop]
            beyond = rest[rest["x1"] > stop].copy()
            here["x1"] = np.minimum(here["x1"], stop)
            beyond["x0"] = np.maximum(beyond["x0"], stop)
            columns = (_FAR, _NEVER) if stop == end else (stop - self._margin, stop - step)
            limits = np.array([(limit, floor, *columns)], LIMITS_DTYPE)
            held = self._run(_component_of(here), here, limits)
            by_column = held["by_column"] == 1
            held_rows.append(held[~by_column])
            back = np.empty(int(by_column.sum()), RUN_DTYPE)
            for name in RUN_DTYPE.names or ():
                back[name] = held[name][by_column]
            rest = np.concatenate([back, beyond])
        return np.concatenate(held_rows)

    def _run(
        self, components: NDArray[np.void], runs: NDArray[np.void], limits: NDArray[np.void] | None
    ) -> NDArray[np.void]:
        """Split components, keep their cells for :meth:`_emit`, and return what is held back."""
        outcome = self._pool.split(components, runs, limits, self._window, self._dtype)
        self._batches += outcome.batches
        self.stats.dropped += outcome.dropped
        self.stats.holes += outcome.filled
        return outcome.held

    def _emit(self, frontier: int) -> list[Piece]:
        """Let the rows above ``frontier`` go, with the cells that begin there.

        The order of these cells is final: those found later belong to components that begin below.
        """
        if frontier == self._emitted:
            return []
        batches, first = self._batches, self.stats.cells + 1
        given = [(batch.cells, batch.intensity, batch.outline, batch.numbers) for batch in batches]
        columns, outline, outline_start = self._collector.take(given, self._emitted, frontier, first)
        cells = Cells(columns, outline, outline_start)
        self.stats.cells += len(cells)
        means = [values for name, values in columns.items() if name.startswith("mean_intensity_")]
        if means:
            self.stats.unmeasured += int(np.count_nonzero(~np.isfinite(means).all(axis=0)))
        piece = self._piece(self._emitted, frontier, cells)
        self._batches = [batch.below(frontier) for batch in batches if batch.end > frontier]
        self._emitted = frontier
        return [piece]

    @abstractmethod
    def _piece(self, y: int, y1: int, cells: Cells) -> Piece:
        """Return what becomes of the rows from ``y`` to ``y1``, in which these cells begin."""


def _component_of(runs: NDArray[np.void]) -> NDArray[np.void]:
    """Return the table of components for runs that shall be one component, with unknown holes."""
    if not len(runs):
        return np.empty(0, COMPONENT_DTYPE)
    box = runs["y"].min(), runs["x0"].min(), runs["y"].max() + 1, runs["x1"].max()
    return np.array([(0, len(runs), *box, -1, 0)], COMPONENT_DTYPE)
