"""Cells of a stretch of an image's rows, so that stretches that are split apart make the whole.

An image is cut into spans at some rows, the *seams*. Whatever happens to a component (it is finished, or
open for so long that its final cells are taken out of it) happens at a row, so in one span; and it is
either *inner*, because nothing connects what has been seen of it to the seam on which the span begins, or
not. ::

    ──────── seam ────────          a   touches it:           left to the seam
     ▒▒a    ▒▒▒b                    b   reaches it, so does what began above: the seam
       ▒▒  ▒▒   ▒c                  c   inner: of this span
      ▒d  ▒▒▒▒                      d   inner, until it meets b: what it lost before that is the span's
      ▒▒▒▒▒
    ──────── seam ────────          what is open here goes on below, and is the next seam's

An inner event depends on nothing above the span, so it is what one run over the image would see, and a
span does all of its own. All others are done by going over the rows around a seam once more, from the
first row of any component that reaches it to the last: there everything is known of these. So each event
is worked off exactly once, with the same pixels as in one run. The same for several seams that one
component runs through.

Numbers follow from the cells' first pixels, row by row: :func:`number_fragments`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..kernels.label import HELD_DTYPE
from ..kernels.split import CELL_RUN_DTYPE
from ..model.spec import Head, SplitSettings
from .cells import Cells
from .stream import RowStream


@dataclass(frozen=True, slots=True)
class Fragment:
    """Finished rows of one part: not all cells that lie in them, but all of its own.

    Attributes
    ----------
    y, y1
        The rows, half-open.
    cells
        The cells whose first row is one of these, numbered within the part from 1.
    first_x
        Column of the first pixel of each.
    runs
        CELL_RUN_DTYPE: all runs of the part's cells in these rows; ``cell`` is a cell's number less 1.
    """

    y: int
    y1: int
    cells: Cells
    first_x: NDArray[np.int32]
    runs: NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Reach:
    """What a span leaves to the seams that it begins and ends on.

    Attributes
    ----------
    top
        Row behind the last one that the upper seam needs; the span's first one where nothing touches it.
    bottom
        First row that the lower seam needs; the row behind the span's last one where it needs none.
    through
        Whether a component connects both.
    """

    top: int
    bottom: int
    through: bool


class FragmentStream(RowStream[Fragment]):
    """Rows of a part of an image into fragments.

    Parameters
    ----------
    seams
        Rows on which spans begin, but the first: for a span its own first row, or none at the top of the
        image; for what goes over seams again, these.
    part
        ``inner``: work off what does not depend on the seam; ``seam``: what does.
    height, width, heads, settings, **options
        As for :class:`~cellseg.runtime.instances.stream.RowStream`.
    """

    def __init__(
        self,
        height: int,
        width: int,
        heads: Sequence[Head],
        settings: SplitSettings,
        *,
        seams: Sequence[int],
        part: Literal["inner", "seam"],
        **options: Any,
    ) -> None:
        super().__init__(height, width, heads, settings, **options)
        self._seams = frozenset(seams)
        self._stops = sorted({row for seam in seams for row in (seam, seam + 1)})
        self._inner = part == "inner"
        self._begin = self._emitted

    @property
    def reach(self) -> Reach:
        """What the seams need of the rows that were pushed so far."""
        first, _, marked, ended = self._labeler.outlook()
        y = self._labeler.rows
        # One more row shows that what ended there has ended.
        top = y if marked else min(ended + 1, y) if ended > self._begin else self._begin
        return Reach(top, y if y == self.height else first, bool(marked))

    @property
    def open(self) -> bool:
        """Whether a component that a seam has touched can still grow."""
        return self._labeler.rows < self.height and self._labeler.outlook()[2] > 0

    def _next_stop(self, y: int) -> int:
        stop = super()._next_stop(y)
        return min([stop, *(row for row in self._stops if row > y)])

    def _advance(self, rows: NDArray[np.uintp], y: int) -> None:
        if y - 1 in self._seams:
            # What has a run on the row is marked before anything at its end happens.
            self._labeler.push(rows)
            self._labeler.mark()
            rows = rows[:0]
        super()._advance(rows, y)
        if y in self._seams:
            self._labeler.mark()

    def _finish_components(self, components: NDArray[np.void], runs: NDArray[np.void]) -> None:
        super()._finish_components(components[self._own(components)], runs)

    def _part_off(self, components: NDArray[np.void], runs: NDArray[np.void], y: int) -> NDArray[np.void]:
        own = self._own(components)
        parts = [np.empty(0, HELD_DTYPE)]
        for mine in (True, False):
            chosen = np.flatnonzero(own == mine)
            if not len(chosen) or not (mine or not self._inner):
                continue  # of what touches its seam a span keeps nothing
            before = list(self._batches), replace(self.stats)
            held = super()._part_off(components[chosen], runs, y)
            if not mine:  # their cells are the span's; what is held may become ours
                self._batches, self.stats = before
            held["component"] = chosen[held["component"]]
            parts.append(held)
        return np.concatenate(parts)

    def _own(self, components: NDArray[np.void]) -> NDArray[np.bool_]:
        """Return which components are worked off here."""
        own: NDArray[np.bool_] = (components["marked"] == 0) == self._inner
        return own

    def _let_go(self) -> list[Fragment]:
        y = self._labeler.rows
        frontier = self._labeler.outlook()[1] if self._inner else self._labeler.oldest
        pieces = self._emit(y if y == self._end else frontier)
        self._window.release(frontier)
        return pieces

    def _piece(self, y: int, y1: int, cells: Cells) -> Fragment:
        runs = [np.empty(0, CELL_RUN_DTYPE)]
        first_x = np.empty(len(cells), np.int32)
        offset = self.stats.cells - len(cells) + 1
        for batch in self._batches:
            here = batch.runs[batch.runs["y"] < y1]
            here["cell"] = batch.numbers[here["cell"]] - 1
            runs.append(here)
            fresh = batch.numbers >= offset
            first_x[batch.numbers[fresh] - offset] = batch.cells["first_x"][fresh]
        return Fragment(y, y1, cells, first_x, np.concatenate(runs))


def place_keys(fragment: Fragment) -> NDArray[np.int64]:
    """Return what the cells of a fragment are ordered by, by number: row and column of the first pixel."""
    return (fragment.cells.columns["y0"].astype(np.int64) << 32) | fragment.first_x


def number_parts(keys: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int32]]:
    """Return the numbers that one run would give the cells of all parts of an image.

    Parameters
    ----------
    keys
        Of each part, as from :func:`place_keys`.

    Returns
    -------
    list of ndarray of int32
        The number in the image of each cell of each part.
    """
    every = np.concatenate([*keys, np.empty(0, np.int64)])
    numbers = np.empty(len(every), np.int32)
    # Each part is sorted already, which this kind of sorting makes use of.
    numbers[np.argsort(every, kind="stable")] = np.arange(1, len(every) + 1, dtype=np.int32)
    return np.split(numbers, np.cumsum([len(part) for part in keys])[:-1])


def seam_groups(bounds: Sequence[int], reaches: Sequence[Reach]) -> list[tuple[tuple[int, ...], int, int]]:
    """Return which rows must be gone over again, and for which seams.

    Parameters
    ----------
    bounds
        Rows on which the spans begin, and the image's height.
    reaches
        Of each span.

    Returns
    -------
    list of (seams, first row, row behind the last)
        Seams that one component may run through go together. Those that nothing touches are left out.
    """
    groups: list[tuple[tuple[int, ...], int, int]] = []
    seams: tuple[int, ...] = ()
    begin = 0
    for at, seam in enumerate(bounds[1:-1]):
        if not seams:
            begin = reaches[at].bottom
        seams = (*seams, seam)
        below = reaches[at + 1]
        if below.through:
            continue
        if begin < seams[0] or below.top > seam or len(seams) > 1:
            # It takes the row below to see that what ends above the seam does so.
            groups.append((seams, begin, max(below.top, seam + 1)))
        seams = ()
    return groups
