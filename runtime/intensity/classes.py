"""Classes of cells by how much of a marker they hold: negative and positive, or negative, 1+, 2+ and 3+.

Names and colours are QuPath's, and so is the H-score: the percentages of 1+, 2+ and 3+ cells, each times its
number.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.spelling import option
from ..errors import UsageError
from ..options.positive import PositiveRule
from .channels import list_channels
from .stains import Stains

#: Names with their colours, for one threshold and for three.
CLASSES = {
    1: {"Negative": (90, 90, 180), "Positive": (200, 50, 50)},
    3: {"Negative": (90, 90, 180), "1+": (255, 215, 0), "2+": (225, 150, 50), "3+": (200, 50, 50)},
}
#: What stains are called too, in lower case.
_ALSO = {"h": "hematoxylin", "haematoxylin": "hematoxylin", "e": "eosin", "diaminobenzidine": "dab"}
#: Index of the class of a cell that has none: of its part there is no pixel, or its mean is no number.
NONE = -1


@dataclass(frozen=True, slots=True)
class Classes:
    """How cells are put into classes.

    Attributes
    ----------
    rule
        As it was asked for.
    column
        Of :class:`~cellseg.runtime.instances.Cells`: the mean that is compared.
    marker
        The stain or channel, by its own name.
    """

    rule: PositiveRule
    column: str
    marker: str

    @property
    def colours(self) -> Mapping[str, tuple[int, int, int]]:
        """Names of the classes with their colours, from negative up."""
        return CLASSES[len(self.rule.thresholds)]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, from negative up."""
        return tuple(self.colours)

    def of(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int32]:
        """Return each cell's class by number, :data:`NONE` for none; a value at a threshold is above it."""
        values = np.asarray(columns[self.column], np.float64)
        found = np.searchsorted(self.rule.thresholds, values, side="right")
        return np.where(np.isfinite(values), found, NONE).astype(np.int32)

    def count(self, index: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return how many cells there are of each class; those without one do not count."""
        return np.bincount(index[index != NONE], minlength=len(self.names))


def positive_share(counts: Sequence[int]) -> float | None:
    """Return the share of cells that are not negative, 0…1; ``None`` of none."""
    total = sum(counts)
    return sum(counts[1:]) / total if total else None


def h_score(counts: Sequence[int]) -> float | None:
    """Return the H-score, 0…300; ``None`` of no cells, or where 1+, 2+ and 3+ are not told apart."""
    total = sum(counts)
    if len(counts) != 4 or not total:
        return None
    return 100 * sum(level * count for level, count in enumerate(counts)) / total


def choose_classes(
    rule: PositiveRule | None, names: Sequence[str], stains: Stains | None, path: Path | str
) -> Classes | None:
    """Find what a rule compares.

    Parameters
    ----------
    rule
        As asked for.
    names
        The slide's channels.
    stains
        Those that are measured.
    path
        The slide, for messages.

    Raises
    ------
    UsageError
        The marker is no stain that is measured and no channel, or several channels have that name.
    """
    if rule is None:
        return None
    before = "" if rule.part == "nucleus" else f"{rule.part}_"
    wanted = rule.marker.casefold()
    if stains is not None:
        lower = [name.casefold() for name in stains.names]
        for called in (wanted, _ALSO.get(wanted, wanted)):
            if called in lower:
                at = lower.index(called)
                return Classes(rule, f"{before}mean_od_{at}", stains.names[at])
    lower = [name.strip().casefold() for name in names]
    found = [at for at, name in enumerate(lower) if name == wanted]
    if not found and wanted.isascii() and wanted.isdigit() and int(wanted) < len(names):
        found = [int(wanted)]
    if len(found) != 1:
        measured = [] if stains is None else list(stains.names)
        said = f"stains {', '.join(measured)}" if measured else "no stains"
        near = difflib.get_close_matches(wanted, [*map(str.casefold, measured), *lower], 1, 0.6)
        advice = f"did you mean '{near[0]}'? " if near and len(found) < 1 else ""
        why = "several channels are called" if found else "has no stain or channel called"
        if stains is None and (wanted in _ALSO or wanted in ("dab", "hematoxylin", "eosin")):
            advice = f"stains are measured with {option('stains', 'auto')}; "
        raise UsageError(
            f"{path}: {why} '{rule.marker}'; {advice}measured are {said} and channels {list_channels(names)}"
        )
    return Classes(rule, f"{before}mean_intensity_{found[0]}", names[found[0]])
