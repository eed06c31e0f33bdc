"""Find the settings of the splitter that suit a model best: by search, and with rules or without.

The search starts from given settings, draws half of the trials from a wide bell around the best so far,
and then changes one setting at a time with shrinking steps. Before that it tries what suits a model with
all of these planes, or with fewer: small steps do not lead from settings that trust a plane to such that
do without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ..model.spec import SplitSettings
from .settings import RANGES
from .trials import Figures, Run, Runner, goal

#: Random trials between two looks at which is best: enough to keep every process busy.
ROUND = 16
#: Settings that a random trial changes, in the mean: where all change, hardly one trial is any good.
FEW = 2.5


def search(
    start: SplitSettings,
    names: Sequence[str],
    trials: int,
    seed: int,
    run: Run,
    tell: Callable[[Figures], None] = lambda figures: None,
    first: Sequence[SplitSettings] = (),
    balance: float = 0.5,
) -> tuple[SplitSettings, Figures, Figures]:
    """Search at random, then coordinate by coordinate around the best with shrinking steps.

    Equal seeds give equal results, whatever the number of processes.

    Parameters
    ----------
    start
        Where to begin; it counts as a trial.
    names
        The settings to change, see :func:`names_for`.
    trials
        How many settings to try at most.
    tell
        Called with the figures of each.
    first
        Settings to try before any others; they count as trials.
    balance
        How groups are weighed, see :func:`goal`.

    Returns
    -------
    The best settings, their figures, and those of the start.
    """
    rng = np.random.default_rng(seed)
    tried = {start.model_dump_json()}
    best, before = start, next(iter(run([start])))
    tell(before)
    figures = before

    def attempt(candidates: Iterable[SplitSettings]) -> bool:
        nonlocal best, figures
        fresh = {c.model_dump_json(): c for c in candidates if c.model_dump_json() not in tried}
        several = list(fresh.values())[: trials - len(tried)]
        improved = False
        for candidate, found in zip(several, run(several), strict=True):
            tried.add(candidate.model_dump_json())
            tell(found)
            if goal(found, balance) > goal(figures, balance):
                best, figures, improved = candidate, found, True
        return improved

    attempt(first)
    for _ in range(trials // (2 * ROUND)):
        draws = rng.normal(0, 0.2, (ROUND, len(names)))
        draws *= rng.random(draws.shape) < FEW / max(len(names), 1)
        attempt([_moved(best, dict(zip(names, draw, strict=True))) for draw in draws])
    step = 0.2
    while names and len(tried) < trials and step > 0.005:
        improved = False
        for name in rng.permutation(names):
            improved |= attempt([_moved(best, {name: move * step}) for move in (-1, -0.5, 0.5, 1)])
        step = step if improved else step / 2
    return best, figures, before


def _moved(settings: SplitSettings, moves: Mapping[str, float]) -> SplitSettings:
    """Move settings by shares of their ranges."""
    values = {
        name: RANGES[name].at(RANGES[name].share(getattr(settings, name)) + move)
        for name, move in moves.items()
        if move
    }
    return SplitSettings.model_validate(settings.model_dump() | values)


def with_rules(
    settings: SplitSettings,
    figures: Figures,
    candidates: Sequence[SplitSettings],
    run: Runner,
    tell: Callable[[], None] = lambda: None,
    balance: float = 0.5,
) -> tuple[SplitSettings, Figures]:
    """Fit rules that join the pieces and score the cells, where that is better than to do without.

    Parameters
    ----------
    settings, figures
        The best without rules, and what they come to.
    candidates
        How the pieces may be cut, see :func:`~.settings.oversegment`.
    tell
        Called after each of them.
    balance
        How groups are weighed, see :func:`goal`.

    Returns
    -------
    The best settings and their figures: of pictures that the rules were not fitted to.
    """
    for candidate, found in run.fit(balance, candidates):
        tell()
        if goal(found, balance) > goal(figures, balance):
            settings, figures = candidate, found
    return settings, figures
