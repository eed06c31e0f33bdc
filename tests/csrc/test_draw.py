"""Rings drawn into small pictures: how much they cover, where, and in which colour."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellseg.runtime.kernels.draw import draw_rings, lay_over


def drawn(
    points: list[list[tuple[float, float]]], shape: tuple[int, int], colours: list[int], width: float = 1.0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    covered, colour = np.zeros(shape, np.uint8), np.full(shape, 99, np.uint8)
    start = np.cumsum([0, *map(len, points)])
    joined = np.array([p for ring in points for p in ring], np.float32).reshape(-1, 2)
    draw_rings(joined, start.astype(np.int64), np.array(colours, np.uint8), width, covered, colour)
    return covered, colour


def test_a_square_covers_as_much_as_it_is_long() -> None:
    covered, colour = drawn([[(5, 4), (15, 4), (15, 12), (5, 12)]], (20, 25), [3])
    assert abs(covered.sum() / 255 - 36) < 1
    assert (covered[4, 7:14] == 255).all()
    assert (covered[7:10, 5] == 255).all()
    assert covered[7:10, 7:14].max() == 0
    assert (colour[covered > 0] == 3).all()


def test_between_pixels_it_is_shared() -> None:
    covered, _ = drawn([[(2, 3.25), (17, 3.25), (17, 9.25), (2, 9.25)]], (14, 20), [0])
    assert abs(int(covered[3, 10]) - 191) <= 2
    assert abs(int(covered[4, 10]) - 64) <= 2


@settings(deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.floats(-30, 60), st.floats(-30, 60)), min_size=1, max_size=6), max_size=3),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_any_ring_in_any_picture(rings: list[list[tuple[float, float]]], height: int, width: int) -> None:
    """What lies outside is left out, and changes nothing inside."""
    colours = list(range(len(rings)))
    covered, colour = drawn(rings, (height, width), colours)
    moved = [[(x + 40, y + 40) for x, y in ring] for ring in rings]
    larger, tints = drawn(moved, (150, 150), colours)
    inside = np.s_[40 : 40 + height, 40 : 40 + width]
    assert np.abs(larger[inside].astype(int) - covered).max() <= 8  # moving rounds the points
    assert ((colour == 99) <= (covered == 0)).all()
    assert ((tints[inside] == 99) <= (larger[inside] == 0)).all()


def test_a_small_cell_does_not_vanish() -> None:
    covered, _ = drawn([[(4.1, 4.2), (4.3, 4.2), (4.3, 4.4), (4.1, 4.4)]], (9, 9), [0])
    assert abs(covered.sum() / 255 - 0.8) < 0.05


@pytest.mark.parametrize("dtype", ["int32", "float32", "float64"])
def test_points_of_any_type_are_scaled(dtype: str) -> None:
    points = np.array([(4, 6), (40, 6), (40, 30), (4, 30)], dtype)
    start, tint = np.array([0, 4]), np.array([1], np.uint8)
    found, wanted = (np.zeros((2, 20, 20), np.uint8) for _ in range(2))
    draw_rings(points, start, tint, 1.0, found[0], found[1], 0.4, 0.3, -0.5)
    placed = (points.astype(np.float64) * (0.4, 0.3) - 0.5).astype(np.float32)
    draw_rings(placed, start, tint, 1.0, wanted[0], wanted[1])
    assert found[0].any()
    assert np.array_equal(found, wanted)


def test_drawings_are_laid_over_a_picture() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (9, 13, 3)).astype(np.uint8)
    covered, colour = (
        rng.integers(0, 256, (9, 13)).astype(np.uint8),
        rng.integers(0, 4, (9, 13)).astype(np.uint8),
    )
    covered[:3], covered[3] = 0, 255
    palette = rng.integers(0, 256, (4, 3)).astype(np.uint8)
    part = covered[:, :, None] / 255
    wanted = np.rint(picture * (1 - part) + palette[colour] * part)
    lay_over(picture, covered, colour, palette)
    assert np.array_equal(picture, wanted)
