import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.runtime.errors import UsageError
from cellseg.runtime.view.scene import Scene
from cellseg.runtime.view.style import Style
from cellseg.runtime.view.tiles import TILE, Painter, place, zooms


@pytest.fixture
def scene(finished):
    with Scene(finished) as opened:
        yield opened


class Sized:
    """What :func:`place` wants to know of a scene."""

    def __init__(self, height, width):
        self.height, self.width = height, width


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.data())
def test_tiles_of_a_zoom_partition_the_picture(height, width, data):
    last = zooms(height, width)
    assert 2 ** max(last - 1, 0) <= max(height, width) <= 2**last
    zoom = data.draw(st.integers(max(0, last - 9), last))
    step = 1 << (last - zoom)
    scene = Sized(height, width)
    x = y = 0
    for row in range(-(-height // (TILE * step))):
        region, found = place(scene, zoom, 0, row)
        assert found == step
        assert region.y == y
        y = region.y1
    for column in range(-(-width // (TILE * step))):
        region, _ = place(scene, zoom, column, 0)
        assert region.x == x
        x = region.x1
    assert (y, x) == (height, width)


@pytest.mark.parametrize(
    ("zoom", "column", "row"), [(12, 0, 0), (-1, 0, 0), (11, 3, 0), (11, 0, 2), (11, -1, 0)]
)
def test_no_such_tile(scene, zoom, column, row):
    with pytest.raises(UsageError):
        place(scene, zoom, column, row)


@pytest.mark.parametrize("zoom", [0, 7, 9, 10, 11])
def test_cells_of_all_tiles_are_the_picture_drawn_whole(scene, zoom):
    painter = Painter()
    step = 1 << (11 - zoom)
    height, width = -(-scene.height // step), -(-scene.width // step)
    whole = np.zeros((height, width, 4), np.uint8)
    for row in range(-(-height // TILE)):
        for column in range(-(-width // TILE)):
            data = painter.cells(scene, zoom, column, row, Style(fill=0.5))
            tile = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            whole[row * TILE :, column * TILE :][: tile.shape[0], : tile.shape[1]] = tile
    labels = np.pad(scene.labels_at(0, 0, height, width, step), 1)
    assert np.array_equal(whole[:, :, 3] > 0, labels[1:-1, 1:-1] > 0)
    middle = labels[1:-1, 1:-1]
    edge = (middle != labels[:-2, 1:-1]) | (middle != labels[2:, 1:-1])
    edge |= (middle != labels[1:-1, :-2]) | (middle != labels[1:-1, 2:])
    assert set(whole[(middle > 0) & edge, 3]) <= {255}
    assert set(whole[(middle > 0) & ~edge, 3]) <= {128}


def test_picture_and_plane_are_pictures(scene):
    painter = Painter()
    picture = cv2.imdecode(np.frombuffer(painter.picture(scene, 11, 1, 1), np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (388, 512, 3)
    plane = cv2.imdecode(
        np.frombuffer(painter.plane(scene, "mask", 10, 0, 0), np.uint8), cv2.IMREAD_UNCHANGED
    )
    assert plane.shape == (450, 512, 4)
    assert painter.plane(scene, "nothing", 10, 0, 0) is None
