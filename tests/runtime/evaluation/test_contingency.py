"""The table of shared pixels, the matching and the mistakes, against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment
from skimage.metrics import contingency_table

from cellseg.runtime.errors import DataError
from cellseg.runtime.evaluation.contingency import Contingency, Labels, Mistakes
from cellseg.runtime.evaluation.metrics import THRESHOLDS

#: Crowded little images: few numbers on few pixels give many overlaps and ties.
label_images = hnp.arrays(np.uint16, (5, 6), elements=st.sampled_from([0, 0, 1, 2, 3, 7, 900]))


def row(*numbers: int) -> Labels:
    return np.array([numbers], np.int32)


def brute_iou(truth: Labels, predicted: Labels) -> np.ndarray:
    """IoU of every true with every predicted cell, pixel sets compared one by one."""
    cells_t = [truth == number for number in np.unique(truth) if number]
    cells_p = [predicted == number for number in np.unique(predicted) if number]
    table = np.zeros((len(cells_t), len(cells_p)))
    for i, t in enumerate(cells_t):
        for j, p in enumerate(cells_p):
            table[i, j] = (t & p).sum() / (t | p).sum()
    return table


@given(label_images, label_images)
def test_matching_is_the_optimal_assignment(truth: Labels, predicted: Labels) -> None:
    table = brute_iou(truth, predicted)
    overlap = Contingency.of(truth, predicted)
    for threshold in THRESHOLDS:
        allowed = table >= threshold
        rows, columns = linear_sum_assignment(allowed, maximize=True)
        match = overlap.match(threshold)
        assert len(match) == allowed[rows, columns].sum()
        assert len(set(overlap.true[match])) == len(set(overlap.predicted[match])) == len(match)
        assert (overlap.iou[match] >= threshold).all()
    # Among the largest matchings the sum of IoU does not depend on which was taken.
    weight = np.where(table >= 0.5, table, 0)
    rows, columns = linear_sum_assignment(weight, maximize=True)
    assert overlap.iou[overlap.match(0.5)].sum() == pytest.approx(weight[rows, columns].sum())


@given(label_images, label_images)
def test_sparse_table_is_the_dense_one(truth: Labels, predicted: Labels) -> None:
    overlap = Contingency.of(truth, predicted)
    dense = contingency_table(truth, predicted, sparse_type="array").toarray()
    numbers_t, numbers_p = np.unique(truth[truth > 0]), np.unique(predicted[predicted > 0])
    expected = dense[np.ix_(numbers_t, numbers_p)]
    found = np.zeros_like(expected)
    found[overlap.true, overlap.predicted] = overlap.pixels
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(overlap.true_area, [(truth == n).sum() for n in numbers_t])
    np.testing.assert_array_equal(overlap.predicted_area, [(predicted == n).sum() for n in numbers_p])


@given(label_images, label_images)
def test_every_true_cell_has_one_fate(truth: Labels, predicted: Labels) -> None:
    overlap = Contingency.of(truth, predicted)
    found = Mistakes.of(overlap)
    fates = found.merged + found.missed + found.split + found.inexact + len(overlap.match(0.5))
    assert fates == len(overlap.true_area)
    assert 0 <= found.spurious <= len(overlap.predicted_area) - len(overlap.match(0.5))


# Fields: merged, missed, split, inexact, spurious.
@pytest.mark.parametrize(
    ("truth", "found", "expected"),
    [
        (
            (1, 1, 1, 2, 2, 2),
            (5, 5, 5, 5, 5, 5),
            Mistakes(1, 0, 0, 0, 0),
        ),
        (
            (1, 1, 2, 2, 3, 3),
            (5, 5, 5, 5, 5, 5),
            Mistakes(3, 0, 0, 0, 0),
        ),
        (
            (1, 1, 1, 1, 1, 1),
            (5, 5, 6, 6, 7, 7),
            Mistakes(0, 0, 1, 0, 0),
        ),
        (
            (1, 1, 1, 1, 0, 0),
            (5, 0, 0, 0, 0, 6),
            Mistakes(0, 1, 0, 0, 1),
        ),
        (
            (1, 1, 1, 0, 0, 0),
            (0, 5, 5, 5, 5, 0),
            Mistakes(0, 0, 0, 1, 0),
        ),
        (
            (1, 1, 0, 2, 2, 2),
            (9, 9, 0, 4, 4, 4),
            Mistakes(0, 0, 0, 0, 0),
        ),
        (
            (0, 0, 0, 0, 0, 0),
            (0, 0, 3, 0, 0, 0),
            Mistakes(0, 0, 0, 0, 1),
        ),
    ],
)
def test_fates_by_hand(truth: tuple[int, ...], found: tuple[int, ...], expected: Mistakes) -> None:
    assert Mistakes.of(Contingency.of(row(*truth), row(*found))) == expected


def test_low_thresholds_would_need_a_search() -> None:
    with pytest.raises(ValueError, match=r"at least 0\.5, found 0\.4"):
        Contingency.of(row(1), row(1)).match(0.4)


def test_empty_images() -> None:
    overlap = Contingency.of(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8))
    assert len(overlap.match(0.5)) == 0
    with pytest.raises(DataError, match="two-dimensional"):
        Contingency.of(np.zeros(4, np.uint8), np.zeros(4, np.uint8))
