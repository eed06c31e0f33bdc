"""A part of a slide: what is found is what the whole slide's planes say there, however it is tiled."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellseg.runtime.geometry.coverage import Coverage
from cellseg.runtime.geometry.focus import Focus, Intersection
from cellseg.runtime.geometry.regions import Polygons
from cellseg.runtime.geometry.tiling import Region, TileGrid, reflect
from cellseg.runtime.geometry.tissue import Tissue
from cellseg.runtime.instances import Strip, split_planes
from cellseg.runtime.intensity.channels import ChannelChoice
from cellseg.runtime.intensity.normalization import Normalization
from cellseg.runtime.model.spec import SplitSettings
from cellseg.runtime.readers import ArrayReader
from cellseg.runtime.streaming.setup import Setup
from cellseg.runtime.streaming.stages import SlideRun
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec, whole_image_planes

SPLIT = SplitSettings(min_area=3, min_seed_area=2, max_hole_area=4, smoothing=0.5)
HEADS = ("mask", "boundary")


class Seen(ArrayReader):
    """Remembers which pixels were read."""

    def __init__(self, array: NDArray[Any]) -> None:
        super().__init__(array)
        self.seen = np.zeros((self.height, self.width), int)

    def _read(self, region: Region, level: int) -> NDArray[Any]:
        self.seen[region.y : region.y1, region.x : region.x1] += 1
        return super()._read(region, level)


class Collector:
    def __init__(self) -> None:
        self.labels: list[NDArray[np.int32]] = []

    def write(self, strip: Strip) -> None:
        self.labels.append(strip.labels.copy())  # they are used again


def blobs(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.zeros((height, width))
    for _ in range(1 + height * width // 60):
        cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(1.5, 6)
        image = np.maximum(image, (np.hypot(y - cy, x - cx) < r) * rng.integers(140, 256))
    return image.astype(np.uint8)


def whole(focus: Focus, height: int, width: int) -> NDArray[np.bool_]:
    inside = focus.inside(Region(0, 0, height, width))
    return np.ones((height, width), bool) if inside is None else inside


def draw_focus(data: st.DataObject, height: int, width: int) -> Focus:
    place = st.tuples(st.floats(-9, width + 9), st.floats(-9, height + 9))
    rings = data.draw(st.lists(st.lists(place, min_size=3, max_size=6), min_size=1, max_size=3))
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random((3, 4)) < 0.5
    polygons, tissue = Polygons([[np.array(ring)] for ring in rings]), Tissue(mask, height, width)
    return data.draw(st.sampled_from([polygons, tissue, Intersection([polygons, tissue])]))


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_a_part_is_the_whole_masked_however_it_is_tiled(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 80))
    image = blobs(height, width, data.draw(st.integers(0, 99)))
    focus = draw_focus(data, height, width)
    inside = whole(focus, height, width)
    radius, multiple = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([1, 2, 4]))
    spec = local_spec(radius, heads=HEADS, multiple=multiple, split=SPLIT)
    planes = whole_image_planes(image[:, :, None], HEADS, radius)
    core = multiple * data.draw(st.integers(-(-4 // multiple), 12), "core")
    grid = TileGrid(height, width, core + 2 * spec.halo, spec.halo, multiple)
    coverage = Coverage.of(grid, focus)
    assert coverage.pixels == inside.sum()
    reader, found, shown = Seen(image), Collector(), []
    with LocalEngine(spec, radius, shuffle=data.draw(st.integers(0, 9))) as engine:
        engine.prepare(grid.tile, data.draw(st.integers(1, 9), "batch"))
        setup = Setup(
            reader=reader,
            backend=engine,
            grid=grid,
            choice=ChannelChoice((0,)),
            mapping=Normalization.full_scale(image.dtype),
            split=SPLIT,
            workers=1,
            coverage=coverage,
        )
        SlideRun(setup, [found], planes=lambda part: shown.append(part.copy())).run()
        tiles_run = engine.submitted
    assert (np.concatenate(shown, axis=1) == planes * inside).all()
    assert (np.concatenate(found.labels) == split_planes(planes * inside, spec.heads, SPLIT)).all()
    # All that a tile looks at is read, and nothing twice.
    needed = np.zeros((height, width), bool)
    computed = 0
    for band in grid:
        for tile in band.tiles:
            touched = inside[tile.core.y : tile.core.y1, tile.core.x : tile.core.x1].any()
            assert coverage.wanted[tile.index] == touched
            if touched:
                computed += 1
                rows = [reflect(y, height) for y in range(tile.read.y, tile.read.y1)]
                columns = [reflect(x, width) for x in range(tile.read.x, tile.read.x1)]
                needed[np.ix_(rows, columns)] = True
    assert computed == coverage.count
    assert tiles_run <= computed
    assert reader.seen.max(initial=0) <= 1
    assert (reader.seen[needed] == 1).all()
    if not computed:
        assert not reader.seen.any()


def test_far_columns_and_bands_are_not_read() -> None:
    image = np.full((300, 300), 200, np.uint8)
    spec = local_spec(2, split=SPLIT)
    grid = TileGrid(300, 300, 20 + 2 * spec.halo, spec.halo)
    focus = Polygons([[np.array([[40, 100], [60, 100], [60, 110], [40, 110]], float)]])
    coverage = Coverage.of(grid, focus)
    assert (coverage.count, coverage.pixels) == (1, 200)
    assert coverage.part == pytest.approx(200 / 300**2)
    reader = Seen(image)
    with LocalEngine(spec, 2) as engine:
        engine.prepare(grid.tile, 4)
        setup = Setup(
            reader, engine, grid, ChannelChoice((0,)), Normalization.full_scale(image.dtype), SPLIT, 1
        )
        SlideRun(replace(setup, coverage=coverage), []).run()
        assert engine.submitted == 1
    assert (reader.seen > 0).sum() < 3000


def test_skipping_glass_changes_nothing_where_the_planes_are_zero_there() -> None:
    image = blobs(120, 160, 3)
    mask = np.zeros((12, 16), bool)
    mask[2:9, 3:11] = True
    image[~np.repeat(np.repeat(mask, 10, 0), 10, 1)] = 0
    # The engine's planes reach one pixel beyond the bright ones; the tissue is a block larger.
    mask[1:10, 2:12] = True
    spec = local_spec(1, split=SPLIT)
    labels = []
    for focus in (None, Tissue(mask, 120, 160)):
        for tile in (24, 50):
            grid = TileGrid(120, 160, tile, spec.halo)
            found = Collector()
            with LocalEngine(spec, 1) as engine:
                engine.prepare(tile, 3)
                setup = Setup(
                    ArrayReader(image),
                    engine,
                    grid,
                    ChannelChoice((0,)),
                    Normalization.full_scale(image.dtype),
                    SPLIT,
                    1,
                    coverage=Coverage.of(grid, focus),
                )
                SlideRun(setup, [found]).run()
            labels.append(np.concatenate(found.labels))
    assert labels[0].max() > 5
    assert all((other == labels[0]).all() for other in labels[1:])
