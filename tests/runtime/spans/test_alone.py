"""A slide in spans against the same slide in one run: the same bytes, whatever the cut."""

import hashlib
import itertools
import json
import shutil

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellseg.runtime import segment
from cellseg.runtime.backends import open_backend
from cellseg.runtime.errors import BackendError, OutputError, UsageError
from cellseg.runtime.geometry.tiling import TileGrid
from cellseg.runtime.model.spec import CellDiameter
from cellseg.runtime.options import SegmentOptions
from cellseg.runtime.spans import course as courses
from cellseg.runtime.spans.alone import segment_spans
from cellseg.runtime.spans.compute import compute_span
from cellseg.runtime.spans.course import SlideCourse, do
from cellseg.runtime.spans.plan import cut_bands, cut_labels, make_plan

#: What a record says of times and of who did it.
OF_THE_RUN = {"created", "seconds", "stages", "mpx_s", "bottleneck", "notes", "files", "resumed_pixels"}


def digest(path):
    """Return a digest of a file; of a TIFF, which holds an identifier of its own, of its pixels."""
    if path.suffix != ".tif":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with tifffile.TiffFile(path) as file:
        return [hashlib.sha256(level.asarray().tobytes()).hexdigest() for level in file.series[0].levels]


def contents(folder):
    """Return a digest of every file of a result; of the record what is not about the run itself."""
    found = {
        path.relative_to(folder).as_posix(): digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("report.html", "run.json")
    }
    record = json.loads((folder / "run.json").read_text())
    return found | {"run.json": {name: record[name] for name in record.keys() - OF_THE_RUN}}


def picture(height, width, seed=0, dtype=np.uint8):
    """Return cells, large and small, some through many rows."""
    random = np.random.default_rng(seed)
    drawn = np.full((height, width, 3), 8, np.uint8)
    for _ in range(height * width // 700):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        shade = tuple(int(v) for v in random.integers(150, 255, 3))
        cv2.ellipse(
            drawn,
            (x, y),
            tuple(map(int, random.integers(3, 16, 2))),
            int(random.integers(180)),
            0,
            360,
            shade,
            -1,
        )
    drawn[height // 8 : height - 40, 50:58] = 240  # a cell through almost all rows
    return (drawn.astype(np.uint16) * 200 if dtype == np.uint16 else drawn).astype(dtype)


@pytest.fixture(scope="module")
def backend(bright_model):
    with open_backend(bright_model) as opened:
        opened.spec = opened.spec.model_copy(update={"pixel_size": 0.5})
        yield opened


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    tifffile.imwrite(path, picture(1500, 700), photometric="rgb", tile=(256, 256))
    return path


ROI = [[(20, 30), (600, 60), (560, 1400), (40, 1300)]]
CASES = {
    "plain": {},
    "everything": {"csv": True, "probabilities": True, "labels": "tiff"},
    "png of regions": {"roi": ROI, "labels": "png"},
    "averaged tiles": {"blend": "hann"},
    "reduced": {"pixel_size": 0.35, "tile": 64, "probabilities": True},
    "enlarged": {"pixel_size": 0.9, "labels": "tiff"},
    "cells": {"pixel_size": 0.5, "expand": 6, "positive": "ring:red=60", "roi": ROI},
    "cells, reduced": {
        "pixel_size": 0.35,
        "tile": 64,
        "expand": 3,
        "labels": "tiff",
        "positive": "0=60,90,120",
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_bytes_as_one_run(slide, backend, tmp_path, case):
    options = SegmentOptions(**CASES[case])
    one = segment(slide, backend, output=tmp_path / "alone", options=options)
    assert (one.record.settings.scaled_to is not None) == (CASES[case].get("pixel_size", 0.5) != 0.5)
    for name, span, workers in (("many", 0.07, 3), ("two", 0.6, 2)):
        made = segment_spans(slide, backend, tmp_path / name, options, span=span, workers=workers)
        assert contents(tmp_path / name) == contents(tmp_path / "alone")
        assert made.notes[-1].startswith("the image was computed in ")
        assert made.record.identity() == one.record.identity()
    assert made.count > 300


@pytest.fixture(scope="module")
def stained(tmp_path_factory):
    """Return glass with two islands of tissue, and cells, the brightest of all, in these and beside."""
    random = np.random.default_rng(5)
    slide = np.full((2100, 500, 3), 225, np.uint8)  # a smaller one is looked at whole
    for centre, axes, colour in (
        ((200, 480), (150, 330), (215, 130, 180)),
        ((320, 1550), (130, 380), (205, 120, 185)),
        ((300, 1500), (50, 260), (110, 80, 165)),
    ):
        cv2.ellipse(slide, centre, axes, 10, 0, 360, colour, -1)
    slide = np.clip(slide + random.normal(0, 5, slide.shape), 0, 235).astype(np.uint8)
    for _ in range(260):
        centre = int(random.integers(0, 500)), int(random.integers(0, 2100))
        axes = int(random.integers(3, 9)), int(random.integers(3, 9))
        shade = tuple(int(value) for value in random.integers(240, 255, 3))
        cv2.ellipse(slide, centre, axes, int(random.integers(180)), 0, 360, shade, -1)
    slide[260:2000, 240:246] = 250  # a cell through almost all rows
    path = tmp_path_factory.mktemp("stained") / "slide.tif"
    tifffile.imwrite(path, slide, photometric="rgb", tile=(256, 256))
    return path


#: So that glass is background to a model for which bright is foreground.
LEVELS = (200.0, 255.0)
STAINED = {
    "tissue": {"tissue": "auto"},
    "tissue in regions, averaged": {
        "tissue": "auto",
        "roi": [[(20, 30), (480, 60), (450, 2000)]],
        "blend": "hann",
    },
    "stains": {"stains": "he", "csv": True},
    "stains of the slide": {"stains": "macenko"},
    "a diameter": {"diameter": 14.0, "probabilities": True},
    "a diameter that is found": {"diameter": "auto"},
    "all": {"tissue": "auto", "stains": "macenko", "diameter": 16.0, "expand": 4, "pixel_size": 0.5},
}


@pytest.mark.parametrize("case", STAINED)
def test_what_is_decided_for_the_whole_slide(stained, backend, tmp_path, monkeypatch, case):
    """Tissue, stains and the cells' size are found once and hold for all spans, seams and the last task."""
    known = CellDiameter(median=20.0, low=10.0, high=40.0)
    monkeypatch.setattr(backend, "spec", backend.spec.model_copy(update={"diameter": known}))
    options = SegmentOptions(levels=LEVELS, **STAINED[case])
    one = segment(stained, backend, output=tmp_path / "alone", options=options)
    if "tissue" in STAINED[case]:
        assert 0.1 < one.record.focus.looked_at_part < 0.9
    if "diameter" in STAINED[case]:
        assert one.record.sizing is not None
    for name, span, workers in (("many", 0.07, 3), ("two", 0.6, 2)):
        made = segment_spans(stained, backend, tmp_path / name, options, span=span, workers=workers)
        assert contents(tmp_path / name) == contents(tmp_path / "alone")
        assert made.record.identity() == one.record.identity()
        assert made.record.doubts == one.record.doubts
    assert made.count > 50


def test_a_wide_slide_whose_labels_are_written_apart(backend, tmp_path):
    """Rows of shards and levels belong to several tasks, and the last levels to none of these."""
    pixels = picture(4200, 330, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "slide.tif", pixels, photometric="rgb", tile=(256, 256))
    segment(tmp_path / "slide.tif", backend, output=tmp_path / "alone")
    segment_spans(tmp_path / "slide.tif", backend, tmp_path / "spans", span=0.2, workers=8)
    assert contents(tmp_path / "spans") == contents(tmp_path / "alone")


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 500), st.integers(1, 200)),
    span=st.floats(0.001, 0.05),
    workers=st.integers(1, 9),
    grain=st.integers(1, 40),
)
def test_any_picture_and_any_cut(backend, tmp_path_factory, seed, size, span, workers, grain):
    folder = tmp_path_factory.mktemp("any")
    random = np.random.default_rng(seed)
    height, width = size
    coarse = random.integers(0, 256, (height // grain + 1, width // grain + 1)).astype(np.uint8)
    cv2.imwrite(
        str(folder / "image.png"), np.kron(coarse, np.ones((grain, grain), np.uint8))[:height, :width]
    )
    segment(folder / "image.png", backend, output=folder / "alone")
    segment_spans(folder / "image.png", backend, folder / "spans", span=span, workers=workers)
    assert contents(folder / "spans") == contents(folder / "alone")
    shutil.rmtree(folder)


def test_what_is_whole_is_not_done_again_and_the_rest_is(slide, backend, tmp_path, monkeypatch):
    options = SegmentOptions(resume=True)
    segment(slide, backend, output=tmp_path / "alone", options=options)
    plan = make_plan(str(slide), tmp_path / "out", options, backend, 2, 0.2)
    with SlideCourse(plan) as course:  # left before its end
        for task in course.begin()[:3]:
            course.landed(task, do(task, backend))
    parts = plan.parts
    damaged = parts / "span-000001" / "rows"
    damaged.write_bytes(damaged.read_bytes()[:-40] + bytes(40))
    (parts / "span-000003.0123.part").mkdir()
    done = []

    def counted(*given):
        done.append(given[1])
        return compute_span(*given)

    monkeypatch.setattr(courses, "compute_span", counted)
    result = segment_spans(slide, backend, tmp_path / "out", options, span=0.5)  # as it was cut
    assert done == list(range(plan.spans))
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    rows = [plan.rows[span + 1] - plan.rows[span] for span in (0, 2)]  # 1 was damaged
    assert result.record.resumed_pixels == sum(rows) * 700
    assert not list(tmp_path.glob(".*"))


def test_parts_of_another_run_are_not_mixed_in(slide, backend, tmp_path):
    options = SegmentOptions(resume=True)
    with SlideCourse(make_plan(str(slide), tmp_path / "out", options, backend, 2, 0.2)):
        pass
    other = make_plan(str(slide), tmp_path / "out", options.but(levels=(0, 200)), backend, 2, 0.2)
    with pytest.raises(UsageError, match="was begun with black and white"):
        SlideCourse(other)


def test_an_error_leaves_nothing_behind(slide, backend, tmp_path, monkeypatch):
    def fails(*given):
        raise OutputError("no more room")

    monkeypatch.setattr(courses, "finish_slide", fails)
    with pytest.raises(OutputError, match="no more room"):
        segment_spans(slide, backend, tmp_path / "out", span=0.2)
    assert not list(tmp_path.iterdir())


def test_a_task_may_be_done_twice(slide, backend, tmp_path):
    """As where a worker was taken for dead, and its task given to another one."""
    segment(slide, backend, output=tmp_path / "alone")
    plan = make_plan(str(slide), tmp_path / "out", SegmentOptions(labels="zarr"), backend, 2, 0.2)
    with SlideCourse(plan) as course:
        tasks = course.begin()
        while tasks:
            task = tasks.pop(0)
            do(task, backend)
            tasks += course.landed(task, do(task, backend))
    assert course.result.record.resumed_pixels == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


@settings(max_examples=100, deadline=None)
@given(height=st.integers(1, 300_000), width=st.integers(1, 300_000), workers=st.integers(1, 100))
def test_rows_of_labels_are_whole_shards_of_their_levels(height, width, workers):
    rows, levels = cut_labels(height, width, workers)
    assert rows[0] == 0
    assert rows[-1] == height
    assert all(row % (1024 << (levels - 1)) == 0 for row in rows[:-1])
    assert list(rows) == sorted(set(rows))


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(1, 5000),
    core=st.integers(1, 60),
    halo=st.integers(0, 70),
    blend=st.sampled_from(["none", "hann"]),
    pixels=st.integers(1, 10**6),
)
def test_spans_are_whole_bands(height, core, halo, blend, pixels):
    grid = TileGrid(height, 100, core + 2 * halo, halo)
    bands, rows = cut_bands(grid, blend, pixels)
    assert (bands[0], bands[-1]) == (0, grid.n_bands)
    assert (rows[0], rows[-1]) == (0, height)
    assert all(a < b for a, b in itertools.pairwise(bands))
    assert all(a < b for a, b in itertools.pairwise(rows))


def test_workers_that_compute_otherwise_do_not_share_a_slide(slide, backend, tmp_path, monkeypatch):
    """Where one processor has other arithmetic than the next, cells at seams would depend on who did what."""
    plan = make_plan(str(slide), tmp_path / "out", SegmentOptions(), backend, 2, 0.2)
    monkeypatch.setattr(type(backend), "precision", property(lambda self: "int8+bf16"))
    found = r"in int8\+bf16 on one worker .* precision='fp32'"
    with SlideCourse(plan), pytest.raises(BackendError, match=found):
        compute_span(plan, 0, backend)
    assert not (plan.parts / "span-000000").exists()
