import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg.train.data import targets

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


@given(LABELS, st.integers(1, 3))
def test_smallness_is_that_of_the_smallest_cell_near(labels: np.ndarray, reach: int) -> None:
    areas = np.array([7, 50, 100, 200, 1000])
    expected = [
        [
            max(100 / max(areas[label], 100) if label else 0 for label in near.ravel())
            for near in (neighbourhood(labels, y, x, reach) for x in range(labels.shape[1]))
        ]
        for y in range(labels.shape[0])
    ]
    np.testing.assert_allclose(targets.smallness(labels, areas, reach), expected)


@given(LABELS, st.one_of(st.none(), st.floats(0.5, 4)), st.sampled_from(["round", "ellipse"]))
def test_density_sums_to_the_number_of_cells(labels: np.ndarray, sigma: float | None, shape) -> None:
    density = targets.density_map(labels, sigma=sigma, shape=shape)
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


def bar(angle: float, half_length: float, half_width: float) -> np.ndarray:
    """Return a filled ellipse in the middle of (101, 101), its long axis `angle` from the rows' direction."""
    y, x = np.mgrid[-50:51, -50:51]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return ((u / half_length) ** 2 + (v / half_width) ** 2 <= 1).astype(np.int32)


@pytest.mark.parametrize("angle", [0.0, 0.6, np.pi / 2, 2.5])
def test_an_ellipse_has_the_cells_axes(angle: float) -> None:
    density = targets.density_map(bar(angle, 24, 8), spread=0.5, shape="ellipse")
    y, x = np.mgrid[-50:51, -50:51]
    for way, half in ((angle, 24), (angle + np.pi / 2, 8)):
        along = x * np.cos(way) + y * np.sin(way)
        assert np.sqrt((density * along**2).sum()) == pytest.approx(0.5 * half, rel=0.03)


def test_round_and_ellipse_agree_on_a_disc() -> None:
    disc = bar(0.0, 20, 20)
    np.testing.assert_allclose(
        targets.density_map(disc, shape="ellipse"), targets.density_map(disc), rtol=0.02, atol=1e-6
    )


def test_long_cells_side_by_side_are_two_ridges() -> None:
    labels = bar(0.0, 40, 5)
    labels = labels + 2 * np.roll(labels, 10, 0) * (np.roll(labels, 10, 0) > labels)
    between, centre = (55, 50), (50, 50)
    dips = {
        shape: density[between] / density[centre]
        for shape in ("round", "ellipse")
        for density in [targets.density_map(labels, shape=shape)]
    }
    assert dips["round"] > 1
    assert dips["ellipse"] < 0.4


def test_labels_far_apart_stay_apart() -> None:
    labels = np.array([[2**24 - 3, 2**24 - 2]], np.int32)
    assert targets.boundary_band(labels).all()
    assert targets.touching(labels).all()
