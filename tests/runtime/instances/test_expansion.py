"""Cells about nuclei, strip by strip: as of the whole image, however it is cut."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellseg.runtime.instances import Cells, InstanceStream, Strip
from cellseg.runtime.instances.cells import column_types
from cellseg.runtime.instances.expansion import Expansion
from cellseg.runtime.intensity.stains import Stains
from cellseg.runtime.model.spec import Head, SplitSettings

HEADS = (Head(name="mask"),)
RULES = SplitSettings(min_area=1, min_seed_area=1, max_hole_area=0, smoothing=0)


def make_nuclei(height, width, seed, share):
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random((height, width)), 1.5)
    mask = (noise > np.quantile(noise, 1 - share)) * np.uint8(255)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return mask[None], image


def cuts_of(height, rng, many):
    inner = rng.integers(1, height, many) if height > 1 and many else []
    return [0, *sorted({int(cut) for cut in inner}), height]


def strips_of(planes, image, cuts, stains=None):
    """Strips of nuclei as the stream makes them, and the image rows of each push."""
    height, width = planes.shape[1:]
    with InstanceStream(height, width, HEADS, RULES, image_channels=3, stains=stains) as stream:
        for begin, end in itertools.pairwise(cuts):
            yield begin, image[begin:end], stream.push(planes[:, begin:end], image[begin:end])


def expanded(planes, image, distance, cuts, workers=1, stains=None):
    height, width = planes.shape[1:]
    done, most = [], 0
    with Expansion(height, width, distance, image_channels=3, stains=stains, workers=workers) as expansion:
        for begin, rows, strips in strips_of(planes, image, cuts, stains):
            rows = rows.copy()
            expansion.see(begin, rows)
            rows[...] = 99  # buffers are used again
            for strip in strips:
                done += expansion.push(strip)
                most = max(most, len(expansion._nuclei))
    assert [strip.y for strip in done] == np.cumsum([0, *(len(s.labels) for s in done[:-1])]).tolist()
    whole = np.concatenate([strip.whole for strip in done])
    labels = np.concatenate([strip.labels for strip in done])
    return labels, whole, Cells.concatenate([strip.cells for strip in done]), most


def reference(labels, distance):
    """All of it at once: distances by SciPy, ties to the lower number, strays taken away."""
    out = labels.copy()
    ys, xs = np.nonzero(labels)
    for y, x in np.argwhere((labels == 0) & (ndimage.distance_transform_edt(labels == 0) <= distance)):
        square = (ys - y) ** 2 + (xs - x) ** 2
        out[y, x] = labels[ys, xs][square == square.min()].min()
    for label in range(1, labels.max() + 1):
        parts, _ = ndimage.label(out == label)
        out[(out == label) & ~np.isin(parts, parts[labels == label])] = 0
    return out


@given(
    st.integers(1, 60),
    st.integers(1, 50),
    st.integers(0, 2**32 - 1),
    st.floats(0.03, 0.4),
    st.floats(1, 9),
    st.integers(0, 12),
    st.integers(1, 3),
)
@settings(deadline=None, max_examples=60)
def test_nothing_depends_on_cuts_or_workers(height, width, seed, share, distance, many, workers):
    planes, image = make_nuclei(height, width, seed, share)
    cuts = cuts_of(height, np.random.default_rng(seed), many)
    stains = Stains.known("hdab")
    labels, whole, cells, _ = expanded(planes, image, distance, cuts, workers, stains)
    if not labels.any():
        assert not whole.any()
        return
    np.testing.assert_array_equal(whole, reference(labels, distance))
    again = expanded(planes, image, distance, [0, height], 1, stains)
    np.testing.assert_array_equal(whole, again[1])
    assert set(cells.columns) == set(column_types(3, 2, expanded=True))
    for name, values in cells.columns.items():
        np.testing.assert_array_equal(values, again[2].columns[name], name)
        assert values.dtype == column_types(3, 2, expanded=True)[name]
    np.testing.assert_array_equal(cells.whole.points, again[2].whole.points)
    amounts = stains.amounts(image)
    for at, label in enumerate(cells.columns["label"]):
        inside, ring = whole == label, (whole == label) & (labels != label)
        assert cells.columns["cell_area"][at] == inside.sum()
        assert cells.columns["ring_area"][at] == ring.sum() == inside.sum() - cells.columns["area"][at]
        for name, mask in (("cell", inside), ("ring", ring)):
            wanted = [*image[mask].mean(axis=0), *amounts[mask].mean(axis=0)] if mask.any() else [np.nan] * 5
            found = [cells.columns[f"{name}_mean_{what}"][at] for what in
                     ("intensity_0", "intensity_1", "intensity_2", "od_0", "od_1")]  # fmt: skip
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=3e-6)
        xs, ys = cells.whole[at].T
        area = abs(np.dot(xs, np.roll(ys, -1)) - np.dot(ys, np.roll(xs, -1))) / 2
        assert area == ndimage.binary_fill_holes(inside).sum()


def test_few_rows_are_held():
    """However tall the image, not more than the tallest nucleus, the distance and what came last."""
    planes, image = make_nuclei(3000, 40, 3, 0.1)
    _, whole, cells, most = expanded(planes, image, 5, list(range(0, 3001, 50)))
    tall = int((cells.columns["y1"] - cells.columns["y0"]).max())
    assert most <= 50 + 2 * tall + 6 * 5 + 50
    assert whole.any()


def test_a_distance_must_be_a_distance():
    with pytest.raises(ValueError, match="a distance of 0 pixels"):
        Expansion(5, 5, 0)


def test_without_an_image():
    labels = np.zeros((9, 9), np.int32)
    labels[4, 4] = 1
    cells = Cells.empty()
    columns = {name: np.zeros(1, dtype) for name, dtype in column_types(0).items()}
    columns |= {name: np.array([value], np.int32) for name, value in
                {"label": 1, "y0": 4, "x0": 4, "y1": 5, "x1": 5}.items()}  # fmt: skip
    cells = Cells(columns, np.array([[4, 4], [5, 4], [5, 5], [4, 5]], np.int32), np.array([0, 4]))
    with Expansion(9, 9, 2) as expansion:
        (strip,) = expansion.push(Strip(0, labels, cells))
    assert strip.whole.sum() == 13
    assert strip.cells.columns["ring_area"].tolist() == [12]
