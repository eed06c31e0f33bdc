import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from cellseg.runtime.kernels.label import HELD_DTYPE, RunLabeler
from cellseg.runtime.kernels.paint import label_image

SQUARE = np.ones((3, 3), int)

masks = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 24), st.integers(1, 150)),
    elements=st.sampled_from([0, 0, 100, 128, 255]),
    fill=st.sampled_from([0, 255]),
)


def addresses(mask):
    return np.uintp(mask.ctypes.data) + np.arange(len(mask), dtype=np.uintp) * np.uintp(mask.strides[0])


@given(masks, st.sampled_from([4, 8]), st.sampled_from([1, 101, 128, 129, 255]))
@settings(deadline=None, max_examples=300)
def test_labels_equal_scipy(mask, connectivity, threshold):
    labels, count = label_image(mask, threshold, connectivity)
    wanted, wanted_count = ndimage.label(mask >= threshold, SQUARE if connectivity == 8 else None)
    assert count == wanted_count
    np.testing.assert_array_equal(labels, wanted)


@pytest.mark.parametrize("density", [0.02, 0.3, 0.5, 0.7, 0.98])
@pytest.mark.parametrize("width", [63, 64, 65, 1000])
def test_noise_of_any_density(density, width):
    mask = (np.random.default_rng(width).random((200, width)) < density).astype(np.uint8)
    labels, count = label_image(mask)
    wanted, wanted_count = ndimage.label(mask, SQUARE)
    assert count == wanted_count
    np.testing.assert_array_equal(labels, wanted)


def test_threshold_zero_takes_everything_and_no_more():
    labels, count = label_image(np.zeros((3, 70), np.uint8), 0)
    assert count == 1
    assert labels.all()


@given(masks, st.sampled_from([4, 8]), st.data())
@settings(deadline=None, max_examples=200)
def test_streaming_hands_out_each_component_once_it_is_finished(mask, connectivity, data):
    structure = SQUARE if connectivity == 8 else None
    wanted, count = ndimage.label(mask >= 128, structure)
    boxes = ndimage.find_objects(wanted)
    labeler = RunLabeler(mask.shape[1], 128, connectivity)
    seen = np.zeros(mask.shape, np.int32)
    found = 0
    y = 0
    while y < len(mask):
        rows = data.draw(st.integers(1, len(mask) - y))
        labeler.push(addresses(mask[y : y + rows]))
        y += rows
        components, runs = labeler.take(y == len(mask))
        for component in components:
            own = runs[component["run_begin"] : component["run_end"]]
            found += 1
            for row, x0, x1 in own:
                assert (seen[row, x0:x1] == 0).all()
                seen[row, x0:x1] = found
            number = wanted[own[0]["y"], own[0]["x0"]]
            box = boxes[number - 1]
            assert [component[k] for k in ("y0", "x0", "y1", "x1")] == [
                box[0].start, box[1].start, box[0].stop, box[1].stop,
            ]  # fmt: skip
            background = np.pad(wanted[box] != number, 1, constant_values=True)
            _, regions = ndimage.label(background, None if connectivity == 8 else SQUARE)
            assert component["holes"] == regions - 1
        open_rows = [box[0].start for box in boxes if box[0].start < y <= box[0].stop and y < len(mask)]
        assert labeler.oldest == min(open_rows, default=y)
    assert found == count
    # the same components, in whatever order they were finished
    assert len(np.unique(seen[seen > 0])) == count
    assert len(np.unique(np.stack([seen, wanted]).reshape(2, -1), axis=1).T) == count + (seen == 0).any()


def test_borrowed_components_come_back_smaller():
    mask = np.zeros((6, 10), np.uint8)
    mask[:, 1:4] = 255
    mask[:, 6:8] = 255
    labeler = RunLabeler(10, 1)
    labeler.push(addresses(mask[:4]))
    assert len(labeler.take()[0]) == 0
    components, runs = labeler.borrow(0)
    assert len(components) == 2
    assert len(runs) == 8
    # the first keeps its last row only, the second nothing
    labeler.give_back(np.array([(0, 3, 1, 4, 0)], HELD_DTYPE))
    assert labeler.oldest == 3
    labeler.push(addresses(mask[4:]))
    components, runs = labeler.take(True)
    assert components.tolist() == [(0, 3, 3, 1, 6, 4, -1, 0), (3, 5, 4, 6, 6, 8, -1, 0)]
    assert runs.tolist() == [(3, 1, 4), (4, 1, 4), (5, 1, 4), (4, 6, 8), (5, 6, 8)]


def test_a_long_stream_forgets_what_is_finished():
    """Garbage collection of runs while a component stays open."""
    rng = np.random.default_rng(0)
    labeler = RunLabeler(64, 1)
    mask = (rng.random((3000, 64)) < 0.3).astype(np.uint8)
    mask[:, 0] = 1
    mask[:, 1] = 0
    total = 0
    for y in range(0, 3000, 10):
        labeler.push(addresses(mask[y : y + 10]))
        components, runs = labeler.take(y == 2990)
        total += int((runs["x1"] - runs["x0"]).sum())
        assert len(runs) == (components["run_end"] - components["run_begin"]).sum()
    assert total == mask.sum()


def test_marks_stay_with_what_a_component_grows_to():
    mask = np.zeros((6, 12), np.uint8)
    mask[1:5, 1] = mask[2:5, 4] = mask[4, 1:5] = 255  # an arm that begins in row 2 and is met in row 4
    mask[2:, 9] = 255
    labeler = RunLabeler(12, 1, first=100)
    labeler.push(addresses(mask[:2]))
    labeler.mark()
    assert labeler.outlook() == (102, 102, 1, 100)
    labeler.push(addresses(mask[2:4]))
    components, _ = labeler.take()
    assert len(components) == 0
    assert labeler.outlook() == (102, 102, 1, 100)
    labeler.push(addresses(mask[4:]))
    components, _ = labeler.take()
    assert components[["y0", "y1", "marked"]].tolist() == [(101, 105, 1)]
    assert labeler.outlook() == (102, 102, 0, 105)  # the one at column 9, which has no mark
    labeler.borrow(200)
    labeler.give_back(np.empty(0, HELD_DTYPE))
    assert labeler.outlook() == (102, 106, 0, 105)  # what is left of it, and where it began
