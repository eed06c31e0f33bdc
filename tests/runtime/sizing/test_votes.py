"""Whose size is believed: cells that are really there agree over scales, others do not."""

import numpy as np
import pytest

from cellseg.runtime.instances import Cells
from cellseg.runtime.instances.cells import column_types
from cellseg.runtime.model.spec import CellDiameter
from cellseg.runtime.sizing.votes import Evidence, Look, estimate, votes, weighted_median

KNOWN = CellDiameter(median=20, low=11, high=55)
EDGE = 400


def cells(sizes: np.ndarray, scores: np.ndarray, rng: np.random.Generator, edge: int = EDGE) -> Cells:
    """Return round cells of these diameters anywhere in a field; its edges cut some."""
    columns = {name: np.zeros(len(sizes), dtype) for name, dtype in column_types(0).items()}
    y, x = rng.uniform(0, edge, (2, len(sizes)))
    columns["area"] = np.maximum(1, np.pi / 4 * sizes**2).astype(np.int64)
    for name, centre, sign in (("y0", y, -1), ("x0", x, -1), ("y1", y, 1), ("x1", x, 1)):
        columns[name] = np.clip(centre + sign * sizes / 2, 0, edge).astype(np.int32)
    columns["score"] = scores
    return Cells(columns, np.empty((0, 2), np.int32), np.zeros(len(sizes) + 1, np.int64))


def seen(true: float, scale: float, rng: np.random.Generator, *, false: int = 0) -> Look:
    """Return what a model sees that finds cells of 8 to 70 pixels, and others of its own at any scale."""
    sizes = true * scale * rng.lognormal(0, 0.2, 30)
    sizes = sizes[(sizes > 8) & (sizes < 70)]
    invented = KNOWN.median * rng.lognormal(0, 0.3, false)
    scores = np.concatenate([np.full(len(sizes), 0.9), np.full(false, 0.35)])
    return Look(scale, EDGE, EDGE, cells(np.concatenate([sizes, invented]), scores, rng))


@pytest.mark.parametrize("true", [5, 8, 14, 20, 33, 60, 110, 180])
@pytest.mark.parametrize("false", [0, 30])
def test_the_true_size_wins(true: float, false: int) -> None:
    rng = np.random.default_rng(true)
    found = estimate([seen(true, s, rng, false=false) for s in (0.125, 0.25, 0.5, 1, 2, 4)], KNOWN)
    assert found is not None
    assert found.diameter == pytest.approx(true, rel=0.15)
    assert found.certain
    assert 8 / 1.5 < true * min(found.scales) <= true * max(found.scales) < 70 * 1.5


def test_cells_that_follow_the_scale_convince_nobody() -> None:
    """What a model makes of a texture has its own size at every scale."""
    rng = np.random.default_rng(1)
    looks = [seen(0.1, scale, rng, false=40) for scale in (0.125, 0.25, 0.5, 1, 2, 4)]
    found = estimate(looks, KNOWN)
    assert found is not None
    assert not found.certain


def test_few_cells_convince_nobody() -> None:
    rng = np.random.default_rng(2)
    looks = [Look(s, EDGE, EDGE, cells(np.full(2, 60 * s), np.full(2, 0.9), rng)) for s in (0.25, 0.5, 1)]
    found = estimate(looks, KNOWN)
    assert found is not None
    assert not found.certain


def test_nothing_seen() -> None:
    assert estimate([], KNOWN) is None
    assert estimate([Look(1.0, EDGE, EDGE, Cells.empty())], KNOWN) is None


def test_cells_that_the_edge_cuts_are_made_up_for() -> None:
    """Of as many large as small cells come as many votes, though more of the large ones are cut."""
    rng = np.random.default_rng(3)
    sizes = np.repeat([10.0, 40.0], 4000)
    edge = 100
    flat = CellDiameter(median=20, low=10, high=40)  # as far from 10 as from 40
    found = cells(sizes, np.ones(len(sizes)), rng, edge)
    diameter, weight = votes(Look(1.0, edge, edge, found), flat)
    small, large = weight[diameter < 20].sum(), weight[diameter > 20].sum()
    assert large / small == pytest.approx(1, rel=0.12)
    assert (weight > 0)[diameter > 20].sum() < 0.6 * (weight > 0)[diameter < 20].sum()


def test_weighted_median() -> None:
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 1.0])) == 2
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.array([9.0, 1.0, 1.0])) == 3


def evidence(count: float, megapixels: float) -> Evidence:
    return Evidence(1.0, 1, round(count), count, 20.0, count, megapixels)


@pytest.mark.parametrize(
    ("count", "megapixels", "more"),
    [(140, 1, True), (110, 1, False), (70, 0.5, True), (140, 2, False), (1, 0.0066, False), (0, 1, False)],
)
def test_more_cells_are_more_than_chance_and_than_the_ratio(
    count: float, megapixels: float, more: bool
) -> None:
    """Beside 100 a megapixel: one on a small part makes 152 of it, which says nothing."""
    assert evidence(count, megapixels).finds_more_than(evidence(100, 1), 1.25) is more


def test_where_nothing_was_found_a_few_are_more() -> None:
    assert evidence(6, 1).finds_more_than(evidence(0, 1), 1.25)
    assert not evidence(1, 1).finds_more_than(evidence(0, 1), 1.25)


def test_cells_to_expect_are_those_that_there_are() -> None:
    """Whatever their size and the field's, and by their scores."""
    rng = np.random.default_rng(4)
    for edge, size in ((100, 10.0), (100, 40.0), (400, 40.0)):
        found = cells(np.full(4000, size), np.full(4000, 0.5), rng, edge)
        seen_so = Evidence.of([Look(0.5, edge, edge, found)], KNOWN)
        assert seen_so.expected == pytest.approx(2000, rel=0.06)
        assert seen_so.density == pytest.approx(seen_so.expected / (edge**2 * 4e-6))
