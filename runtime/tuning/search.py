"""Find the settings of the splitter that suit a model best, on pictures whose cells are known.

The model runs once over each picture; then settings are tried on its planes, through the same splitter
that the runtime uses. The search starts from the model's own settings, draws half of the trials from a
wide bell around the best so far, and then changes one setting at a time with shrinking steps. Before that
it tries what suits a model with all of these planes, or with fewer: small steps do not lead from
settings that trust a plane to such that do without.

Afterwards the splitter may cut finer, and rules learned from the same pictures join the pieces and score
the cells (:mod:`.rules`). Whether that is any better is seen on pictures that the rules were not learned
from, each fifth in its turn.
"""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from ..backends import Backend
from ..evaluation.contingency import Labels
from ..evaluation.metrics import Score, score, summarise
from ..instances import split_planes
from ..instances.full_resolution import sources
from ..model.spec import Head, SplitSettings
from ..pipeline import segment
from ..readers import by_size
from .rules import Lesson, Pieces, joined, learn, scores

Planes = NDArray[np.uint8]
#: What each group of pictures comes to: see :func:`~cellseg.runtime.evaluation.metrics.summarise`.
Figures = dict[str, dict[str, float]]
#: Random trials between two looks at which is best: enough to keep every process busy.
ROUND = 16
#: Settings that a random trial changes, in the mean: where all change, hardly one trial is any good.
FEW = 2.5
#: Scores settings, in order; several at once where there are processes.
Run = Callable[[Iterable[SplitSettings]], Iterable[Figures]]
#: Rules are learned on all pictures but each so-many-th, and judged on these.
FOLDS = 5
#: By how much finer the splitter cuts before rules join the pieces: factors of smoothing and persistence.
FINER = tuple((smoothing, depth) for smoothing in (1.0, 0.7, 0.5) for depth in (1.0, 0.5, 0.25))
#: Smallest scores that are tried. Above 0.5 cells would be lost that are more likely right than not.
MINIMA = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


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


@dataclass(frozen=True, slots=True)
class Case:
    """One picture: what the model saw in it and what is true."""

    group: str
    #: (K, H, W), one plane for each head of the model.
    planes: Planes
    #: (H, W)
    truth: Labels


def see(
    backend: Backend, files: Mapping[str, Path], diameter: float | Literal["auto", "none"] | None = None
) -> Iterator[tuple[str, Planes]]:
    """Yield each picture's name and the planes that the splitter gets of it, (K, H, W), small ones first.

    Their scale is the model's, as in a segmentation; `diameter` is the option of that name.
    """
    with tempfile.TemporaryDirectory(prefix="cellseg-") as folder:
        output = Path(folder) / "seen"
        for name in by_size(files):
            segment(
                files[name], backend, output=output, overwrite=True, probabilities=True, diameter=diameter
            )
            stored = zarr.open_group(output / "planes.ome.zarr", mode="r")
            yield name, np.asarray(stored["0"])


def at_scale_of(planes: Planes, truth: Labels) -> Labels:
    """Return the true labels at the scale of the planes, by the nearest pixel."""
    if truth.shape == planes.shape[1:]:
        return truth
    rows, columns = (
        sources(np.arange(edge), full, edge) for edge, full in zip(planes.shape[1:], truth.shape, strict=True)
    )
    return truth[np.ix_(rows, columns)]


def names_for(heads: Sequence[Head]) -> list[str]:
    """Return the settings that matter to a model with these heads."""
    have = {"mask", *(head.name for head in heads)}
    return [name for name in RANGES if NEEDS_HEAD.get(name, "mask") in have]


def beginnings(start: SplitSettings, heads: Sequence[Head], names: Sequence[str]) -> list[SplitSettings]:
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
    scores: dict[str, list[Score]] = {}
    for case in cases:
        found = split_planes(case.planes, heads, settings)
        scores.setdefault(case.group, []).append(score(case.truth, found))
    return {group: summarise(each) for group, each in sorted(scores.items())}


def try_rules(
    cases: Sequence[Case], heads: Sequence[Head], balance: float, settings: SplitSettings
) -> tuple[SplitSettings, Figures]:
    """Learn rules for the pieces that these settings make; return them with the best smallest score.

    The figures are of pictures that the rules were not learned from; there must be two at least.
    """
    lessons = [Lesson.of(case.planes, case.truth, heads, settings) for case in cases]
    counts = counts_of([case.group for case in cases], lessons, balance)
    found: list[dict[str, list[Score]]] = [{} for _ in MINIMA]
    for fold in range(min(FOLDS, len(cases))):
        others = [at for at in range(len(lessons)) if at % FOLDS != fold]
        join_rule, score_rule = learn(
            [lessons[at] for at in others], heads, settings.min_area, [counts[at] for at in others]
        )
        for case, lesson in list(zip(cases, lessons, strict=True))[fold::FOLDS]:
            labels = joined(lesson, join_rule, heads)
            cells = Pieces.of(labels, lesson.planes)
            sure = np.ones(len(cells.area)) if score_rule is None else scores(cells, score_rule, heads)
            for minimum, table in zip(MINIMA, found, strict=True):
                kept = np.concatenate([[False], (cells.area >= settings.min_area) & (sure >= minimum)])
                table.setdefault(case.group, []).append(score(case.truth, np.where(kept[labels], labels, 0)))
    figures = [{group: summarise(each) for group, each in sorted(table.items())} for table in found]
    best = max(range(len(MINIMA)), key=lambda at: goal(figures[at], balance))
    join_rule, score_rule = learn(lessons, heads, settings.min_area, counts)
    if score_rule is not None:
        score_rule = score_rule.model_copy(update={"minimum": MINIMA[best]})
    return settings.model_copy(update={"join": join_rule, "score": score_rule}), figures[best]


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
    def learn(cls, balance: float, settings: SplitSettings) -> tuple[SplitSettings, Figures]:
        return try_rules(cls.cases, cls.heads, balance, settings)


@dataclass(frozen=True, slots=True)
class Runner:
    """Scores settings, and learns rules for them; each gives its results in order."""

    score: Run
    #: Balance and settings → settings with rules and their figures.
    learn: Callable[[float, Iterable[SplitSettings]], Iterable[tuple[SplitSettings, Figures]]]


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
                lambda balance, several: pool.map(partial(_Worker.learn, balance), several),
            )
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def finer(settings: SplitSettings, names: Sequence[str]) -> list[SplitSettings]:
    """Return settings that cut as fine as these and finer, by changing those of `names` only."""
    several = []
    for smoothing, depth in FINER:
        cut: dict[str, float] = {
            "smoothing": round(settings.smoothing * smoothing, 3),
            "persistence": max(1, round(settings.persistence * depth)),
        }
        several.append(settings.model_copy(update={name: cut[name] for name in cut if name in names}))
    return list({each.model_dump_json(): each for each in several}.values())


def with_rules(
    settings: SplitSettings,
    figures: Figures,
    candidates: Sequence[SplitSettings],
    run: Runner,
    tell: Callable[[], None] = lambda: None,
    balance: float = 0.5,
) -> tuple[SplitSettings, Figures]:
    """Learn rules that join the pieces and score the cells, where that is better than to do without.

    Parameters
    ----------
    settings, figures
        The best without rules, and what they come to.
    candidates
        How the pieces may be cut, see :func:`finer`.
    tell
        Called after each of them.
    balance
        How groups are weighed, see :func:`goal`.

    Returns
    -------
    The best settings and their figures: of pictures that the rules were not learned from.
    """
    for candidate, found in run.learn(balance, candidates):
        tell()
        if goal(found, balance) > goal(figures, balance):
            settings, figures = candidate, found
    return settings, figures


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
