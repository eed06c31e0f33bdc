import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg.train import targets

LABELS = hnp.arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 4))


def neighbourhood(labels: np.ndarray, y: int, x: int, reach: int) -> np.ndarray:
    return labels[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]


@given(LABELS, st.integers(1, 3))
def test_boundary_is_where_another_label_is_near(labels: np.ndarray, width: int) -> None:
    expected = [
        [np.unique(neighbourhood(labels, y, x, width)).size > 1 for x in range(labels.shape[1])]
        for y in range(labels.shape[0])
    ]
    np.testing.assert_array_equal(targets.boundary_band(labels, width), np.array(expected, np.uint8))


@given(LABELS, st.integers(1, 3))
def test_touching_is_where_two_cells_are_near(labels: np.ndarray, reach: int) -> None:
    expected = [
        [
            np.unique(near[near > 0]).size > 1
            for near in (neighbourhood(labels, y, x, reach) for x in range(labels.shape[1]))
        ]
        for y in range(labels.shape[0])
    ]
    np.testing.assert_array_equal(targets.touching(labels, reach), np.array(expected, np.uint8))


@given(LABELS, st.one_of(st.none(), st.floats(0.5, 4)))
def test_density_sums_to_the_number_of_cells(labels: np.ndarray, sigma: float | None) -> None:
    density = targets.density_map(labels, sigma=sigma)
    assert density.dtype == np.float32
    assert density.min() >= 0
    assert density.sum() == pytest.approx(np.unique(labels[labels > 0]).size, abs=1e-3)


def test_density_peaks_at_the_centre_and_follows_the_size() -> None:
    labels = np.zeros((64, 96), np.int32)
    labels[10:15, 10:15], labels[30:51, 60:81] = 1, 2
    density = targets.density_map(labels)
    assert np.unravel_index(density[:, :40].argmax(), (64, 40)) == (12, 12)
    assert np.unravel_index(density[:, 40:].argmax(), (64, 56)) == (40, 30)
    assert density[12, 12] > 4 * density[40, 70]


def test_labels_far_apart_stay_apart() -> None:
    labels = np.array([[2**24 - 3, 2**24 - 2]], np.int32)
    assert targets.boundary_band(labels).all()
    assert targets.touching(labels).all()
