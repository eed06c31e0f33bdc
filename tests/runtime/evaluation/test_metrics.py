"""Figures of agreement against cases counted by hand and against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg.runtime.errors import DataError
from cellseg.runtime.evaluation.contingency import Labels
from cellseg.runtime.evaluation.metrics import evaluate, score, summarise

#: Crowded little images: few numbers on few pixels give many overlaps and ties.
label_images = hnp.arrays(np.uint16, (5, 6), elements=st.sampled_from([0, 0, 1, 2, 3, 7, 900]))


def row(*numbers: int) -> Labels:
    return np.array([numbers], np.int32)


def brute_aji(truth: Labels, predicted: Labels) -> tuple[int, int]:
    """Algorithm 1 of Kumar et al., line by line."""
    cells_t = [truth == number for number in np.unique(truth) if number]
    cells_p = [predicted == number for number in np.unique(predicted) if number]
    used, above, below = set(), 0, 0
    for t in cells_t:
        iou = [(t & p).sum() / (t | p).sum() for p in cells_p]
        if not iou or max(iou) == 0:
            below += t.sum()
            continue
        j = int(np.argmax(iou))
        above += (t & cells_p[j]).sum()
        below += (t | cells_p[j]).sum()
        used.add(j)
    below += sum(p.sum() for j, p in enumerate(cells_p) if j not in used)
    return int(above), int(below)


@given(label_images, label_images)
def test_pixel_figures_and_aji_are_brute_force(truth: Labels, predicted: Labels) -> None:
    found = score(truth, predicted)
    t, p = truth > 0, predicted > 0
    assert (found.pixels_true, found.pixels_pred, found.pixels_both) == (t.sum(), p.sum(), (t & p).sum())
    assert (found.aji_intersection, found.aji_union) == brute_aji(truth, predicted)


@given(label_images, label_images)
def test_numbers_are_only_names(truth: Labels, predicted: Labels) -> None:
    """Huge, wide and permuted numbers give the same counts (a tie in AJI apart, which numbers settle)."""
    renamed = truth.astype(np.uint64) * 10**12
    assert score(renamed, predicted) == score(truth, predicted)


@given(label_images)
def test_perfect_is_one(truth: Labels) -> None:
    figures = evaluate([(truth, truth)])
    zero = {"count_mae", "merged", "missed", "split", "inexact", "spurious"}
    rates = set(figures) - {"images", "cells_true", "cells_pred"} - zero
    assert {figures[name] for name in rates} == {1.0}
    assert {figures[name] for name in zero} == {0}


def test_counted_by_hand() -> None:
    truth = row(1, 1, 1, 1, 0, 2, 2, 2, 2, 0, 3, 3)
    found = row(5, 5, 5, 0, 0, 6, 6, 8, 8, 8, 0, 0)
    # 1–5: 3/4; 2–6: 2/4; 2–8: 2/5; 3 is missed, 8 is spurious.
    figures = evaluate([(truth, found)])
    assert figures["ap50"] == pytest.approx(2 / (2 + 1 + 1))
    assert figures["ap55"] == figures["ap75"] == pytest.approx(1 / (1 + 2 + 2))
    assert figures["ap80"] == figures["ap95"] == 0
    assert figures["ap_mean_50_90"] == pytest.approx((1 / 2 + 5 / 5) / 9)
    assert figures["precision_object"] == figures["sensitivity_object"] == pytest.approx(2 / 3)
    assert figures["pq"] == pytest.approx((3 / 4 + 1 / 2) / 3)
    # Best for 2 is 6 (1/2 against 2/5): (3 + 2) / (4 + 4 + |3| + |8|).
    assert figures["aji"] == pytest.approx(5 / (4 + 4 + 2 + 3))
    assert figures["dice"] == pytest.approx(2 * 7 / (10 + 8))
    assert figures["iou"] == pytest.approx(7 / 11)
    assert figures["precision"] == pytest.approx(7 / 8)
    assert figures["sensitivity"] == pytest.approx(7 / 10)
    assert (figures["count_mae"], figures["images"]) == (0, 1)
    assert (figures["cells_true"], figures["cells_pred"]) == (3, 3)
    assert (figures["missed"], figures["merged"], figures["spurious"]) == (1, 0, 0)


@pytest.mark.parametrize(("truth", "found"), [((1, 1, 1, 1), (1, 1, 2, 2)), ((1, 1, 2, 2), (1, 1, 1, 1))])
def test_two_halves_match_once(truth: tuple[int, ...], found: tuple[int, ...]) -> None:
    figures = evaluate([(row(*truth), row(*found))])
    assert figures["ap50"] == pytest.approx(1 / 2)
    assert figures["pq"] == pytest.approx(0.5 / 1.5)


def test_decimal_thresholds_are_reached_exactly() -> None:
    truth, found = row(*[1] * 10), row(*[1] * 7, 0, 0, 0)
    assert evaluate([(truth, found)])["ap70"] == 1


def test_pooled_and_per_image() -> None:
    empty = row(0, 0, 0, 0)
    one, three = row(1, 0, 0, 0), row(1, 0, 2, 3)
    figures = evaluate([(one, one), (three, one), (empty, empty), (one, empty)])
    assert figures["ap50"] == pytest.approx(2 / 5)
    assert figures["ap50_per_image"] == pytest.approx((1 + 1 / 3 + 1 + 0) / 4)
    assert figures["dice"] == pytest.approx(2 * 2 / (5 + 2))
    assert figures["dice_per_image"] == pytest.approx((1 + 2 / 4 + 1 + 0) / 4)
    assert figures["precision_per_image"] == pytest.approx((1 + 1 + 1 + 0) / 4)
    assert figures["count_mae"] == pytest.approx((0 + 2 + 0 + 1) / 4)
    assert (figures["images"], figures["cells_true"], figures["cells_pred"]) == (4, 5, 2)


def test_merging_into_one_image_is_pooling() -> None:
    """Two images laid side by side, apart, score as the two pooled."""
    generator = np.random.default_rng(3)
    a, b, c, d = generator.integers(0, 4, (4, 6, 6))
    gap = np.zeros((6, 1), int)

    def join(left: Labels, right: Labels) -> Labels:
        return np.hstack([left, gap, np.where(right > 0, right + 10, 0)])

    joined = score(join(a, b), join(c, d)).figures()
    assert joined == pytest.approx((score(a, c) + score(b, d)).figures())


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        (np.zeros((2, 2), np.float32), np.zeros((2, 2), int), "found float32"),
        (np.zeros((2, 2), int), np.zeros((2, 2, 3), np.uint8), r"found uint8 of shape \(2, 2, 3\)"),
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"found \(2, 3\) and \(3, 2\)"),
        (np.full((2, 2), -4), np.zeros((2, 2), int), "found -4"),
    ],
)
def test_refuses(truth: Labels, found: Labels, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(truth, found)


def test_refuses_nothing() -> None:
    with pytest.raises(DataError, match="no image"):
        summarise([])
