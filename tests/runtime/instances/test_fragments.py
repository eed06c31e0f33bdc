"""Stretches of an image that are split apart, and what one run over it makes: the same."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.runtime.instances import Cells, InstanceStream
from cellseg.runtime.instances.fragments import FragmentStream, number_parts, place_keys, seam_groups
from cellseg.runtime.kernels.paint import Painter

from .test_stream import HEADS, LEARNED, RULES


def alone(planes, image, rules, **options):
    height, width = planes.shape[1:]
    with InstanceStream(height, width, HEADS, rules, image_channels=image.shape[2], **options) as stream:
        strips = stream.push(planes, image) + stream.finish()
    return (
        np.concatenate([strip.labels for strip in strips]),
        Cells.concatenate([strip.cells for strip in strips]),
        stream.stats,
    )


def part_of(planes, image, rules, rows, seams, part, pushes, options):
    """Run one part, pushed in pieces of some rows from buffers that are overwritten afterwards."""
    height, width = planes.shape[1:]
    fragments = []
    with FragmentStream(
        height,
        width,
        HEADS,
        rules,
        image_channels=image.shape[2],
        rows=rows,
        seams=seams,
        part=part,
        **options,
    ) as stream:
        for y in range(rows[0], rows[1], pushes):
            y1 = min(y + pushes, rows[1])
            buffers = planes[:, y:y1].copy(), image[y:y1].copy()
            fragments += stream.push(*buffers)
            buffers[0][:], buffers[1][:] = 211, 3
        fragments += stream.finish()
    return fragments, stream


def in_spans(planes, image, rules, cuts, pushes=7, **options):
    """Split spans apart, then their seams; put together what they found."""
    height, width = planes.shape[1:]
    bounds = [0, *cuts, height]
    parts, reaches, stats = [], [], []
    for y, y1 in itertools.pairwise(bounds):
        fragments, stream = part_of(planes, image, rules, (y, y1), [y] if y else [], "inner", pushes, options)
        parts.append(fragments)
        reaches.append(stream.reach)
        stats.append(stream.stats)
    for seams, y, y1 in seam_groups(bounds, reaches):
        fragments, stream = part_of(planes, image, rules, (y, y1), seams, "seam", pushes, options)
        parts.append(fragments)
        stats.append(stream.stats)
    keys = [np.concatenate([place_keys(f) for f in part]) for part in parts]
    numbers = number_parts(keys)
    labels = np.empty((height, width), np.int32)
    runs = [
        (fragment.runs, known)
        for part, known in zip(parts, numbers, strict=True)
        for fragment in part
        if len(fragment.runs)
    ]
    Painter(runs).paint(labels, 0)
    cells = Cells.concatenate([fragment.cells for part in parts for fragment in part])
    cells.columns["label"][:] = np.concatenate(numbers)
    return labels, cells, stats


def check(planes, image, rules, cuts, pushes=7, **options):
    labels, cells, stats = alone(planes, image, rules, **options)
    found, others, parts = in_spans(planes, image, rules, cuts, pushes, **options)
    np.testing.assert_array_equal(found, labels)
    order = np.argsort(others.columns["label"])
    for name, values in cells.columns.items():
        np.testing.assert_array_equal(others.columns[name][order], values, name)
    for one, other in enumerate(order):
        np.testing.assert_array_equal(others.ring(other), cells.ring(one))
    for name in ("components", "cells", "dropped", "unmeasured", "holes", "giant"):
        assert sum(getattr(part, name) for part in parts) == getattr(stats, name), name
    return stats, parts


def scenery(seed, height, width, grain, level):
    """Make planes of blobs, from specks to one component everywhere."""
    random = np.random.default_rng(seed)
    coarse = random.random((height // grain + 2, width // grain + 2))
    mask = np.kron(coarse < level, np.ones((grain, grain), bool))[:height, :width]
    mask = mask & (random.random((height, width)) < 0.97)
    planes = np.zeros((2, height, width), np.uint8)
    planes[0] = np.where(
        mask, random.integers(128, 256, (height, width)), random.integers(0, 128, (height, width))
    )
    planes[1] = random.integers(0, 256, (height, width))
    return planes, random.integers(0, 60000, (height, width, 2)).astype(np.uint16)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_cut_makes_what_one_run_makes(data):
    height, width = data.draw(st.integers(2, 60)), data.draw(st.integers(1, 40))
    planes, image = scenery(
        data.draw(st.integers(0, 10**6)),
        height,
        width,
        data.draw(st.integers(1, 6)),
        data.draw(st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0])),
    )
    cuts = sorted(data.draw(st.sets(st.integers(1, height - 1), max_size=8)))
    bounds = {
        "max_rows": data.draw(st.sampled_from([1, 2, 5, 8, 16, 512])),
        "max_columns": data.draw(st.sampled_from([3, 16, 4096])),
        "connectivity": data.draw(st.sampled_from([4, 8])),
    }
    rules = data.draw(st.sampled_from([RULES, LEARNED]))
    check(planes, image, rules, cuts, data.draw(st.integers(1, 30)), **bounds)


def test_a_component_through_every_span():
    planes, image = scenery(1, 96, 40, 4, 1.0)
    stats, parts = check(planes, image, RULES, list(range(8, 96, 8)), max_rows=16)
    assert stats.giant > 0  # it is so high that its cells leave it in the middle of spans
    assert [part.components for part in parts] == [0] * 12 + [stats.components]


def test_a_cell_over_three_spans():
    planes, image = np.zeros((2, 30, 20), np.uint8), np.ones((30, 20, 1), np.float32)
    planes[0, 4:26, 6:13] = 255
    stats, parts = check(planes, image, RULES, [10, 20])
    assert [part.cells for part in parts] == [0, 0, 0, 1]
    assert stats.cells == 1


def test_an_arm_that_loses_cells_before_it_meets_the_seam():
    """It is the span's until then, and the seam's from there on: nothing is found twice."""
    planes, image = np.zeros((2, 64, 40), np.uint8), np.ones((64, 40, 1), np.uint8)
    planes[0, :, 4:12] = 255  # through both spans
    planes[0, 20:60, 20:28] = 255  # begins below the seam at 16
    planes[0, 52:60, 12:20] = 255  # and meets the other one near its end
    planes[0, ::6] = 120  # no more than a hair between cells
    planes[0, ::6, 5] = planes[0, ::6, 22] = 130
    _, parts = check(planes, image, RULES, [16, 48], max_rows=8)
    assert parts[1].giant > 0
    assert parts[-1].giant > 0


@pytest.mark.parametrize("cuts", [[10], [9, 10, 11], list(range(1, 30))])
def test_spans_that_hold_nothing(cuts):
    planes, image = np.zeros((2, 30, 20), np.uint8), np.zeros((30, 20, 1), np.uint8)
    check(planes, image, RULES, cuts)
    planes[0, 9, 3:7] = 255  # the row above a seam, and the one below it
    planes[0, 10, 12:17] = 255
    check(planes, image, RULES, cuts)


def test_a_span_without_an_open_component_leaves_nothing_to_do():
    planes, image = np.zeros((2, 30, 20), np.uint8), np.zeros((30, 20, 1), np.uint8)
    planes[0, 2:8, 3:9] = planes[0, 12:18, 3:9] = 255
    _, _, parts = in_spans(planes, image, RULES, [10, 20])
    assert len(parts) == 3


def test_a_last_row_that_is_a_span():
    planes, image = np.zeros((2, 9, 12), np.uint8), np.zeros((9, 12, 1), np.uint8)
    planes[0, 8, 2:7] = 255
    check(planes, image, RULES, [8])
