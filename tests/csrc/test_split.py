"""The split kernel against a plain reference: scipy and loops, one component of a whole image at a time."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import watershed

from cellseg.runtime.instances import InstanceStream, split_planes
from cellseg.runtime.instances.rules import SplitRules, gaussian_weights, head_values
from cellseg.runtime.kernels.label import RunLabeler
from cellseg.runtime.model.spec import Head, JoinRule, ScoreRule, SplitSettings
from cellseg.runtime.tuning.rules import Lesson, Pieces, joined, scores

MASK, BOUNDARY = Head(name="mask"), Head(name="boundary")
DENSITY = Head(name="density", full_scale=0.05, power=2.0)
SQUARE = np.ones((3, 3), int)


def addresses(rows):
    return np.uintp(rows.ctypes.data) + np.arange(len(rows), dtype=np.uintp) * np.uintp(rows.strides[0])


def smoothed(values, sigma):
    """Zero outside; 8 + 8 fractional bits, rounded once."""
    weights = gaussian_weights(sigma).astype(np.int64)
    kernel = np.concatenate([weights[:0:-1], weights])
    values = values.astype(np.int64)
    for axis in (1, 0):
        values = ndimage.correlate1d(values, kernel, axis=axis, mode="constant")
    return (values + 32768) >> 16


def landscape(component, mask, boundary, density, rules):
    distance = ndimage.distance_transform_edt(np.pad(component, 1))[1:-1, 1:-1]
    dense = density is not None and rules.density_weight > 0
    steepness = rules.distance_weight if dense or boundary is not None else 4
    values = np.minimum(np.rint(steepness * distance), 255)
    if boundary is not None:
        weight = np.rint(255 - rules.boundary_weight * boundary.astype(float))
        mask = np.floor(mask * weight / 255 + 0.5)
    if dense:
        share = np.minimum(density / 0.1, 1) ** 0.25
        mask = np.floor(mask * np.rint(255 * (1 - rules.density_weight * (1 - share))) / 255 + 0.5)
    if dense or boundary is not None:
        values = np.minimum(values + mask, 255)
    values = np.where(component, values, 0).astype(np.int64)
    return np.where(component, np.maximum(smoothed(values, rules.smoothing), 1), 0)


def fill_holes(component, foreground, rules, connectivity):
    structure = None if connectivity == 8 else SQUARE
    regions, n = ndimage.label(np.pad(~component, 1, constant_values=True), structure)
    regions = regions[1:-1, 1:-1]
    outside = ndimage.label(np.pad(~component, 1, constant_values=True), structure)[0][0, 0]
    out = component.copy()
    for region in range(1, n + 1):
        hole = regions == region
        if region != outside and hole.sum() <= rules.max_hole_area and not foreground[hole].any():
            out |= hole
    return out


def flood(levels, mass, rules):
    """Queue-based flood with merging by prominence; labels are basin roots."""
    height, width = levels.shape
    labels = np.zeros(levels.shape, int)
    basins = {}

    def root(b):
        while basins[b]["parent"] != b:
            b = basins[b]["parent"]
        return b

    queues = [deque() for _ in range(256)]
    pixels = [[] for _ in range(256)]
    for y, x in zip(*np.nonzero(levels), strict=True):
        pixels[levels[y, x]].append((y, x))
    queued = {}

    def above(basin, level):
        """Area and mass strictly above a level."""
        inside = [h for h in basin["by_level"] if h > level]
        return sum(basin["by_level"][h] for h in inside), sum(basin["mass"].get(h, 0) for h in inside)

    def visit(p, b, level):
        labels[p] = b
        basin = basins[b]
        basin["by_level"][level] = basin["by_level"].get(level, 0) + 1
        y, x = p
        for n in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
            if not (0 <= n[0] < height and 0 <= n[1] < width) or not levels[n]:
                continue
            if labels[n] == 0:
                if n not in queued:
                    queued[n] = b
                    queues[levels[n]].append(n)
                continue
            other = root(labels[n])
            if other == b:
                continue
            high, low = min(b, other), max(b, other)
            area, cells = above(basins[low], level)
            if (
                basins[low]["peak"] - level < rules.persistence
                or area < rules.min_seed_area
                or (mass is not None and cells < rules.min_seed_density)
            ):
                basins[low]["parent"] = high
                for table in ("by_level", "mass"):
                    for h, value in basins[low][table].items():
                        basins[high][table][h] = basins[high][table].get(h, 0) + value
                b = high
        if mass is not None:
            table = basins[root(b)]["mass"]
            table[level] = table.get(level, 0) + mass[p]

    for level in range(255, 0, -1):
        fresh = iter(pixels[level])
        while True:
            if queues[level]:
                p = queues[level].popleft()
                b = root(queued[p])
            else:
                p = next((p for p in fresh if labels[p] == 0 and p not in queued), None)
                if p is None:
                    break
                b = len(basins) + 1
                basins[b] = {"parent": b, "peak": level, "by_level": {}, "mass": {}}
            visit(p, b, level)
    out = np.zeros_like(labels)
    for p in zip(*np.nonzero(labels), strict=True):
        out[p] = root(labels[p])
    return out


def reference(planes, heads, rules, connectivity=8):
    named = {head.name: (head, plane) for head, plane in zip(heads, planes, strict=True)}
    mask = named["mask"][1]
    boundary = named["boundary"][1] if "boundary" in named else None
    density = head_values(named["density"][0])[named["density"][1]] if "density" in named else None
    mass = density if rules.min_seed_density > 0 else None
    foreground = mask >= rules.mask_threshold
    components, n = ndimage.label(foreground, SQUARE if connectivity == 8 else None)
    cells = []
    for number in range(1, n + 1):
        component = fill_holes(components == number, foreground, rules, connectivity)
        basins = flood(landscape(component, mask, boundary, density, rules), mass, rules)
        cells += [
            pixels for b in np.unique(basins[basins > 0]) if (pixels := basins == b).sum() >= rules.min_area
        ]
    cells.sort(key=lambda pixels: int(np.flatnonzero(pixels)[0]))
    out = np.zeros(mask.shape, np.int32)
    for number, pixels in enumerate(cells, 1):
        assert (out[pixels] == 0).all()
        out[pixels] = number
    return out


@st.composite
def plane_stacks(draw, n):
    """Smooth random bytes with plateaus, edges and saturation."""
    height, width = draw(st.integers(1, 28)), draw(st.integers(1, 36))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sigma = draw(st.sampled_from([0.0, 0.7, 1.5, 3.0]))
    planes = []
    for _ in range(n):
        noise = ndimage.gaussian_filter(rng.random((height, width)), sigma, mode="nearest")
        noise -= noise.min()
        noise /= max(noise.max(), 1e-9)
        gain = draw(st.sampled_from([100.0, 255.0, 400.0]))
        planes.append(np.clip(noise * gain + draw(st.sampled_from([-60.0, 0.0, 60.0])), 0, 255))
    stack = np.stack(planes).astype(np.uint8)
    return stack // 64 * 64 if draw(st.booleans()) else stack


rules_of = st.builds(
    SplitSettings,
    mask_threshold=st.sampled_from([1, 64, 128, 250]),
    boundary_weight=st.sampled_from([0.0, 0.5, 1.0]),
    distance_weight=st.sampled_from([0.0, 0.0, 3.5, 20.0]),
    smoothing=st.sampled_from([0.0, 0.6, 1.0, 2.5]),
    persistence=st.sampled_from([0, 1, 10, 40, 255]),
    min_seed_area=st.sampled_from([1, 4, 20]),
    min_area=st.sampled_from([1, 5, 20]),
    max_hole_area=st.sampled_from([0, 3, 64]),
    min_seed_density=st.just(0.0),
)


@given(plane_stacks(2), rules_of, st.sampled_from([4, 8]))
@settings(deadline=None, max_examples=150)
def test_equals_the_reference_with_a_boundary(planes, rules, connectivity):
    heads = (MASK, BOUNDARY)
    np.testing.assert_array_equal(
        split_planes(planes, heads, rules, connectivity=connectivity),
        reference(planes, heads, rules, connectivity),
    )


@given(plane_stacks(1), rules_of)
@settings(deadline=None, max_examples=100)
def test_equals_the_reference_by_distance(planes, rules):
    np.testing.assert_array_equal(split_planes(planes, (MASK,), rules), reference(planes, (MASK,), rules))


@given(
    plane_stacks(3),
    rules_of,
    st.sampled_from([0.0, 0.01, 0.1, 0.5]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_equals_the_reference_with_density(planes, rules, density, weight, bounded):
    heads = (MASK, BOUNDARY, DENSITY) if bounded else (MASK, DENSITY)
    planes = planes[: len(heads)]
    rules = rules.model_copy(update={"min_seed_density": density, "density_weight": weight})
    np.testing.assert_array_equal(split_planes(planes, heads, rules), reference(planes, heads, rules))


@st.composite
def winding_planes(draw):
    """Thin components in boxes many times their size: lines, rings, crosses and steps, with flaws."""
    height, width = draw(st.integers(66, 100)), draw(st.integers(66, 100))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(1, 3))):
        kind, thick = draw(st.sampled_from(["line", "ring", "cross", "steps"])), draw(st.integers(1, 4))
        slope, shift = draw(st.sampled_from([-1.3, -1.0, -0.5, 0.5, 1.0, 2.0])), draw(st.integers(-9, 9))
        along = slope * (x - width / 2) + shift - (y - height / 2)
        if kind == "ring":
            along = np.hypot(y - height / 2 - shift, x - width / 2) - draw(st.integers(25, 45))
        elif kind == "cross":
            along = np.minimum(np.abs(along), np.abs(slope * (width / 2 - x) - (y - height / 2)))
        elif kind == "steps":
            along = np.minimum(np.abs(along // 8 * 8), np.abs((x + y) % 31 - 3) + 99 * (np.abs(along) > 8))
        mask |= np.abs(along) <= thick
    mask &= rng.random(mask.shape) > draw(st.sampled_from([0.0, 0.02, 0.1]))
    planes = [ndimage.gaussian_filter(rng.random(mask.shape), 1.5) * 500 for _ in range(2)]
    planes[0] = np.where(mask, 128 + planes[0] % 128, planes[0] % 128)
    return np.clip(np.stack(planes), 0, 255).astype(np.uint8)


@given(
    winding_planes(),
    rules_of,
    st.sampled_from([4, 8]),
    st.sampled_from([(MASK,), (MASK, BOUNDARY)]),
)
@settings(deadline=None, max_examples=60)
def test_thin_components_in_large_boxes_equal_the_reference(planes, rules, connectivity, heads):
    rules = rules.model_copy(update={"mask_threshold": 128})
    planes = planes[: len(heads)]
    np.testing.assert_array_equal(
        split_planes(planes, heads, rules, connectivity=connectivity),
        reference(planes, heads, rules, connectivity),
    )


weights = st.floats(-6, 6).map(lambda value: round(value, 3) + 0.0004)
tables = st.dictionaries(st.sampled_from(["mask", "boundary", "density"]), weights)
joins = st.builds(
    JoinRule, constant=weights, contact=tables, inside=tables, smaller=weights, larger=weights, length=weights
)
scorings = st.builds(
    ScoreRule, constant=weights, inside=tables, area=weights, minimum=st.sampled_from([0.0, 0.3, 0.5, 0.9])
)


@given(
    plane_stacks(3),
    rules_of,
    st.none() | joins,
    st.none() | scorings,
    st.sampled_from([(MASK,), (MASK, DENSITY), (MASK, BOUNDARY, DENSITY)]),
)
@settings(deadline=None, max_examples=200)
def test_learned_rules_equal_their_plain_form(planes, rules, join, score, heads):
    """Joined and scored by the kernel, and on its own pieces by numpy."""
    planes = planes[: len(heads)]
    rules = rules.model_copy(update={"join": join, "score": score})
    lesson = Lesson.of(planes, np.zeros(planes.shape[1:], np.int32), heads, rules)
    labels = joined(lesson, join, heads)
    cells = Pieces.of(labels, planes)
    sure = cells.inside[:, 0] if score is None else scores(cells, score, heads)
    kept = (cells.area >= rules.min_area) & (sure >= (0 if score is None else score.minimum))
    numbers, first = np.unique(np.where(np.append(False, kept)[labels], labels, 0), return_index=True)
    order = numbers[np.argsort(first)]
    order = order[order > 0]  # by their first pixels
    wanted = np.zeros(labels.max() + 1, np.int32)
    wanted[order] = np.arange(1, len(order) + 1)
    with InstanceStream(*planes.shape[1:], heads, rules) as stream:
        (strip,) = stream.push(planes)
    np.testing.assert_array_equal(strip.labels, wanted[labels])
    np.testing.assert_allclose(strip.cells.columns["score"], sure[order - 1], rtol=1e-9)


def test_joins_spread_from_contact_to_contact():
    """Three pieces in a row: the outer two are one cell because each is one with the middle."""
    planes = np.zeros((1, 20, 60), np.uint8)
    yy, xx = np.ogrid[:20, :60]
    for x in (12, 28, 44):
        planes[0][(yy - 10) ** 2 + (xx - x) ** 2 <= 81] = 255
    rules = SplitSettings(persistence=2)
    assert split_planes(planes, (MASK,), rules).max() == 3
    always = JoinRule(constant=1, contact={}, inside={}, smaller=0, larger=0, length=0)
    assert split_planes(planes, (MASK,), rules.model_copy(update={"join": always})).max() == 1
    long = always.model_copy(update={"constant": -100.0})
    assert split_planes(planes, (MASK,), rules.model_copy(update={"join": long})).max() == 3


def blobs(shape, n, radius, seed=0):
    """Planes of overlapping discs: a soft mask, and a boundary where two discs touch."""
    rng = np.random.default_rng(seed)
    yy, xx = np.ogrid[: shape[0], : shape[1]]
    nearest = np.full(shape, np.inf)
    second = np.full(shape, np.inf)
    for y, x in rng.random((n, 2)) * shape:
        distance = np.hypot(yy - y, xx - x)
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    mask = 255 / (1 + np.exp((nearest - radius) * 1.5))
    boundary = 255 * np.exp(-(((second - nearest) / 3) ** 2)) * (second < radius + 2)
    return np.stack([mask, boundary]).round().astype(np.uint8)


def test_agrees_with_scikit_image_from_the_same_seeds():
    rules = SplitSettings()
    planes = blobs((300, 400), 160, 11)
    labels = split_planes(planes, (MASK, BOUNDARY), rules)
    component = labels > 0
    levels = landscape(planes[0] >= rules.mask_threshold, planes[0], planes[1], None, rules)
    markers = np.zeros_like(labels)
    for cell in range(1, labels.max() + 1):
        peak = np.argmax(np.where(labels == cell, levels, -1))
        markers.flat[peak] = cell
    wanted = watershed(-levels, markers, mask=component)
    assert labels.max() > 100
    assert (labels == wanted)[component].mean() > 0.985


def test_touching_discs_are_separated_and_a_lone_one_is_not():
    planes = np.zeros((2, 40, 80), np.uint8)
    yy, xx = np.ogrid[:40, :80]
    for x in (12, 28, 60):
        planes[0][(yy - 20) ** 2 + (xx - x) ** 2 <= 81] = 255
    planes[1, :, 19:22] = 200
    assert split_planes(planes, (MASK, BOUNDARY), SplitSettings()).max() == 3
    assert split_planes(planes[:1], (MASK,), SplitSettings(persistence=2)).max() == 3
    assert split_planes(planes[:1], (MASK,), SplitSettings(persistence=100)).max() == 2


@pytest.mark.parametrize(("area", "holes"), [(8, 1), (9, 0)])
def test_holes_up_to_the_bound_are_filled(area, holes):
    mask = np.zeros((1, 20, 20), np.uint8)
    mask[0, 3:17, 3:17] = 255
    mask[0, 8:11, 8:11] = 0
    labels = split_planes(mask, (MASK,), SplitSettings(max_hole_area=area, persistence=255))
    assert (labels[8:11, 8:11] == 0).all() == bool(holes)
    assert labels.max() == 1


def test_a_cell_in_the_hole_of_another_is_left_alone():
    mask = np.zeros((1, 30, 30), np.uint8)
    mask[0, 2:28, 2:28] = 255
    mask[0, 6:24, 6:24] = 0
    mask[0, 12:18, 12:18] = 255
    labels = split_planes(mask, (MASK,), SplitSettings(max_hole_area=1000, persistence=255))
    assert labels.max() == 2
    assert labels[8, 8] == 0
    assert labels[14, 14] == 2


def test_a_worker_may_measure_other_channels_in_its_next_batch():
    """Its memory grows with the cells and with the channels, whichever comes later."""
    mask = np.zeros((64, 64), np.uint8)
    mask[::4, ::4] = 255
    image = np.random.default_rng(0).random((64, 64, 20), np.float32)
    labeler = RunLabeler(64, 1)
    labeler.push(addresses(mask))
    components, runs = labeler.take(True)
    settings = SplitSettings(min_area=1, min_seed_area=1, smoothing=0.0)
    splitter = SplitRules.of([MASK], settings, 8).splitter()

    def intensity(rows, kind, channels):
        planes = addresses(mask), None, None
        return splitter.process(components, runs, None, 0, *planes, rows, kind, channels)[1]

    assert intensity(None, 0, 0).shape == (256, 0)
    assert np.array_equal(intensity(addresses(image), 3, 20), image[::4, ::4].reshape(256, 20))
    assert intensity(None, 0, 0).shape == (256, 0)
