"""Rules learned from pictures: the regression, what it learns, and when it is kept."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.optimize import minimize

from cellseg.runtime.instances import split_planes
from cellseg.runtime.model.spec import Head, JoinRule, SplitSettings
from cellseg.runtime.tuning.cases import Case
from cellseg.runtime.tuning.rules import RIDGE, Lesson, Pieces, fit, fit_rules, joined, scores
from cellseg.runtime.tuning.search import with_rules
from cellseg.runtime.tuning.settings import names_for, oversegment
from cellseg.runtime.tuning.trials import counts_of, goal, runner, try_settings

HEADS = (Head(name="mask"), Head(name="boundary"))
PLAIN = SplitSettings(boundary_weight=0.5, smoothing=1.0, persistence=20, min_area=10)


def picture(seed, size=160):
    """Rows of bars, the cells; the mask dips across each, and the boundary is seen between touching ones.

    By depth a dip and a boundary are alike, so that a flood cannot tell them apart. Among the bars are
    specks of stain, as large as a cell but dim.
    """
    rng = np.random.default_rng(seed)
    planes = np.zeros((2, size, size))
    truth = np.zeros((size, size), np.int32)
    for y in range(8, size - 16, 24):
        x = int(rng.integers(4, 12))
        while x < size - 50:
            width = int(rng.integers(24, 36))
            truth[y : y + 12, x : x + width] = truth.max() + 1
            planes[0, y : y + 12, x : x + width] = 240
            dip = x + width // 2 + int(rng.integers(-3, 4))
            planes[0, y : y + 12, dip - 1 : dip + 2] = 165
            x += width
            if rng.random() < 0.5:
                planes[1, y : y + 12, x - 1 : x + 2] = 150
            else:
                x += 8
        planes[0, y + 3 : y + 11, size - 12 : size - 3] = 170
    planes += rng.normal(0, 4, planes.shape) * (planes > 0)
    return np.clip(ndimage.gaussian_filter(planes, (0, 0.6, 0.6)), 0, 255).astype(np.uint8), truth


PICTURES = [picture(seed) for seed in range(6)]


def test_the_regression_is_at_the_minimum_of_its_loss():
    rng = np.random.default_rng(0)
    columns = rng.normal([3, -1, 0], [0.1, 20, 1], (400, 3))
    true = rng.random(400) < 1 / (1 + np.exp(-(columns @ [8, 0.05, -1] - 24)))
    constant, weights = fit(columns, true)
    centre, spread = columns.mean(0), columns.std(0)

    def loss(at):
        odds = at[0] + (columns - centre) / spread @ at[1:]
        return np.logaddexp(0, np.where(true, -odds, odds)).sum() + RIDGE * (at[1:] ** 2).sum() / 2

    wanted = minimize(loss, np.zeros(4), tol=1e-10).x
    np.testing.assert_allclose(weights, wanted[1:] / spread, atol=1e-3)
    assert constant == pytest.approx(wanted[0] - wanted[1:] / spread @ centre, abs=0.01)


def test_the_regression_is_finite_where_it_separates_all_and_none_where_there_is_one_answer():
    columns = np.column_stack([np.arange(20.0), np.ones(20)])
    constant, weights = fit(columns, np.arange(20) > 9)
    assert np.isfinite([constant, *weights]).all()
    assert weights[1] == 0
    assert fit(columns, np.ones(20, bool)) is fit(columns, np.zeros(20, bool)) is None
    assert fit(columns[:0], np.zeros(0, bool)) is None


def test_an_example_that_counts_twice_is_as_good_as_two():
    rng = np.random.default_rng(1)
    columns = rng.normal(0, 1, (60, 2))
    answers = rng.random(60) < 1 / (1 + np.exp(-columns[:, 0]))
    often = rng.integers(1, 4, 60)
    centred = (columns - columns.mean(0)) / columns.std(0)  # the ridge is on columns as they are standardised
    constant, weights = fit(centred, answers, often.astype(float))
    design = np.column_stack([np.ones(60), centred])

    def slope(at):
        return design.T @ (often * (1 / (1 + np.exp(-design @ at)) - answers)) + RIDGE * np.r_[0, at[1:]]

    np.testing.assert_allclose(slope(np.r_[constant, weights]), 0, atol=0.01)
    plain = fit(centred, answers)
    assert fit(centred, answers, np.ones(60)) == plain != (constant, weights)


def test_groups_count_by_the_balance_and_not_by_their_pieces():
    lessons = [Lesson.of(*one, HEADS, PLAIN) for one in PICTURES]
    groups = ["many"] * 5 + ["few"]
    pieces = np.array([lesson.labels.max() for lesson in lessons])
    for balance, ratio in ((0.0, pieces[:5].sum() / pieces[5]), (1.0, 1.0)):
        counts = counts_of(groups, lessons, balance)
        assert (counts * pieces)[:5].sum() / (counts * pieces)[5] == pytest.approx(ratio)
        assert (counts * pieces).sum() == pytest.approx(pieces.sum())


def test_pieces_are_counted_by_hand():
    labels = np.array([[1, 1, 2], [0, 1, 2], [3, 0, 2]], np.int32)
    planes = np.arange(9, dtype=np.uint8).reshape(1, 3, 3) * 10
    pieces = Pieces.of(labels, planes)
    assert pieces.area.tolist() == [3, 3, 1]
    assert (255 * pieces.inside[:, 0]).tolist() == pytest.approx([50 / 3, 50, 60])
    assert pieces.pairs.tolist() == [[0, 1]]
    assert pieces.length.tolist() == [2]
    assert 255 * pieces.contact[0, 0] == pytest.approx((10 + 20 + 40 + 50) / 4)
    assert pieces.of_pairs()[0, -3:] == pytest.approx(np.log([3, 3, 2]))


def test_what_is_learned_joins_pieces_of_a_cell_and_doubts_stains():
    lessons = [Lesson.of(*one, HEADS, PLAIN) for one in PICTURES[:4]]
    join, score = fit_rules(lessons, HEADS, PLAIN.min_area)
    assert join.contact["boundary"] < 0
    planes, truth = PICTURES[5]
    plain = split_planes(planes, HEADS, PLAIN)
    lesson = Lesson.of(planes, truth, HEADS, PLAIN)
    labels = joined(lesson, join, HEADS)
    stains = len(np.unique(labels[:, -14:])) - 1
    assert plain.max() > 1.8 * truth.max()
    assert labels.max() == truth.max() + stains
    sure = scores(Pieces.of(labels, planes), score, HEADS)
    stained = np.unique(labels[:, -14:])[1:] - 1
    assert sure[stained].max() < 0.4 < 0.8 < np.delete(sure, stained).min()


def test_no_rule_without_both_answers():
    empty = np.zeros((2, 30, 30), np.uint8), np.zeros((30, 30), np.int32)
    assert fit_rules([Lesson.of(*empty, HEADS, PLAIN)], HEADS, 1) == (None, None)
    rule = JoinRule(constant=1, contact={}, inside={}, smaller=0, larger=0, length=0)
    assert joined(Lesson.of(*empty, HEADS, PLAIN), rule, HEADS).max() == 0


def test_rules_are_kept_where_they_help_on_other_pictures():
    cases = [Case("all", *one) for one in PICTURES]
    before = try_settings(cases, HEADS, PLAIN)
    told = []
    with runner(cases, HEADS, 1) as run:
        best, after = with_rules(
            PLAIN, before, oversegment(PLAIN, names_for(HEADS)), run, lambda: told.append(0)
        )
    assert len(told) == 9
    assert goal(after) > goal(before) + 0.3
    assert best.score.minimum > 0
    assert try_settings(cases, HEADS, best)["all"]["ap50"] > 0.95
    with runner(cases, HEADS, 1) as run:
        perfect = {"all": after["all"] | {"ap50": 1.0, "ap75": 1.0, "ap90": 1.0}}
        assert with_rules(PLAIN, perfect, [PLAIN], run) == (PLAIN, perfect)


def test_finer_cuts_leave_fixed_settings_alone():
    assert len(oversegment(PLAIN, names_for(HEADS))) == 9
    assert {each.smoothing for each in oversegment(PLAIN, ["persistence", "min_area"])} == {PLAIN.smoothing}
    assert {each.persistence for each in oversegment(PLAIN, ["persistence"])} == {20, 10, 5}
    assert oversegment(PLAIN, []) == [PLAIN]
