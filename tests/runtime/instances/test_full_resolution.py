"""Cells found at another scale come back to their place on the slide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.runtime.instances import Cells
from cellseg.runtime.instances.full_resolution import FullResolution, edges, ring_areas, sources
from cellseg.runtime.testing.writers import Scene, cut, scene


def mapped(given_scene, mapping, rows):
    strips = [mapping.strip(strip) for strip in cut(given_scene, rows)]
    assert [strip.y for strip in strips] == [0, *np.cumsum([len(s.labels) for s in strips])[:-1]]
    labels = np.concatenate([strip.labels for strip in strips])
    return labels, Cells.concatenate([strip.cells for strip in strips])


@given(size=st.integers(1, 300), full=st.integers(1, 300))
def test_lines_and_pixels_agree(size, full):
    lines = edges(np.arange(size + 1), size, full)
    assert lines[0] == 0
    assert lines[-1] == full
    wanted = np.repeat(np.arange(size), np.diff(lines))
    assert np.array_equal(sources(np.arange(full), size, full), wanted)


@pytest.mark.parametrize("factor", [1.0, 1.37, 2.0, 3.3])
def test_labels_outlines_and_table_agree(factor):
    small = scene(150, 210, discs=25)
    mapping = FullResolution(150, 210, round(150 * factor), round(210 * factor))
    labels, cells = mapped(small, mapping, [40, 1, 60])
    assert labels.shape == (mapping.full_height, mapping.full_width)
    assert np.array_equal(labels, mapped(small, mapping, [])[0])
    for i in range(len(cells)):
        values = {name: column[i] for name, column in cells.columns.items()}
        own = labels == values["label"]
        y, x = np.nonzero(own)
        assert (y.min(), x.min(), y.max() + 1, x.max() + 1) == tuple(
            values[k] for k in ("y0", "x0", "y1", "x1")
        )
        assert values["area"] == own.sum()
        assert ring_areas(cells.ring(i), np.array([0, len(cells.ring(i))]))[0] == own.sum()
        assert abs(values["centroid_y"] - y.mean()) < 0.6
        assert abs(values["centroid_x"] - x.mean()) < 0.6


def test_enlarged_for_the_model():
    """A slide coarser than the model: outlines run between its pixels."""
    large = scene(300, 420, discs=25)
    mapping = FullResolution(300, 420, 150, 210)
    labels, cells = mapped(large, mapping, [7] * 42)
    assert labels.shape == (150, 210)
    assert cells.outline.dtype.kind == "f"
    assert np.allclose(cells.outline * 2, large.cells.outline)
    for i in range(len(cells)):
        own = labels == i + 1
        assert abs(cells.columns["area"][i] - own.sum()) <= 0.25 * cells.columns["perimeter"][i] + 2
        assert cells.columns["area"][i] == pytest.approx(large.cells.columns["area"][i] / 4, abs=1)


@given(
    sizes=st.tuples(*[st.integers(1, 90)] * 4),
    rows=st.lists(st.integers(1, 30), max_size=6),
)
@settings(max_examples=30, deadline=None)
def test_any_size_in_any_strips(sizes, rows):
    height, width, full_height, full_width = sizes
    labels = np.random.default_rng(0).integers(0, 9, (height, width)).astype(np.int32)
    found = mapped(
        Scene(labels, Cells.empty(), ()), FullResolution(height, width, full_height, full_width), rows
    )[0]
    y = (np.arange(full_height) * 2 + 1) * height // (2 * full_height)
    x = (np.arange(full_width) * 2 + 1) * width // (2 * full_width)
    assert np.array_equal(found, labels[np.ix_(y, x)])
