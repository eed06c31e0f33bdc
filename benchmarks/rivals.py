"""A kernel and what one would call instead, timed in turn on the same input."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """One kernel and its rivals; ``rivals`` maps a name to a call on the same input."""

    name: str
    ours: Callable[[], object]
    rivals: dict[str, Callable[[], object]] = field(default_factory=dict)

    def installed(self, missing: set[str]) -> Case:
        """Return the case with those rivals that run here; add the others, and why, to ``missing``."""
        there = {}
        for name, call in self.rivals.items():
            try:
                call()
            except ImportError as error:
                missing.add(f"{name} ({error})")
            else:
                there[name] = call
        return Case(self.name, self.ours, there)


def best_seconds(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Run the calls in turn and return the best processor time of each.

    Calls that take longer than a second run in the first two rounds only.
    """
    best = [float("inf")] * len(calls)
    for round_ in range(rounds):
        for index, call in enumerate(calls):
            if round_ > 1 and best[index] > 1:
                continue
            start = time.process_time()
            call()
            best[index] = min(best[index], time.process_time() - start)
    return best
