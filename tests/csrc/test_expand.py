"""Nuclei grown into cells, against SciPy's distances, scikit-image's ``expand_labels`` and plain loops."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import expand_labels

from cellseg.runtime.intensity.stains import UNIT, Stains
from cellseg.runtime.kernels.expand import expand, measure_cells


def grown(labels, distance, cuts=1, columns=1):
    labels = np.ascontiguousarray(labels, np.int32)
    out = np.full_like(labels, -9)
    limit = int(np.floor(distance * distance))
    rows = np.linspace(0, labels.shape[0], cuts + 1).astype(int)
    across = np.linspace(0, labels.shape[1], columns + 1).astype(int)
    for y0, y1 in itertools.pairwise(rows):
        for x0, x1 in itertools.pairwise(across):
            expand(labels, y0, y1, x0, x1, limit, out)
    return out


def by_hand(labels, distance):
    """Each pixel looks at all labels."""
    ys, xs = np.nonzero(labels)
    out = np.array(labels)
    for y, x in zip(*np.nonzero(labels == 0), strict=True):
        square = (ys - y) ** 2 + (xs - x) ** 2
        if len(square) and square.min() <= distance * distance:
            out[y, x] = labels[ys, xs][square == square.min()].min()
    return out


@st.composite
def layouts(draw, largest=30):
    height, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parts = ndimage.median_filter(rng.random((height, width)), draw(st.integers(1, 5)))
    labels, _ = ndimage.label(parts > draw(st.floats(0.4, 0.99)))
    return labels.astype(np.int32)


@given(layouts(), st.floats(0.5, 12), st.integers(1, 4), st.integers(1, 3))
@settings(deadline=None, max_examples=300)
def test_equals_scikit_image_but_for_ties(labels, distance, cuts, columns):
    found = grown(labels, distance, cuts, columns)
    np.testing.assert_array_equal(found, by_hand(labels, distance))
    theirs = expand_labels(labels, distance)
    np.testing.assert_array_equal(found > 0, theirs > 0)
    for y, x in zip(*np.nonzero(found != theirs), strict=True):  # equally near, and ours is the lower number
        near = [
            ((np.argwhere(labels == label) - (y, x)) ** 2).sum(axis=1).min()
            for label in (found[y, x], theirs[y, x])
        ]
        assert near[0] == near[1]
        assert found[y, x] < theirs[y, x]


def test_far_and_empty():
    labels = np.zeros((3, 2000), np.int32)
    assert not grown(labels, 9).any()
    labels[1, 5] = 7
    assert (grown(labels, 5000) == 7).all()
    assert np.array_equal(grown(labels, 0.5), labels)


@given(layouts(), st.floats(1, 6), st.sampled_from([np.uint8, np.uint16, np.float32]))
@settings(deadline=None, max_examples=150)
def test_cells_are_measured(labels, distance, dtype):
    n = int(labels.max())
    rng = np.random.default_rng(2)
    image = (rng.random((*labels.shape, 3)) * 200).astype(dtype)
    stains = Stains.known("hdab") if dtype != np.float32 else None
    table = None if stains is None else stains.table(image.dtype)
    cells = grown(labels, distance)
    before = cells.copy()
    pad = int(distance)
    boxes = np.zeros((n, 4), np.int32)
    for i, (tall, wide) in enumerate(ndimage.find_objects(labels, n)):
        boxes[i] = [
            max(0, tall.start - pad),
            max(0, wide.start - pad),
            min(labels.shape[0], tall.stop + pad),
            min(labels.shape[1], wide.stop + pad),
        ]
    rows = np.uintp(image.ctypes.data) + np.arange(len(image), dtype=np.uintp) * np.uintp(image.strides[0])
    kind = {np.uint8: 1, np.uint16: 2, np.float32: 3}[dtype]
    numbers = np.arange(1, n + 1, dtype=np.int32)
    found, values, outline, ring_area, ring = measure_cells(
        labels, cells, 0, numbers, boxes, rows, kind, 3, table, 2 if stains else 0
    )
    amounts = None if stains is None else stains.amounts(image)
    starts = [0, *found["outline_end"].tolist()]
    for i in range(n):
        parts, _ = ndimage.label(before == i + 1)
        wanted = np.isin(parts, parts[labels == i + 1])
        np.testing.assert_array_equal(cells == i + 1, wanted)
        about = wanted & (labels != i + 1)
        assert found["area"][i] == wanted.sum()
        assert ring_area[i] == about.sum()
        np.testing.assert_allclose(values[i, :3], image[wanted].mean(axis=0), rtol=1e-5)
        corners = outline[starts[i] : starts[i + 1]]
        assert corners.min(axis=0).tolist() == [np.nonzero(wanted)[1].min(), np.nonzero(wanted)[0].min()]
        if not about.any():
            assert np.isnan(ring[i]).all()
            continue
        np.testing.assert_allclose(ring[i, :3], image[about].mean(axis=0), rtol=1e-5)
        if amounts is not None:
            for mask, row in ((wanted, values[i]), (about, ring[i])):
                np.testing.assert_allclose(row[3:5], amounts[mask].mean(axis=0), atol=2 / UNIT)
                np.testing.assert_allclose(row[5:], amounts[mask].max(axis=0), atol=2 / UNIT)
    assert ((cells == before) | (cells == 0)).all()


def test_a_pixel_between_three_goes_to_nobody():
    """The nearest is the one at the corner, and both ways to it belong to others."""
    labels = np.zeros((5, 5), np.int32)
    labels[0, 2], labels[2, 0], labels[3, 3] = 1, 2, 3
    labels[3, 3] = 3
    cells = grown(labels, 2)
    before = cells.copy()
    boxes = np.tile(np.array([[0, 0, 5, 5]], np.int32), (3, 1))
    measure_cells(labels, cells, 0, np.arange(1, 4, dtype=np.int32), boxes, None, 0, 0)
    for label in (1, 2, 3):
        assert ndimage.label(cells == label)[1] == 1
    assert ((cells == before) | (cells == 0)).all()


@pytest.mark.parametrize("part", [(0, 0, 0, 4), (2, 2, 0, 4), (0, 4, 3, 3)])
def test_an_empty_part_writes_nothing(part):
    out = np.full((4, 4), 5, np.int32)
    expand(np.ones((4, 4), np.int32), *part, 9, out)
    assert (out == 5).all()
