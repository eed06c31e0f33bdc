"""Seam-exactness: whatever the layout, the labels are those of the whole image."""

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellseg.runtime.errors import BackendError, ImageError
from cellseg.runtime.geometry.coverage import Coverage
from cellseg.runtime.geometry.regions import Polygons
from cellseg.runtime.geometry.tiling import Region, TileGrid
from cellseg.runtime.instances import Cells, Strip, split_planes
from cellseg.runtime.intensity.channels import ChannelChoice
from cellseg.runtime.intensity.normalization import Normalization
from cellseg.runtime.model.spec import ModelSpec, SplitSettings
from cellseg.runtime.readers import ArrayReader
from cellseg.runtime.streaming.blend import Blend
from cellseg.runtime.streaming.progress import Progress
from cellseg.runtime.streaming.setup import Setup
from cellseg.runtime.streaming.stages import SlideRun
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec, whole_image_planes

SPLIT = SplitSettings(min_area=3, min_seed_area=2, max_hole_area=4, smoothing=0.5)


class Collector:
    def __init__(self) -> None:
        self.strips: list[Strip] = []

    def write(self, strip: Strip) -> None:
        self.strips.append(strip)

    @property
    def labels(self) -> NDArray[np.int32]:
        return np.concatenate([strip.labels for strip in self.strips])

    @property
    def cells(self) -> Cells:
        return Cells.concatenate([strip.cells for strip in self.strips])


def setup_for(image: NDArray[Any], engine: LocalEngine, tile: int, batch: int, workers: int = 1) -> Setup:
    spec = engine.spec
    engine.prepare(tile, batch)
    return Setup(
        reader=ArrayReader(image),
        backend=engine,
        grid=TileGrid(*image.shape[:2], tile, spec.halo, spec.multiple),
        choice=ChannelChoice((0,)),
        mapping=Normalization.full_scale(image.dtype),
        split=spec.split,
        workers=workers,
    )


def run(
    image: NDArray[Any], spec: ModelSpec, radius: int, tile: int, batch: int, workers: int = 1, **fake: Any
):
    found = Collector()
    with LocalEngine(spec, radius, **fake) as engine:
        SlideRun(setup_for(image, engine, tile, batch, workers), [found]).run()
    return found


def picture(kind: str, height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Pictures that are hard at seams."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    if kind == "noise":
        return rng.integers(0, 256, (height, width)).astype(np.uint8)
    if kind == "full":
        return np.full((height, width), 230, np.uint8)
    if kind == "snake":  # one component through every band
        return np.where(
            (y % 6 < 3) | ((x < 3) & (y % 12 < 6)) | ((x >= width - 3) & (y % 12 >= 6)), 240, 5
        ).astype(np.uint8)
    image = np.zeros((height, width))
    for _ in range(1 + height * width // 120):
        cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(1.5, 7)
        d = np.hypot(y - cy, x - cx)
        shape = (np.abs(d - r) < 2) if kind == "rings" else (d < r)
        image = np.maximum(image, shape * rng.integers(140, 256))
    return image.astype(np.uint8)


KINDS = ["noise", "full", "snake", "rings", "blobs"]


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_labels_do_not_depend_on_the_layout(data: st.DataObject) -> None:
    check_layout(data)


@pytest.mark.slow
@settings(deadline=None, max_examples=1000)
@given(st.data())
def test_labels_do_not_depend_on_a_thousand_layouts(data: st.DataObject) -> None:
    check_layout(data)


def check_layout(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 90), "height"), data.draw(st.integers(1, 90), "width")
    image = picture(data.draw(st.sampled_from(KINDS)), height, width, data.draw(st.integers(0, 999)))
    radius, multiple = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([1, 2, 4]))
    heads = data.draw(st.sampled_from([("mask",), ("mask", "boundary"), ("mask", "density", "boundary")]))
    spec = local_spec(radius, heads=heads, multiple=multiple, tile=32, split=SPLIT)
    expected = split_planes(whole_image_planes(image[:, :, None], heads, radius), spec.heads, SPLIT)
    core = multiple * data.draw(st.integers(-(-4 // multiple), 12), "core")
    found = run(
        image,
        spec,
        radius,
        core + 2 * spec.halo,
        data.draw(st.integers(1, 9), "batch"),
        data.draw(st.integers(1, 3), "workers"),
        shuffle=data.draw(st.integers(0, 9)),
    )
    assert found.labels.shape == image.shape
    assert (found.labels == expected).all()
    assert (found.cells.columns["label"] == np.arange(1, expected.max() + 1)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_tables_and_outlines_do_not_depend_on_the_layout(kind: str) -> None:
    image = picture(kind, 150, 130, 3)
    spec = local_spec(2, split=SPLIT)
    one = run(image, spec, 2, 200, 1).cells
    for tile, batch, workers in ((20, 5, 1), (36, 3, 2), (64, 1, 3)):
        other = run(image, spec, 2, tile, batch, workers, shuffle=1).cells
        assert one.columns.keys() == other.columns.keys()
        for name, values in one.columns.items():
            assert (values == other.columns[name]).all(), name
        assert (one.outline == other.outline).all()
        assert (one.outline_start == other.outline_start).all()


def test_a_halo_that_is_too_small_is_noticed() -> None:
    """The fake engine would tell: without a halo the seams show."""
    image = picture("blobs", 80, 80, 1)
    spec = local_spec(2, split=SPLIT)
    blind = spec.model_copy(update={"halo": 0})
    expected = split_planes(whole_image_planes(image[:, :, None], spec.head_names, 2), spec.heads, SPLIT)
    assert (run(image, blind, 2, 16, 4).labels != expected).any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_intensities_are_raw_values_of_every_channel(dtype: str) -> None:
    image = np.stack([picture("blobs", 60, 50, 1)] * 2, axis=2).astype(dtype)
    image[:, :, 1] = 100 + np.arange(50)
    spec = local_spec(1, split=SPLIT)
    found = Collector()
    with LocalEngine(spec, 1) as engine:
        setup = replace(setup_for(image, engine, 16, 2), mapping=Normalization(0, 255, dtype))
        SlideRun(setup, [found]).run()
    labels, table = found.labels, found.cells.columns
    assert len(found.cells) > 3
    for index, label in enumerate(table["label"]):
        for channel in range(2):
            wanted = image[:, :, channel][labels == label].mean()
            assert table[f"mean_intensity_{channel}"][index] == pytest.approx(wanted, rel=1e-6)


class FailingSink:
    def write(self, strip: Strip) -> None:
        raise OSError(28, "no space")


class BrokenReader(ArrayReader):
    def _read(self, region: Region, level: int) -> NDArray[Any]:
        if region.y > 30:
            raise ImageError("slide.tif: tile 7 is damaged")
        return super()._read(region, level)


def test_an_error_anywhere_stops_all_with_its_own_message() -> None:
    image = picture("blobs", 120, 60, 1)
    spec = local_spec(2, split=SPLIT)
    before = threading.active_count()
    with (
        LocalEngine(spec, 2, fail_at=3, shuffle=1) as engine,
        pytest.raises(BackendError, match="batch 3 was told to fail"),
    ):
        SlideRun(setup_for(image, engine, 20, 2), [Collector()]).run()
    with LocalEngine(spec, 2) as engine:
        with pytest.raises(OSError, match="no space"):
            SlideRun(setup_for(image, engine, 20, 2), [FailingSink()]).run()
        setup = replace(setup_for(image, engine, 20, 2), reader=BrokenReader(image))
        with pytest.raises(ImageError, match="tile 7 is damaged"):
            SlideRun(setup, [Collector()]).run()
        # The engine is idle and serves the next slide.
        found = Collector()
        SlideRun(setup_for(image, engine, 20, 2), [found]).run()
        assert found.labels.shape == image.shape
    assert threading.active_count() <= before  # one of an earlier test may have ended meanwhile


def test_an_interrupt_leaves_no_thread() -> None:
    image = picture("blobs", 300, 60, 1)
    before = threading.active_count()

    def tick(progress: Progress) -> None:
        raise KeyboardInterrupt

    with LocalEngine(local_spec(2), 2, shuffle=1) as engine, pytest.raises(KeyboardInterrupt):
        SlideRun(setup_for(image, engine, 20, 1), [Collector()]).run(tick)
    assert threading.active_count() <= before  # one of an earlier test may have ended meanwhile


def test_progress_adds_up() -> None:
    image = picture("blobs", 120, 60, 1)
    seen: list[Progress] = []
    with LocalEngine(local_spec(2, split=SPLIT), 2) as engine:
        last = SlideRun(setup_for(image, engine, 20, 2), [Collector()]).run(seen.append)
    assert seen[-1] == last
    assert last.done == last.total == 7200
    assert last.cells > 3
    assert last.seconds_left == 0
    assert last.mpx_s > 0
    assert list(last.stages) == ["read", "gather", "infer", "stitch", "split", "write"]
    assert last.bottleneck in last.stages


@pytest.mark.parametrize("blend", ["hann", "gaussian"])
def test_blended_labels_do_not_depend_on_batches_or_workers(blend: Blend) -> None:
    image = picture("blobs", 130, 110, 5)
    spec = local_spec(3, heads=("mask", "boundary", "density"), split=SPLIT)
    # The engine sees zeros beyond a tile: with so much overlap tiles disagree on a third of the pixels.
    spec = spec.model_copy(update={"halo": 8})
    seen = []
    for batch, workers, shuffle in ((1, 1, 0), (3, 2, 1), (7, 1, 2)):
        found = Collector()
        with LocalEngine(spec, 3, shuffle=shuffle) as engine:
            SlideRun(replace(setup_for(image, engine, 40, batch, workers), blend=blend), [found]).run()
        seen.append(found.labels)
    assert seen[0].max() > 10
    assert (seen[1] == seen[0]).all()
    assert (seen[2] == seen[0]).all()


@pytest.mark.parametrize("size", [(1, 1), (9, 130), (130, 9), (75, 75)])
@pytest.mark.parametrize("tile", [12, 25, 40])
def test_blending_tiles_that_agree_gives_what_cores_give(size: tuple[int, int], tile: int) -> None:
    image = picture("blobs", *size, 2)
    spec = local_spec(0, split=SPLIT).model_copy(update={"halo": 5})
    expected = split_planes(whole_image_planes(image[:, :, None], spec.head_names, 0), spec.heads, SPLIT)
    found = Collector()
    with LocalEngine(spec, 0) as engine:
        setup = replace(setup_for(image, engine, tile, 3), blend="hann")
        last = SlideRun(setup, [found]).run()
    assert last.done == last.total
    assert (found.labels == expected).all()


@pytest.mark.parametrize("blend", ["none", "gaussian"])
def test_blending_looks_at_regions_only(blend: Blend) -> None:
    """Tiles that agree: blended or not, what counts is what lies in the regions."""
    image = picture("blobs", 120, 100, 4)
    spec = local_spec(0, split=SPLIT).model_copy(update={"halo": 5})
    focus = Polygons(
        [[np.array([[20.0, 13], [71, 30], [55, 66]])], [np.array([[80.0, 90], [95, 90], [95, 110]])]]
    )
    inside = focus.inside(Region(0, 0, 120, 100))
    assert inside is not None
    planes = whole_image_planes(image[:, :, None], spec.head_names, 0) * inside
    expected = split_planes(planes, spec.heads, SPLIT)
    found = Collector()
    with LocalEngine(spec, 0) as engine:
        setup = setup_for(image, engine, 26, 3)
        SlideRun(replace(setup, blend=blend, coverage=Coverage.of(setup.grid, focus)), [found]).run()
    assert expected.max() > 2
    assert (found.labels == expected).all()
