"""Which cells are positive: a rule as text, ``[PART:]MARKER=THRESHOLD[,THRESHOLD,THRESHOLD]``."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .kinds import Kind

#: Of a cell: what is measured.
Part = Literal["nucleus", "ring", "cell"]
PARTS = get_args(Part)


@dataclass(frozen=True, slots=True)
class PositiveRule:
    """From what a marker on is a cell positive.

    Examples
    --------
    >>> PositiveRule.read("ring:dab=0.2,0.4,0.6")
    PositiveRule(marker='dab', thresholds=(0.2, 0.4, 0.6), part='ring')
    >>> str(PositiveRule("Ki67", (300,)))
    'Ki67=300'
    """

    #: Name of a stain or a channel.
    marker: str
    #: One: negative below it, positive from it on; three: negative, 1+, 2+ and 3+.
    thresholds: tuple[float, ...]
    #: Whose mean counts.
    part: Part = "nucleus"

    def __post_init__(self) -> None:
        given = self.thresholds
        if len(given) not in (1, 3) or not all(map(math.isfinite, given)) or self.part not in PARTS:
            raise ValueError
        if not self.marker or any(high <= low for low, high in itertools.pairwise(given)):
            raise ValueError

    @classmethod
    def read(cls, text: str) -> PositiveRule:
        """Return the rule that a text stands for.

        Raises
        ------
        ValueError
            It stands for none.
        """
        name, equals, numbers = text.rpartition("=")
        if not equals:
            raise ValueError
        before, colon, behind = name.partition(":")
        called = before.strip().lower()
        # A channel may have a colon in its name.
        part, marker = (called, behind) if colon and called in PARTS else ("nucleus", name)
        thresholds = tuple(float(number) for number in numbers.replace(";", ",").split(","))
        return cls(marker.strip(), thresholds, part)  # type: ignore[arg-type]  # one of PARTS

    def __str__(self) -> str:
        """Return the text that stands for it."""
        before = "" if self.part == "nucleus" else f"{self.part}:"
        return f"{before}{self.marker}={','.join(f'{number:.12g}' for number in self.thresholds)}"


@dataclass(frozen=True, slots=True)
class Positive(Kind[PositiveRule]):
    """Which cells are positive."""

    wanted: str = (
        "[ring: or cell:]MARKER=THRESHOLD with one threshold or three that rise, as dab=0.2 or "
        "ring:dab=0.2,0.4,0.6"
    )

    def check(self, value: Any) -> PositiveRule:
        """Accept a rule, or its text."""
        if isinstance(value, PositiveRule):
            return value
        if not isinstance(value, str):
            raise TypeError
        return PositiveRule.read(value)

    def plain(self, value: PositiveRule) -> str:
        """Write the text."""
        return str(value)
