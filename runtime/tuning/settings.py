"""The splitter's settings as a space to search: their ranges, and where to begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..model.spec import Head, SplitSettings

#: By how much finer the splitter cuts before rules join the pieces: factors of smoothing and persistence.
FINER = tuple((smoothing, depth) for smoothing in (1.0, 0.7, 0.5) for depth in (1.0, 0.5, 0.25))


@dataclass(frozen=True, slots=True)
class Range:
    """Where a setting may lie, and whether it is searched by its logarithm."""

    low: float
    high: float
    whole: bool = True
    logarithmic: bool = False

    def at(self, share: float) -> float:
        """Return the value at `share` (0…1, clipped) of the range."""
        share = min(max(share, 0.0), 1.0)
        if self.logarithmic:
            value = np.exp(np.log1p(self.low) + share * (np.log1p(self.high) - np.log1p(self.low))) - 1
        else:
            value = self.low + share * (self.high - self.low)
        return round(float(value)) if self.whole else round(float(value), 3)

    def share(self, value: float) -> float:
        """Return where a value lies in the range; the inverse of :meth:`at`."""
        if self.logarithmic:
            return float((np.log1p(value) - np.log1p(self.low)) / (np.log1p(self.high) - np.log1p(self.low)))
        return (value - self.low) / (self.high - self.low)


RANGES = {
    "mask_threshold": Range(48, 224),
    "boundary_weight": Range(0, 1, whole=False),
    "density_weight": Range(0, 1, whole=False),
    "distance_weight": Range(0, 24, whole=False),
    "smoothing": Range(0, 4, whole=False),
    "persistence": Range(1, 128, logarithmic=True),
    "min_seed_area": Range(1, 100, logarithmic=True),
    "min_area": Range(1, 150, logarithmic=True),
    "max_hole_area": Range(0, 1000, logarithmic=True),
    "min_seed_density": Range(0, 0.9, whole=False),
}
#: Settings that only matter where the model has that head.
NEEDS_HEAD = {"boundary_weight": "boundary", "density_weight": "density", "min_seed_density": "density"}


def names_for(heads: Sequence[Head]) -> list[str]:
    """Return the settings that matter to a model with these heads."""
    have = {"mask", *(head.name for head in heads)}
    return [name for name in RANGES if NEEDS_HEAD.get(name, "mask") in have]


def initial_settings(
    start: SplitSettings, heads: Sequence[Head], names: Sequence[str]
) -> list[SplitSettings]:
    """Return settings to try first: what suits the mask alone, then with one other plane, then with all.

    They differ from `start` in the settings `names` only. Planes that are left out have no weight.
    """
    have = [head.name for head in heads]
    found = []
    for kept in (("mask",), ("mask", "boundary"), ("mask", "density"), ("mask", "boundary", "density")):
        if not set(kept) <= set(have):
            continue
        suited = SplitSettings.suited(kept).model_dump()
        suited |= {name: 0.0 for name, head in NEEDS_HEAD.items() if head not in kept}
        if len(have) > 1 and len(kept) == 1:  # levels of the mask count as well: the distance must prevail
            suited |= {"distance_weight": 24.0, "persistence": 24}
        found.append(
            SplitSettings.model_validate(start.model_dump() | {name: suited[name] for name in names})
        )
    return found


def oversegment(settings: SplitSettings, names: Sequence[str]) -> list[SplitSettings]:
    """Return settings that cut as fine as these and finer, by changing those of `names` only."""
    several = []
    for smoothing, depth in FINER:
        cut: dict[str, float] = {
            "smoothing": round(settings.smoothing * smoothing, 3),
            "persistence": max(1, round(settings.persistence * depth)),
        }
        several.append(settings.model_copy(update={name: cut[name] for name in cut if name in names}))
    return list({each.model_dump_json(): each for each in several}.values())
