import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from shapely import MultiPoint, Polygon
from skimage.measure import regionprops_table

from cellseg.runtime.intensity.stains import UNIT, Stains
from cellseg.runtime.kernels.measure import measure_labels

KINDS = {np.dtype(np.uint8): 1, np.dtype(np.uint16): 2, np.dtype(np.float32): 3}


def measure(labels, image=None):
    labels = np.ascontiguousarray(labels, np.int32)
    count = int(labels.max())
    if image is None:
        return measure_labels(labels, count, None, 0, 0)
    rows = np.uintp(image.ctypes.data) + np.arange(len(image), dtype=np.uintp) * np.uintp(image.strides[0])
    return measure_labels(labels, count, rows, KINDS[image.dtype], image.shape[2])


def rings(cells, outline):
    return np.split(outline, cells["outline_end"][:-1])


def hull_area(mask):
    ys, xs = np.nonzero(mask)
    return MultiPoint(
        np.concatenate([np.stack([xs + dx, ys + dy], 1) for dy in (0, 1) for dx in (0, 1)])
    ).convex_hull.area


@st.composite
def label_images(draw):
    """4-connected regions of several thresholded patterns, in raster order, some of them touching."""
    shape = draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    values = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 2), fill=st.integers(0, 2)))
    if draw(st.booleans()):
        values = ndimage.median_filter(values, 3)
    labels = np.zeros(shape, np.int32)
    for value in (1, 2):
        part, _ = ndimage.label(values == value)
        labels[part > 0] = part[part > 0] + labels.max()
    flat = labels.ravel()
    _, first = np.unique(flat[flat > 0], return_index=True)
    order = np.argsort(np.argsort(first)) + 1
    labels[labels > 0] = order[labels[labels > 0] - 1]
    return labels


@given(label_images())
@settings(deadline=None, max_examples=300)
def test_equals_regionprops(labels):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 60000, (*labels.shape, 2)).astype(np.uint16)
    cells, intensity, outline = measure(labels, image)
    assert len(cells) == labels.max()
    if not len(cells):
        assert len(outline) == 0
        return
    names = ("area", "centroid", "bbox", "perimeter", "eccentricity", "intensity_mean")
    wanted = regionprops_table(labels, image, properties=names)
    pairs = {
        "area": "area", "centroid_y": "centroid-0", "centroid_x": "centroid-1", "y0": "bbox-0",
        "x0": "bbox-1", "y1": "bbox-2", "x1": "bbox-3", "perimeter": "perimeter",
        "eccentricity": "eccentricity",
    }  # fmt: skip
    for ours, theirs in pairs.items():
        np.testing.assert_allclose(cells[ours], wanted[theirs], rtol=1e-6, atol=1e-6, err_msg=ours)
    for channel in range(2):
        np.testing.assert_allclose(intensity[:, channel], wanted[f"intensity_mean-{channel}"])
    for index, cell in enumerate(cells):
        assert cell["solidity"] == pytest.approx(cell["area"] / hull_area(labels == index + 1))


@given(label_images())
@settings(deadline=None, max_examples=300)
def test_outlines_are_simple_rings_around_cell_and_holes(labels):
    cells, _, outline = measure(labels)
    if not len(cells):
        return
    for index, ring in enumerate(rings(cells, outline)):
        polygon = Polygon(ring)
        assert polygon.is_valid
        assert polygon.exterior.is_simple
        filled = ndimage.binary_fill_holes(labels == index + 1)
        assert polygon.area == filled.sum()
        # exact, not only in area: each pixel's centre is inside or outside
        x, y = ring.T
        assert (x.min(), y.min(), x.max(), y.max()) == tuple(cells[index][["x0", "y0", "x1", "y1"]])
        # corners only, clockwise on the screen, starting at the first pixel's upper left
        step = np.diff(np.vstack([ring, ring[:1]]), axis=0)
        assert ((step == 0).sum(axis=1) == 1).all()
        assert ((step[:, 0] == 0) != (np.roll(step, 1, axis=0)[:, 0] == 0)).all()
        assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2 == filled.sum()
        assert ring[0].tolist() == [cells[index]["first_x"], cells[index]["y0"]]


def test_one_pixel():
    cells, _, outline = measure([[1]])
    assert outline.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]
    assert cells[0]["solidity"] == 1
    assert cells[0]["eccentricity"] == 0


def test_a_diagonal_pinch_of_a_ring_stays_simple():
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]])
    cells, _, outline = measure(labels)
    polygon = Polygon(outline)
    assert polygon.is_valid
    assert polygon.area == 8  # 7 pixels and the hole, which the pinch closes
    assert cells["area"][0] == 7


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_intensity_of_every_type(dtype, channels):
    rng = np.random.default_rng(0)
    image = (rng.random((20, 30, channels)) * 255).astype(dtype)
    labels = np.zeros((20, 30), np.int32)
    labels[3:9, 4:25] = 1
    labels[12:20, 0:3] = 2
    _, intensity, _ = measure(labels, image)
    for label in (1, 2):
        np.testing.assert_allclose(intensity[label - 1], image[labels == label].mean(axis=0), rtol=1e-5)


def test_large_cell_far_from_the_origin():
    labels = np.zeros((700, 900), np.int32)
    yy, xx = np.ogrid[:700, :900]
    labels[((yy - 350) / 300) ** 2 + ((xx - 500) / 380) ** 2 < 1] = 1
    cells, _, outline = measure(labels)
    wanted = regionprops_table(labels, properties=("eccentricity", "centroid", "perimeter", "solidity"))
    np.testing.assert_allclose(cells["eccentricity"], wanted["eccentricity"], rtol=1e-9)
    np.testing.assert_allclose(cells["perimeter"], wanted["perimeter"])
    np.testing.assert_allclose(cells["solidity"], wanted["solidity"], atol=5e-3)
    assert Polygon(outline).area == cells["area"][0]


@given(label_images(), st.sampled_from([np.uint8, np.uint16]), st.sampled_from(["he", "hdab", "hed"]))
@settings(deadline=None, max_examples=100)
def test_optical_densities(labels, dtype, kind):
    """Mean and largest amount of each stain, behind the means of the channels."""
    vectors = ((0.65, 0.7, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
    stains = Stains("hed", ("H", "E", "D"), vectors) if kind == "hed" else Stains.known(kind)
    top = np.iinfo(dtype).max
    image = np.random.default_rng(3).integers(0, top, (*labels.shape, 3), dtype=dtype, endpoint=True)
    rows = np.uintp(image.ctypes.data) + np.arange(len(image), dtype=np.uintp) * np.uintp(image.strides[0])
    count, n = int(labels.max()), len(stains)
    given = np.ascontiguousarray(labels, np.int32), count, rows, KINDS[image.dtype], 3
    _, values, _ = measure_labels(*given, stains.table(image.dtype), n)
    assert values.shape == (count, 3 + 2 * n)
    np.testing.assert_array_equal(values[:, :3], measure_labels(*given)[1])
    amounts = stains.amounts(image)
    for cell in range(count):
        inside = amounts[labels == cell + 1]
        np.testing.assert_allclose(values[cell, 3 : 3 + n], inside.mean(axis=0), atol=2 / UNIT)
        np.testing.assert_allclose(values[cell, 3 + n :], inside.max(axis=0), atol=2 / UNIT)
