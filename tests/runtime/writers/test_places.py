"""Where a look is worth it."""

import numpy as np
import pytest

from cellseg.runtime.instances import Cells
from cellseg.runtime.writers.places import KINDS, Places


def cells(y, x, score):
    given = Cells.empty()
    columns = given.columns | {"centroid_y": np.asarray(y), "centroid_x": np.asarray(x), "score": score}
    return Cells(columns, given.outline, np.zeros(len(y) + 1, np.int64))


@pytest.fixture
def crowd():
    """Return 5,000 cells of a slide: many at one place, unsure at another, none in a corner."""
    rng = np.random.default_rng(3)
    y, x = rng.uniform(0, 4000, 4000), rng.uniform(0, 6000, 4000)
    there = ~((y < 1000) & (x < 1000))
    y = np.concatenate([y[there], rng.uniform(3000, 3200, 500)])
    x = np.concatenate([x[there], rng.uniform(5000, 5200, 500)])
    score = rng.uniform(0.8, 0.9, len(y))
    score[(abs(y - 2000) < 150) & (abs(x - 2000) < 150)] = 0.3
    order = np.argsort(y, kind="stable")
    return y[order], x[order], score[order]


def test_places_are_what_they_are_called_and_do_not_overlap(crowd):
    places = Places(4000, 6000)
    places.add(cells(*crowd))
    chosen = places.chosen(20.0)
    assert [place.kind for place in chosen] == [*KINDS, *KINDS]
    covered = np.zeros((4000, 6000), np.uint8)
    for at in (place.region for place in chosen):
        covered[at.y : at.y1, at.x : at.x1] += 1
    assert covered.max() == 1
    y, x, score = crowd
    for place in chosen:
        at = place.region
        inside = (y >= at.y) & (y < at.y1) & (x >= at.x) & (x < at.x1)
        assert place.cells == np.count_nonzero(inside) > 0
        assert place.score == pytest.approx(score[inside].mean(), abs=1e-4)
        assert (at.height, at.width) == (256, 256)
    typical, crowded, unsure = chosen[:3]
    assert crowded.cells > 200
    assert abs(crowded.region.y - 3000) < 256
    assert unsure.score < 0.5
    assert abs(unsure.region.x - 1900) < 256
    assert 5 < typical.cells < 40
    assert typical.score == pytest.approx(0.85, abs=0.02)


def test_places_depend_on_the_cells_alone(crowd):
    whole, parts = Places(4000, 6000), Places(4000, 6000)
    whole.add(cells(*crowd))
    for part in np.array_split(np.arange(len(crowd[0])), 37):
        parts.add(cells(*(values[part] for values in crowd)))
    parts.add(cells([], [], np.empty(0)))
    assert parts.chosen(14.0) == whole.chosen(14.0)


@pytest.mark.parametrize(("height", "width"), [(30, 3000), (3000, 30), (64, 64), (1, 1)])
def test_places_lie_inside_of_thin_and_small_images(height, width):
    places = Places(height, width)
    spread = np.linspace(0, 1, 50)
    places.add(cells(spread * (height - 1), spread * (width - 1), np.full(50, np.nan)))
    chosen = places.chosen(500.0)
    assert chosen
    for place in chosen:
        assert place.region.y1 <= height
        assert place.region.x1 <= width
        assert place.region.area > 0


def test_nothing_is_chosen_where_nothing_is():
    assert Places(4000, 4000).chosen(float("nan")) == []


def test_the_grid_does_not_grow_with_the_image():
    places = Places(1_000_000, 500_000)
    assert places._cells.size <= 1024 * 1024
    places.add(cells([999_999.0], [499_999.0], np.array([0.5])))
    assert places.chosen(10.0)[0].cells == 1
