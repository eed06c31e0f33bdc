"""The diameter of a slide's cells, from what a model finds in it at several scales.

A model finds something at every scale. What tells the true size from the others is that it does not
change: cells that are really there have the same size in the slide whatever scale they are found at,
while what a model mistakes for cells is as large as the model expects, and so has another size in the
slide at each scale. So every cell that was found at any scale votes for its size in the slide; the votes for
the true size fall together, the others spread (a Hough transform, as for lines in a picture).

A vote counts by the cell's score, and the less the further the cell, as the model saw it, was from what
the model knows. Cells that the field's edge cuts do not vote; large ones, which are cut more often,
count the more instead (Miles 1974, Lantuéjoul 1978).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..instances import Cells
from ..model.spec import CellDiameter

#: Spread of the sizes that a model can be trusted with, around its own diameter (natural logarithm).
TRUSTED = 0.6
#: Spread of a single vote, and how far from the peak votes are for the same size (natural logarithm).
BLUR, NEAR = 0.2, 0.4
#: Diameters that are told apart, in slide pixels: from, to, and their ratio.
SMALLEST, LARGEST, STEP = 1.0, 4096.0, 2 ** (1 / 16)
#: A scale supports an estimate where it gives this part of its votes.
SUPPORT = 0.1
#: The least that an estimate is worth acting on: votes times their part of all (a few that all agree count as
#: much as many of which half do), that part, and scales that support it.
ENOUGH_VOTES, ENOUGH_AGREEMENT, ENOUGH_SCALES = 5.0, 0.4, 2

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Look:
    """Cells that were found in one field at one scale."""

    #: Pixels in which they were found, for each pixel of the slide.
    scale: float
    #: Size of the field in those pixels.
    height: int
    width: int
    cells: Cells


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the votes say."""

    #: Median diameter of the cells that agree, in pixels of the slide.
    diameter: float
    #: Votes for it, and their part of all.
    votes: float
    agreement: float
    #: The scales that support it, the smallest first.
    scales: tuple[float, ...]

    @property
    def certain(self) -> bool:
        """Whether it is worth acting on."""
        return (
            self.votes * self.agreement >= ENOUGH_VOTES
            and self.agreement >= ENOUGH_AGREEMENT
            and len(self.scales) >= ENOUGH_SCALES
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen at one scale."""

    scale: float
    fields: int
    cells: int
    #: Their sum, and the diameter in pixels of the slide that half of them lie below.
    votes: float
    diameter: float | None
    #: Cells to expect there by their scores, and megapixels of the slide that were seen.
    expected: float
    megapixels: float

    @property
    def density(self) -> float:
        """Cells to expect in a megapixel of the slide."""
        return self.expected / self.megapixels

    @classmethod
    def of(cls, looks: Sequence[Look], known: CellDiameter) -> Evidence:
        """Sum up looks at one scale."""
        diameter, weight = (
            np.concatenate(parts) for parts in zip(*(votes(look, known) for look in looks), strict=True)
        )
        total = float(weight.sum())
        middle = weighted_median(diameter, weight) if total > 0 else None
        scale = looks[0].scale
        megapixels = sum(look.height * look.width for look in looks) / scale**2 / 1e6
        count = sum(float(expected(look).sum()) for look in looks)
        return cls(scale, len(looks), len(weight), total, middle, count, megapixels)

    def finds_more_than(self, other: Evidence, ratio: float) -> bool:
        """Whether clearly more cells are to be expected by this scale than by another.

        By `ratio`, and by half the standard error of as many cells that lie at random (Poisson).
        """
        if not (self.expected > 0 and other.expected > 0):
            return self.expected > ENOUGH_VOTES
        error = math.sqrt(1 / self.expected + 1 / other.expected)
        return math.log(self.density / other.density) > max(math.log(ratio), error / 2)


def estimate(looks: Sequence[Look], known: CellDiameter) -> Estimate | None:
    """Return the size that most votes are for.

    Parameters
    ----------
    looks
        Cells found at several scales, doubtful ones included.
    known
        What the model was trained on.

    Returns
    -------
    Estimate or None
        ``None`` where no cell votes.
    """
    cast = [votes(look, known) for look in looks]
    diameter = np.concatenate([np.empty(0), *(each for each, _ in cast)])
    weight = np.concatenate([np.empty(0), *(each for _, each in cast)])
    scale = np.repeat([look.scale for look in looks], [len(look.cells) for look in looks])
    if not weight.sum() > 0:
        return None
    size = np.log(diameter)
    places = np.arange(math.log(SMALLEST), math.log(LARGEST), math.log(STEP))
    heap = np.zeros(len(places))
    for begin in range(0, len(size), 4096):  # bounds the memory
        part = slice(begin, begin + 4096)
        heap += np.exp(-0.5 * ((places[:, None] - size[part]) / BLUR) ** 2) @ weight[part]
    near = np.abs(size - places[heap.argmax()]) < NEAR
    middle = weighted_median(diameter[near], weight[near])
    near = np.abs(size - math.log(middle)) < NEAR
    total = float(weight[near].sum())
    given = {each: float(weight[near & (scale == each)].sum()) for each in np.unique(scale).tolist()}
    return Estimate(
        middle,
        total,
        total / float(weight.sum()),
        tuple(each for each, part in sorted(given.items()) if part > SUPPORT * total),
    )


def votes(look: Look, known: CellDiameter) -> tuple[Values, Values]:
    """Return the diameter of each cell in pixels of the slide, and how much its vote counts."""
    seen = diameters(look.cells.columns["area"])
    trust = np.exp(-0.5 * (np.log(seen / known.median) / TRUSTED) ** 2)
    return seen / look.scale, expected(look) * trust


def expected(look: Look) -> Values:
    """Return for how many cells each one stands: by its score, and for more where edges cut many."""
    columns = look.cells.columns
    y0, x0, y1, x1, score = (
        np.asarray(columns[name], np.float64) for name in ("y0", "x0", "y1", "x1", "score")
    )
    inside = (y0 > 0) & (x0 > 0) & (y1 < look.height) & (x1 < look.width)
    uncut = (1 - (y1 - y0) / look.height) * (1 - (x1 - x0) / look.width)
    return np.asarray(inside * score / np.clip(uncut, 0.1, 1.0))


def diameters(areas: NDArray[Any]) -> Values:
    """Return the diameters of circles of these areas."""
    return 2 * np.sqrt(np.asarray(areas, np.float64) / math.pi)


def weighted_median(values: Values, weights: Values) -> float:
    """Return the value below and above which lies half of the weight."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(below, below[-1] / 2)]])
