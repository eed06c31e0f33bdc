import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import ArrayReader
from cellseg.runtime.sizing.fields import choose_centres, fields, lay_out

sizes = st.integers(1, 64)


@given(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=30))
def test_fields_lie_side_by_side(rectangles: list[tuple[int, int]]) -> None:
    places = lay_out(rectangles, 64)
    taken = np.zeros((1 + max(place.sheet for place in places), 64, 64), int)
    for (height, width), place in zip(rectangles, places, strict=True):
        part = place.of(taken[place.sheet], (height, width))
        assert part.shape == (height, width)
        part += 1
    assert taken.max() == 1
    assert taken.any(axis=(1, 2)).all(), "a sheet is empty"


@given(
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(1, 500),
    st.integers(1, 500),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4),
)
def test_fields_lie_inside(
    y: int, x: int, height: int, width: int, centres: list[tuple[float, float]]
) -> None:
    area = Region(y, x, height, width)
    found = fields(area, 40, 120, [(y + a * height, x + b * width) for a, b in centres])
    assert 1 <= len(found) <= len(centres)
    for field in found:
        assert area.y <= field.y < field.y1 <= area.y1
        assert area.x <= field.x < field.x1 <= area.x1
        assert max(field.height, field.width) <= 120
    assert sum(field.area for field in found) <= len(centres) * 40 * 40


def test_a_small_picture_is_one_field() -> None:
    assert fields(Region(5, 0, 60, 70), 40, 120, [(0.1, 0.1)] * 3) == [Region(5, 0, 60, 70)]


def test_places_with_something_to_show_are_chosen_far_apart() -> None:
    image = np.full((2000, 3000), 240, np.uint8)
    rng = np.random.default_rng(0)
    for y, x in ((100, 100), (1400, 2300)):
        image[y : y + 500, x : x + 500] = rng.integers(0, 255, (500, 500))
    reader = ArrayReader(image)
    chosen = choose_centres(reader, lambda pixels: pixels, 2, Region(0, 0, 2000, 3000))
    places = sorted((y * 2000, x * 3000) for y, x in chosen)
    assert all(100 - 64 < y < 664 and 100 - 64 < x < 664 for y, x in places[:1])
    assert all(1336 < y < 1964 and 2236 < x < 2864 for y, x in places[1:])
    assert chosen == choose_centres(reader, lambda pixels: pixels, 2, Region(0, 0, 2000, 3000))
    inside = choose_centres(reader, lambda pixels: pixels, 3, Region(0, 0, 700, 700))
    assert all(y * 2000 < 700 and x * 3000 < 700 for y, x in inside)
    assert len(inside) == 3
