import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from shapely import Polygon
from skimage.measure import regionprops_table

from cellseg.runtime.errors import ModelError, UsageError
from cellseg.runtime.instances import Cells, InstanceStream, split_planes
from cellseg.runtime.instances.rules import gaussian_weights
from cellseg.runtime.model.spec import Head, JoinRule, ScoreRule, SplitSettings

HEADS = (Head(name="mask"), Head(name="boundary"))
RULES = SplitSettings(min_area=4, max_hole_area=10)
#: Fine pieces, many of which are joined, and cells some of which are dropped as doubtful.
LEARNED = RULES.model_copy(
    update={
        "persistence": 2,
        "min_seed_area": 1,
        "join": JoinRule(
            constant=1.0,
            contact={"mask": 4.0, "boundary": -9.0},
            inside={"mask": -1.0},
            smaller=-0.3,
            larger=0.0,
            length=0.2,
        ),
        "score": ScoreRule(constant=-7.0, inside={"mask": 8.0, "boundary": -1.0}, area=0.3, minimum=0.4),
    }
)


def run(planes, cuts, image=None, rules=RULES, heads=HEADS, **options):
    """Push planes cut at the given rows, from buffers that are overwritten after each push."""
    height, width = planes.shape[1:]
    channels = 0 if image is None else image.shape[2]
    strips = []
    with InstanceStream(height, width, heads, rules, image_channels=channels, **options) as stream:
        for y0, y1 in zip([0, *cuts], [*cuts, height], strict=True):
            buffer = planes[:, y0:y1].copy()
            rows = None if image is None else image[y0:y1].copy()
            strips += stream.push(buffer, rows)
            buffer[:] = 211
            if rows is not None:
                rows[:] = 3
        strips += stream.finish()
    assert [strip.y for strip in strips] == np.cumsum([0, *(len(s.labels) for s in strips)])[:-1].tolist()
    for strip in strips:
        rows = strip.cells.columns["y0"]
        assert ((rows >= strip.y) & (rows < strip.y + len(strip.labels))).all()
    labels = np.concatenate([strip.labels for strip in strips])
    return labels, Cells.concatenate([strip.cells for strip in strips]), stream.stats


def assert_same(first, second):
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1].outline, second[1].outline)
    np.testing.assert_array_equal(first[1].outline_start, second[1].outline_start)
    assert first[1].columns.keys() == second[1].columns.keys()
    for name, column in first[1].columns.items():
        np.testing.assert_array_equal(column, second[1].columns[name], err_msg=name)


def assert_sound(labels, cells, image=None):
    """Check labels and table against one another and against scikit-image."""
    n = len(cells)
    columns = cells.columns
    np.testing.assert_array_equal(columns["label"], np.arange(1, n + 1))
    assert set(np.unique(labels)) - {0} == set(range(1, n + 1))
    if n == 0:
        return
    first = [int(np.flatnonzero(labels == label)[0]) for label in range(1, n + 1)]
    assert first == sorted(first)
    wanted = regionprops_table(labels, image, properties=("area", "bbox", "centroid", "perimeter"))
    for ours, theirs in {"area": "area", "y0": "bbox-0", "x1": "bbox-3", "centroid_x": "centroid-1"}.items():
        np.testing.assert_allclose(columns[ours], wanted[theirs])
    edge = np.zeros(labels.shape, bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    np.testing.assert_array_equal(columns["touches_border"], np.isin(columns["label"], labels[edge]))
    for index in range(n):
        polygon = Polygon(cells.ring(index))
        assert polygon.is_valid
        assert polygon.area == ndimage.binary_fill_holes(labels == index + 1).sum()


@st.composite
def slides(draw):
    """Planes and cuts: noise blobs of any density, and shapes that are hard to follow."""
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["blobs", "blobs", "noise", "snake", "rings", "comb", "full", "empty"]))
    yy, xx = np.mgrid[:height, :width]
    mask = np.zeros((height, width))
    if kind == "blobs":
        field = ndimage.gaussian_filter(rng.random((height, width)), draw(st.sampled_from([1.0, 2.0, 4.0])))
        mask = 255 * (field > np.quantile(field, draw(st.sampled_from([0.2, 0.5, 0.8]))))
    elif kind == "noise":
        mask = 255 * (rng.random((height, width)) < draw(st.sampled_from([0.1, 0.45, 0.6, 0.9])))
    elif kind == "snake":
        mask[::4] = 255
        mask[2::8, -1] = mask[1::8, -1] = mask[3::8, -1] = 255
        mask[6::8, 0] = mask[5::8, 0] = mask[7::8, 0] = 255
    elif kind == "rings":
        mask = 255 * (np.hypot(yy - height / 2, xx - width / 2).astype(int) % 5 < 2)
    elif kind == "comb":
        mask[:, ::3] = 255
        mask[-1] = 255
    elif kind == "full":
        mask[:] = 255
    boundary = 255 * ndimage.gaussian_filter(rng.random((height, width)), 1.0)
    planes = np.stack([np.clip(mask - rng.integers(0, 60, mask.shape), 0, 255), boundary]).astype(np.uint8)
    cuts = sorted(draw(st.sets(st.integers(1, height - 1), max_size=height - 1))) if height > 1 else []
    return planes, cuts


@given(slides(), st.sampled_from([1, 3]), st.sampled_from([4, 8]), st.sampled_from([RULES, LEARNED]))
@settings(deadline=None, max_examples=150)
def test_result_does_not_depend_on_how_rows_arrive(slide, workers, connectivity, rules):
    planes, cuts = slide
    image = np.random.default_rng(0).integers(0, 255, (*planes.shape[1:], 2)).astype(np.uint8)
    whole = run(planes, [], image, rules, connectivity=connectivity)
    parts = run(planes, cuts, image, rules, workers=workers, connectivity=connectivity)
    assert_same(whole, parts)
    assert_sound(whole[0], whole[1], image)


@given(slides(), st.integers(1, 24), st.integers(1, 24), st.sampled_from([RULES, LEARNED]))
@settings(deadline=None, max_examples=150)
def test_giant_components_do_not_depend_on_how_rows_arrive(slide, max_rows, max_columns, rules):
    """Bounds so small that components give up their cells again and again."""
    planes, cuts = slide
    bounds = {"max_rows": max_rows, "max_columns": max_columns}
    whole = run(planes, [], rules=rules, **bounds)
    parts = run(planes, cuts, rules=rules, **bounds)
    assert_same(whole, parts)
    assert_sound(whole[0], whole[1])
    longest = max(b - a for a, b in zip([0, *cuts], [*cuts, planes.shape[1]], strict=True))
    assert parts[2].max_rows <= 2 * max_rows + longest


def lattice(rows, columns, pitch=16):
    """Confluent cells: mask everywhere, boundaries between them, slightly irregular."""
    rng = np.random.default_rng(5)
    height, width = rows * pitch, columns * pitch
    yy, xx = np.mgrid[:height, :width]
    nearest = np.full((height, width), np.inf)
    second = nearest.copy()
    for row in range(rows):
        for column in range(columns):
            y, x = (np.array([row, column]) + 0.5 + rng.uniform(-0.2, 0.2, 2)) * pitch
            distance = np.hypot(yy - y, xx - x)
            second = np.minimum(second, np.maximum(nearest, distance))
            nearest = np.minimum(nearest, distance)
    boundary = 230 * np.exp(-(((second - nearest) / 3) ** 2))
    return np.stack([np.full((height, width), 250.0), boundary]).round().astype(np.uint8)


def test_confluent_tissue_is_split_as_if_it_were_not_giant():
    planes = lattice(16, 14)
    whole = run(planes, [])
    assert whole[2].giant == 0
    parts = run(planes, [40, 41, 130], max_rows=64, max_columns=70)
    assert parts[2].giant > 3
    assert len(whole[1]) == len(parts[1]) == 16 * 14
    # A cell that is split again without its finished neighbours may gain or lose a contested pixel.
    assert (whole[0] > 0).all()
    assert (parts[0] > 0).all()
    pairs = np.unique(np.stack([whole[0], parts[0]]).reshape(2, -1), axis=1, return_counts=True)[1]
    assert np.sort(pairs)[: -16 * 14].sum() < 0.001 * whole[0].size


def test_a_cell_taller_than_the_bound_is_cut_and_memory_stays_bounded():
    planes = np.full((1, 300, 20), 255, np.uint8)
    labels, cells, stats = run(planes, list(range(10, 300, 10)), heads=HEADS[:1], max_rows=32)
    assert stats.max_rows <= 2 * 32 + 10
    assert stats.giant > 2
    assert (labels > 0).all()
    assert 2 <= len(cells) <= 300 // 32 + 1


def test_memory_does_not_grow_with_the_rows():
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.random((64, 256)), 3.0)
    band = (255 * (field > np.quantile(field, 0.8))).astype(np.uint8)[None]
    band[:, -1] = 0

    def peak(n):
        with InstanceStream(64 * n, 256, HEADS[:1], RULES) as stream:
            stream.push(band)
            tracemalloc.start()
            for _ in range(n - 1):
                stream.push(band)
            top = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return top

    assert peak(200) < 1.5 * peak(20)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1)])
def test_lines_and_points(shape):
    planes = np.full((2, *shape), 255, np.uint8)
    planes[1] = 0
    labels, cells, _ = run(planes, [], rules=SplitSettings(min_area=1))
    assert (labels == 1).all()
    assert cells.columns["area"].tolist() == [shape[0] * shape[1]]
    assert cells.columns["touches_border"].all()
    assert cells.outline.tolist() == [[0, 0], [shape[1], 0], [shape[1], shape[0]], [0, shape[0]]]


def test_empty_image_gives_an_empty_table():
    planes = np.zeros((2, 50, 60), np.uint8)
    image = np.zeros((50, 60, 3), np.uint16)
    labels, cells, _ = run(planes, [7, 20], image)
    assert not labels.any()
    assert len(cells) == 0
    assert cells.columns.keys() == Cells.empty(3).columns.keys()
    for name, column in Cells.empty(3).columns.items():
        assert cells.columns[name].dtype == column.dtype


def test_types_of_the_columns():
    _, cells, _ = run(lattice(3, 3), [], np.zeros((48, 48, 2), np.float32))
    assert len(cells) == 9
    for name, column in Cells.empty(2).columns.items():
        assert cells.columns[name].dtype == column.dtype, name
    assert cells.outline.dtype == np.int32
    assert cells.outline_start.dtype == np.int64


def test_small_cells_are_dropped_and_counted():
    planes = np.zeros((2, 30, 30), np.uint8)
    planes[0, 2:4, 2:4] = 255
    planes[0, 10:20, 10:20] = 255
    labels, cells, stats = run(planes, [], rules=SplitSettings(min_area=5))
    assert len(cells) == 1
    assert (stats.components, stats.cells, stats.dropped) == (2, 1, 1)
    assert not labels[2:4, 2:4].any()


def test_mean_probability_and_intensity():
    planes = np.zeros((2, 20, 20), np.uint8)
    planes[0, 5:15, 5:15] = 200
    planes[0, 5:15, 5:10] = 250
    image = np.arange(400, dtype=np.uint16).reshape(20, 20, 1) * 100
    _, cells, _ = run(planes, [3, 9], image)
    assert cells.columns["mean_probability"] == pytest.approx([225 / 255])
    assert cells.columns["mean_intensity_0"] == pytest.approx([image[5:15, 5:15].mean()])


def test_unused_planes_and_strides_are_accepted():
    heads = (*HEADS, Head(name="density", full_scale=0.1, power=2.0))
    planes = np.concatenate([lattice(4, 4), np.zeros((1, 64, 64), np.uint8)])
    wanted = split_planes(planes, heads, RULES)
    padded = np.zeros((3, 70, 80), np.uint8)
    padded[:, :64, :64] = planes
    np.testing.assert_array_equal(split_planes(padded[:, :64, :64], heads, RULES), wanted)
    np.testing.assert_array_equal(split_planes(np.asfortranarray(planes), heads, RULES), wanted)
    assert wanted.max() == 16


def test_concatenate_keeps_rings_apart():
    _, cells, _ = run(lattice(3, 2), [])
    both = Cells.concatenate([cells, Cells.empty(), cells])
    assert len(both) == 12
    np.testing.assert_array_equal(both.ring(8), cells.ring(2))


@pytest.mark.parametrize("sigma", [0.01, 0.3, 0.5, 0.8, 1.0, 1.37, 2.0, 4.0, 7.9, 8.0])
def test_gaussian_weights_sum_to_one(sigma):
    weights = gaussian_weights(sigma).astype(int)
    assert weights[0] + 2 * weights[1:].sum() == 256
    curve = np.exp(-0.5 * (np.arange(len(weights)) / sigma) ** 2)
    assert np.abs(weights / 256 - curve / (2 * curve.sum() - 1)).max() < 1.2 / 256
    assert len(weights) <= 25
    assert gaussian_weights(0.0).tolist() == [256]


def test_misuse_is_named():
    rows = np.zeros((2, 4, 10), np.uint8)
    with pytest.raises(ModelError, match="wanted 'mask' first"):
        InstanceStream(8, 10, HEADS[1:], RULES)
    with pytest.raises(UsageError, match="connectivity 6"):
        InstanceStream(8, 10, HEADS, RULES, connectivity=6)
    with pytest.raises(UsageError, match="0 × 10"):
        InstanceStream(0, 10, HEADS, RULES)
    with InstanceStream(8, 10, HEADS, RULES) as stream:
        with pytest.raises(UsageError, match=r"wanted uint8 \(2, rows, 10\)"):
            stream.push(rows[:1])
        with pytest.raises(UsageError, match="image_channels"):
            stream.push(rows, np.zeros((4, 10, 1), np.uint8))
        stream.push(rows)
        with pytest.raises(UsageError, match="4 of 8 rows"):
            stream.finish()
        stream.push(rows)
        with pytest.raises(UsageError, match="12 rows were pushed for an image of 8"):
            stream.push(rows)
    with InstanceStream(8, 10, HEADS, RULES, image_channels=1) as stream:
        with pytest.raises(UsageError, match="no image"):
            stream.push(rows)
        with pytest.raises(UsageError, match="int64"):
            stream.push(rows, np.zeros((4, 10, 1), np.int64))
        stream.push(rows, np.zeros((4, 10, 1), np.uint8))
        with pytest.raises(UsageError, match="keep to one type"):
            stream.push(rows, np.zeros((4, 10, 1), np.uint16))


def test_planes_made_from_real_labels_give_the_cells_back(shared_data):
    """Ideal planes of real nuclei, so this measures the splitter alone."""
    from skimage import io

    found = truth = 0
    for path in sorted((shared_data / "dsb2018" / "val" / "label").glob("*.png"))[:12]:
        wanted = io.imread(path).astype(np.int32)
        near = np.pad(wanted, 1)
        inner = np.zeros(wanted.shape, bool)
        for dy, dx in ((0, 1), (1, 0), (2, 1), (1, 2)):
            inner |= near[dy : dy + wanted.shape[0], dx : dx + wanted.shape[1]] != wanted
        mask = ndimage.gaussian_filter((wanted > 0) * 255.0, 1.0)
        boundary = np.minimum(1.5 * ndimage.gaussian_filter((inner & (wanted > 0)) * 255.0, 0.8), 255)
        labels = split_planes(np.stack([mask, boundary]).astype(np.uint8), HEADS, SplitSettings())
        pairs, counts = np.unique(np.stack([wanted, labels]).reshape(2, -1), axis=1, return_counts=True)
        area, own = np.bincount(wanted.ravel()), np.bincount(labels.ravel())
        for (a, b), both in zip(pairs.T, counts, strict=True):
            found += bool(a and b and both > 0.5 * (area[a] + own[b] - both))
        truth += (area[1:] > 0).sum()
    assert found > 0.9 * truth
