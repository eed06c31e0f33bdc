"""Cells of several batches in one table, against sorting with NumPy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.runtime.instances.cells import column_types, image_columns
from cellseg.runtime.kernels.collect import Collector
from cellseg.runtime.kernels.measure import CELL_DTYPE

HEIGHT, WIDTH = 40, 30


def make_batches(places, n_batches, channels, seed):
    """Cells that begin at these (y, x), dealt out to batches, with anything for values."""
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, n_batches, len(places))
    batches = []
    for number in range(n_batches):
        own = [place for place, to in zip(places, owner, strict=True) if to == number]
        if not own:
            continue
        cells = rng.integers(0, 9, len(own)).astype(CELL_DTYPE)
        for name in ("centroid_y", "solidity", "score", "mean_probability"):
            cells[name] = rng.random(len(own))
        cells["y0"], cells["first_x"] = np.array(own).T
        cells["y1"] = cells["y0"] + rng.integers(1, 4, len(own))
        cells["x0"] = cells["first_x"] - rng.integers(0, 2, len(own)) * (cells["first_x"] > 0)
        cells["x1"] = cells["first_x"] + 1
        cells["outline_end"] = np.cumsum(rng.integers(1, 6, len(own)))
        outline = rng.integers(0, 99, (int(cells["outline_end"][-1]), 2)).astype(np.int32)
        numbers = np.zeros(len(own), np.int32)
        batches.append((cells, rng.random((len(own), channels)), outline, numbers))
    return batches


@given(
    st.sets(st.tuples(st.integers(5, HEIGHT - 4), st.integers(0, WIDTH - 1)), max_size=200),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(5, HEIGHT),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=60)
def test_equals_sorting(places, n_batches, channels, frontier, seed):
    batches = make_batches(sorted(places), n_batches, channels, seed)
    wanted = sorted(
        (cell["y0"], cell["first_x"], b, i)
        for b, (cells, *_) in enumerate(batches)
        for i, cell in enumerate(cells)
        if cell["y0"] < frontier
    )
    columns, outline, start = Collector(HEIGHT, WIDTH, image_columns(channels)).take(batches, 5, frontier, 11)
    assert {name: values.dtype for name, values in columns.items()} == {
        name: np.dtype(kind) for name, kind in column_types(channels).items()
    }
    assert len(start) == len(wanted) + 1
    assert len(outline) == start[-1]
    for row, (_, _, b, i) in enumerate(wanted):
        cells, intensity, points, numbers = batches[b]
        assert columns["label"][row] == numbers[i] == 11 + row
        for name in set(CELL_DTYPE.names) & set(columns):
            assert columns[name][row] == cells[i][name]
        assert [columns[f"mean_intensity_{c}"][row] for c in range(channels)] == intensity[i].tolist()
        edges = cells[i]["y1"] == HEIGHT, cells[i]["x0"] == 0, cells[i]["x1"] == WIDTH
        assert columns["touches_border"][row] == any(edges)
        begin = cells[i - 1]["outline_end"] if i else 0
        ring = points[begin : cells[i]["outline_end"]]
        np.testing.assert_array_equal(outline[start[row] : start[row + 1]], ring)
    for cells, _, _, numbers in batches:
        assert ((numbers > 0) == (cells["y0"] < frontier)).all()


def test_numbered_cells_are_left_alone():
    (batch,) = make_batches([(5, 1), (6, 2), (6, 9)], 1, 0, 0)
    collector = Collector(HEIGHT, WIDTH, [])
    assert collector.take([batch], 5, 6, 1)[0]["label"].tolist() == [1]
    assert collector.take([batch], 6, 7, 2)[0]["label"].tolist() == [2, 3]
    assert batch[3].tolist() == [1, 2, 3]
    columns, outline, start = collector.take([batch], 7, 9, 4)
    assert len(columns["label"]) == len(outline) == 0
    assert start.tolist() == [0]
