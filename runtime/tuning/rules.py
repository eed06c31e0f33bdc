"""Learn from pictures whose cells are known which touching cells are one, and how sure a cell is.

Two rules are learned, :class:`~cellseg.runtime.model.spec.JoinRule` and
:class:`~cellseg.runtime.model.spec.ScoreRule`: logistic regressions on what the planes show where two
pieces touch and inside of a cell. This module is the plain form of what the kernel computes
(``csrc/judge.pxd``), on whole label images.

How they are learned: the splitter leaves small pieces, without dropping any. Two that touch are one cell
where most of each lies in the same true cell. A cell is right where a true one has an IoU of at least
0.5 with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..evaluation.contingency import Contingency, Labels
from ..instances import split_planes
from ..model.spec import Head, JoinRule, ScoreRule, SplitSettings

Planes = NDArray[np.uint8]
Floats = NDArray[np.float64]

#: Weight of the squared coefficients of standardised columns, added to the sum over all examples: without it
#: a rule that separates few examples perfectly would grow without bound.
RIDGE = 1.0
#: A piece belongs to the true cell that holds at least this share of it.
BELONGS = 0.5
#: A cell is right from this IoU on.
RIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Pieces:
    """What the planes show in the pieces of a label image and where two of them touch.

    Attributes
    ----------
    area
        Pixels, shape (n,); piece ``i`` has the number ``i + 1``.
    inside
        Mean byte / 255 of each plane, shape (n, K).
    pairs
        Indices of pieces that are direct neighbours somewhere, shape (m, 2), the smaller first.
    length
        Pairs of neighbouring pixels of such two, shape (m,).
    contact
        Mean byte / 255 of each plane over these pixels, shape (m, K).
    """

    area: Floats
    inside: Floats
    pairs: NDArray[np.int64]
    length: Floats
    contact: Floats

    @classmethod
    def of(cls, labels: Labels, planes: Planes) -> Pieces:
        """Look at the pieces 1…n of a label image, shape (H, W), and planes of shape (K, H, W)."""
        flat = labels.ravel().astype(np.int64)
        n = int(flat.max(initial=0))
        bytes_ = planes.reshape(len(planes), -1)
        area = np.bincount(flat, minlength=n + 1)[1:].astype(np.float64)
        sums = [np.bincount(flat, plane, minlength=n + 1)[1:] for plane in bytes_]
        place = np.arange(flat.size).reshape(labels.shape)
        first = np.concatenate([place[:, :-1].ravel(), place[:-1].ravel()])
        second = np.concatenate([place[:, 1:].ravel(), place[1:].ravel()])
        touching = (flat[first] != flat[second]) & (flat[first] > 0) & (flat[second] > 0)
        first, second = first[touching], second[touching]
        low, high = np.minimum(flat[first], flat[second]), np.maximum(flat[first], flat[second])
        keys, which = np.unique(low * (n + 1) + high, return_inverse=True)
        length = np.bincount(which, minlength=len(keys)).astype(np.float64)
        along = [
            np.bincount(which, plane[first].astype(np.float64) + plane[second], minlength=len(keys))
            for plane in bytes_
        ]
        return cls(
            area,
            np.stack(sums, 1) / (255.0 * area[:, None]),
            np.stack([keys // (n + 1), keys % (n + 1)], 1) - 1,
            length,
            np.stack(along, 1) / (510.0 * length[:, None]),
        )

    def of_pairs(self) -> Floats:
        """Return what a join rule weighs, shape (m, 2 K + 3): contact, inside, smaller, larger, length."""
        one, other = self.pairs.T
        areas = self.area[self.pairs]
        both = (areas[:, :1] * self.inside[one] + areas[:, 1:] * self.inside[other]) / areas.sum(1)[:, None]
        sizes = np.log(np.stack([areas.min(1), areas.max(1), self.length], 1))
        return np.concatenate([self.contact, both, sizes], 1)

    def of_cells(self) -> Floats:
        """Return what a score rule weighs, shape (n, K + 1): inside, area."""
        return np.concatenate([self.inside, np.log(self.area)[:, None]], 1)


def fit(
    columns: Floats, answers: NDArray[np.bool_], counts: Floats | None = None
) -> tuple[float, list[float]] | None:
    """Fit a logistic regression by Newton's method, with a ridge on standardised columns.

    Parameters
    ----------
    columns
        Shape (n, k).
    answers
        Shape (n,).
    counts
        How often each example counts, shape (n,); once where not given.

    Returns
    -------
    Constant and weights of the columns as they are, to four digits behind the point; ``None`` where all
    answers are the same.
    """
    if answers.all() or not answers.any():
        return None
    centre, spread = columns.mean(0), columns.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    design = np.column_stack([np.ones(len(columns)), (columns - centre) / spread])
    ridge = np.diag([1e-6, *[RIDGE] * columns.shape[1]])
    weights = np.zeros(design.shape[1])
    each = np.ones(len(columns)) if counts is None else counts

    def loss(at: Floats) -> float:
        odds = design @ at
        return float((each * np.logaddexp(0, np.where(answers, -odds, odds))).sum() + at @ ridge @ at / 2)

    for _ in range(100):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        slope = design.T @ (each * (chance - answers)) + ridge @ weights
        curvature = (design * (each * chance * (1 - chance))[:, None]).T @ design + ridge
        step = np.linalg.solve(curvature, slope)
        share = 1.0
        while loss(weights - share * step) > loss(weights) and share > 1e-6:
            share /= 2
        weights = weights - share * step
        if np.abs(share * step).max() < 1e-8:
            break
    scaled = weights[1:] / spread
    constant = float(weights[0] - scaled @ centre)
    return round(constant, 4), [round(float(weight), 4) for weight in scaled]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A picture cut into pieces, together with its true cells.

    Attributes
    ----------
    planes
        Shape (K, H, W).
    truth, labels
        True cells and pieces, shape (H, W).
    pairs
        Indices of pieces that touch, shape (m, 2).
    columns
        What a join rule weighs of them, see :meth:`Pieces.of_pairs`.
    known, same
        Shape (m,): whether it is known to which true cells both belong, and whether that is one.
    """

    planes: Planes
    truth: Labels
    labels: NDArray[np.int32]
    pairs: NDArray[np.int64]
    columns: Floats
    known: NDArray[np.bool_]
    same: NDArray[np.bool_]

    @classmethod
    def of(cls, planes: Planes, truth: Labels, heads: Sequence[Head], settings: SplitSettings) -> Lesson:
        """Cut a picture into pieces by these settings, without rules, dropping none."""
        whole = settings.model_copy(update={"join": None, "score": None, "min_area": 1})
        labels = split_planes(planes, heads, whole)
        pieces = Pieces.of(labels, planes)
        overlap = Contingency.of(truth, labels)
        owner = np.full(len(pieces.area), -1, np.int64)
        belongs = overlap.pixels >= BELONGS * overlap.predicted_area[overlap.predicted]
        owner[overlap.predicted[belongs]] = overlap.true[belongs]
        one, other = owner[pieces.pairs].T
        known = (one >= 0) & (other >= 0)
        return cls(planes, truth, labels, pieces.pairs, pieces.of_pairs(), known, one == other)


def fit_rules(
    lessons: Sequence[Lesson], heads: Sequence[Head], min_area: int, counts: Sequence[float] | None = None
) -> tuple[JoinRule | None, ScoreRule | None]:
    """Learn both rules; ``None`` for one to which the pictures give no answer, or only one.

    Parameters
    ----------
    lessons
        Pictures with known cells.
    heads
        The model's heads, in the order of the planes.
    min_area
        Smaller cells are dropped anyway, so that the score need not know them.
    counts
        How often what each picture shows counts; once where not given.

    Returns
    -------
    The smallest score that is kept is 0.
    """
    names = [head.name for head in heads]
    join_rule = score_rule = None
    each = [1.0] * len(lessons) if counts is None else list(counts)
    fitted = fit(
        np.concatenate([lesson.columns[lesson.known] for lesson in lessons]),
        np.concatenate([lesson.same[lesson.known] for lesson in lessons]),
        np.repeat(each, [np.count_nonzero(lesson.known) for lesson in lessons]),
    )
    if fitted is not None:
        constant, weights = fitted
        k = len(names)
        smaller, larger, length = weights[2 * k :]
        join_rule = JoinRule(
            constant=constant,
            contact=dict(zip(names, weights[:k], strict=True)),
            inside=dict(zip(names, weights[k : 2 * k], strict=True)),
            smaller=smaller,
            larger=larger,
            length=length,
        )
    columns, answers = [], []
    for lesson in lessons:
        labels = joined(lesson, join_rule, heads)
        cells = Pieces.of(labels, lesson.planes)
        overlap = Contingency.of(lesson.truth, labels)
        right = np.zeros(len(cells.area), bool)
        right[overlap.predicted[overlap.iou >= RIGHT]] = True
        kept = cells.area >= min_area
        columns.append(cells.of_cells()[kept])
        answers.append(right[kept])
    fitted = fit(
        np.concatenate(columns), np.concatenate(answers), np.repeat(each, [len(one) for one in answers])
    )
    if fitted is not None:
        constant, weights = fitted
        inside = dict(zip(names, weights[:-1], strict=True))
        score_rule = ScoreRule(constant=constant, inside=inside, area=weights[-1], minimum=0.0)
    return join_rule, score_rule


def joined(lesson: Lesson, rule: JoinRule | None, heads: Sequence[Head]) -> NDArray[np.int32]:
    """Return the cells of a picture, 1…n: its pieces, joined by the rule."""
    if rule is None:
        return lesson.labels
    names = [head.name for head in heads]
    weights = [table.get(name, 0.0) for table in (rule.contact, rule.inside) for name in names]
    odds = lesson.columns @ np.array([*weights, rule.smaller, rule.larger, rule.length])
    parents = np.arange(int(lesson.labels.max(initial=0)) + 1)

    def root(piece: int) -> int:
        while parents[piece] != piece:
            piece = int(parents[piece])
        return piece

    for one, other in lesson.pairs[odds + rule.constant > 0] + 1:
        low, high = sorted((root(int(one)), root(int(other))))
        parents[high] = low
    roots = np.array([root(piece) for piece in range(len(parents))])
    return np.unique(roots, return_inverse=True)[1].astype(np.int32)[lesson.labels]


def scores(cells: Pieces, rule: ScoreRule, heads: Sequence[Head]) -> Floats:
    """Return the probability that each cell is right, shape (n,)."""
    weights = np.array([*(rule.inside.get(head.name, 0.0) for head in heads), rule.area])
    chance: Floats = np.exp(-np.logaddexp(0, -(cells.of_cells() @ weights + rule.constant)))
    return chance
