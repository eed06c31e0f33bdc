"""What settings and rules come to on pictures whose cells are known, in one process or several."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..evaluation.metrics import Score, score, summarise
from ..instances import split_planes
from ..model.spec import Head, SplitSettings
from .cases import Case
from .rules import Lesson, Pieces, fit_rules, joined, scores

#: What each group of pictures comes to: see :func:`~cellseg.runtime.evaluation.metrics.summarise`.
Figures = dict[str, dict[str, float]]
#: Scores settings, in order; several at once where there are processes.
Run = Callable[[Iterable[SplitSettings]], Iterable[Figures]]
#: Rules are learned on all pictures but each so-many-th, and judged on these.
FOLDS = 5
#: Blocks of pictures that are left out in turn to see how much hangs on each.
BLOCKS = 20
#: Smallest scores that are tried. Above 0.5 cells would be lost that are more likely right than not.
MINIMA = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


def goal(figures: Figures, balance: float = 0.5) -> float:
    """Return the weighted mean over groups of (AP50 + AP75 + AP90) / 3, each pooled over its pictures.

    A group of n pictures weighs n ** (1 - balance), as kinds of pictures do in training: each picture
    the same at 0, each group the same at 1. Between them neither a frequent kind nor a handful of odd ones
    decides alone.
    """
    each = [(group["ap50"] + group["ap75"] + group["ap90"]) / 3 for group in figures.values()]
    return float(np.average(each, weights=[group["images"] ** (1 - balance) for group in figures.values()]))


def try_settings(cases: Sequence[Case], heads: Sequence[Head], settings: SplitSettings) -> Figures:
    """Return the figures of each group."""
    return by_group(cases, score_each(cases, heads, 0.0, settings, refit=False))


def try_rules(
    cases: Sequence[Case], heads: Sequence[Head], balance: float, settings: SplitSettings
) -> tuple[SplitSettings, Figures]:
    """Fit rules to the pieces that these settings make; return them with the best smallest score.

    The figures are of pictures that the rules were not fitted to; there must be two at least.
    """
    lessons = [Lesson.of(case.planes, case.truth, heads, settings) for case in cases]
    counts = counts_of([case.group for case in cases], lessons, balance)
    figures = [by_group(cases, each) for each in _held_out(cases, lessons, counts, heads, settings)]
    best = max(range(len(MINIMA)), key=lambda at: goal(figures[at], balance))
    join_rule, score_rule = fit_rules(lessons, heads, settings.min_area, counts)
    if score_rule is not None:
        score_rule = score_rule.model_copy(update={"minimum": MINIMA[best]})
    return settings.model_copy(update={"join": join_rule, "score": score_rule}), figures[best]


def score_each(
    cases: Sequence[Case], heads: Sequence[Head], balance: float, settings: SplitSettings, *, refit: bool
) -> list[Score]:
    """Return the score of each picture; with rules that are fitted anew to the others where `refit`."""
    if not refit or (settings.score is None and settings.join is None):
        return [score(case.truth, split_planes(case.planes, heads, settings)) for case in cases]
    lessons = [Lesson.of(case.planes, case.truth, heads, settings) for case in cases]
    counts = counts_of([case.group for case in cases], lessons, balance)
    minimum = MINIMA[0] if settings.score is None else settings.score.minimum
    return _held_out(cases, lessons, counts, heads, settings)[MINIMA.index(minimum)]


def _held_out(
    cases: Sequence[Case],
    lessons: Sequence[Lesson],
    counts: Sequence[float],
    heads: Sequence[Head],
    settings: SplitSettings,
) -> list[list[Score]]:
    """Return, for each of :data:`MINIMA`, the score of each picture by rules fitted to other pictures."""
    found: list[dict[int, Score]] = [{} for _ in MINIMA]
    for fold in range(min(FOLDS, len(cases))):
        others = [at for at in range(len(lessons)) if at % FOLDS != fold]
        join_rule, score_rule = fit_rules(
            [lessons[at] for at in others], heads, settings.min_area, [counts[at] for at in others]
        )
        for at in range(fold, len(cases), FOLDS):
            labels = joined(lessons[at], join_rule, heads)
            cells = Pieces.of(labels, lessons[at].planes)
            sure = np.ones(len(cells.area)) if score_rule is None else scores(cells, score_rule, heads)
            for minimum, table in zip(MINIMA, found, strict=True):
                kept = np.concatenate([[False], (cells.area >= settings.min_area) & (sure >= minimum)])
                table[at] = score(cases[at].truth, np.where(kept[labels], labels, 0))
    return [[table[at] for at in range(len(cases))] for table in found]


def by_group(cases: Sequence[Case], each: Sequence[Score]) -> Figures:
    """Return the figures of each group from the scores of its pictures."""
    groups: dict[str, list[Score]] = {}
    for case, one in zip(cases, each, strict=True):
        groups.setdefault(case.group, []).append(one)
    return {group: summarise(several) for group, several in sorted(groups.items())}


def lead(
    cases: Sequence[Case], own: Sequence[Score], other: Sequence[Score], balance: float
) -> tuple[float, float]:
    """Return by how much the scores `other` are better than `own`, and the standard error of that.

    The error is the jackknife's, over pictures, or over blocks of them where they are many (Efron and Stein,
    "The jackknife estimate of variance", 1981); of one picture it is infinite.
    """
    blocks = min(len(cases), BLOCKS)

    def gain(without: int | None) -> float:
        kept = [at for at in range(len(cases)) if at % blocks != without]
        some = [cases[at] for at in kept]
        one, two = (goal(by_group(some, [each[at] for at in kept]), balance) for each in (own, other))
        return two - one

    if blocks < 2:
        return gain(None), float("inf")
    each = np.array([gain(block) for block in range(blocks)])
    return gain(None), float(np.sqrt((blocks - 1) * each.var()))


def counts_of(groups: Sequence[str], lessons: Sequence[Lesson], balance: float) -> list[float]:
    """Return how often what each picture shows counts: groups of n pieces weigh n ** (1 - balance)."""
    pieces = dict.fromkeys(groups, 0)
    for group, lesson in zip(groups, lessons, strict=True):
        pieces[group] += int(lesson.labels.max(initial=0))
    each = [max(pieces[group], 1) ** -balance for group in groups]
    total = sum(one * lesson.labels.max(initial=0) for one, lesson in zip(each, lessons, strict=True))
    return [one * sum(pieces.values()) / max(float(total), 1e-9) for one in each]


class _Worker:
    """The cases in each process; they are handed over once."""

    cases: Sequence[Case]
    heads: Sequence[Head]

    @classmethod
    def prepare(cls, cases: Sequence[Case], heads: Sequence[Head]) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
        cls.cases, cls.heads = cases, heads

    @classmethod
    def work(cls, settings: SplitSettings) -> Figures:
        return try_settings(cls.cases, cls.heads, settings)

    @classmethod
    def fit(cls, balance: float, settings: SplitSettings) -> tuple[SplitSettings, Figures]:
        return try_rules(cls.cases, cls.heads, balance, settings)


@dataclass(frozen=True, slots=True)
class Runner:
    """Scores settings, and fits rules for them; each gives its results in order."""

    score: Run
    #: Balance and settings → settings with rules and their figures.
    fit: Callable[[float, Iterable[SplitSettings]], Iterable[tuple[SplitSettings, Figures]]]


@contextmanager
def runner(cases: Sequence[Case], heads: Sequence[Head], jobs: int) -> Iterator[Runner]:
    """Give what scores many settings in `jobs` processes."""
    if jobs == 1:
        yield Runner(
            partial(map, partial(try_settings, cases, heads)),
            lambda balance, several: map(partial(try_rules, cases, heads, balance), several),
        )
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit the engine's threads
    with ProcessPoolExecutor(jobs, spawn, _Worker.prepare, (cases, heads)) as pool:
        try:
            yield Runner(
                partial(pool.map, _Worker.work),
                lambda balance, several: pool.map(partial(_Worker.fit, balance), several),
            )
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
