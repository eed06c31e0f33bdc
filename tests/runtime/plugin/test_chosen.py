"""Which picture of a layer is segmented, checked on layers as napari has them; napari is not needed."""

from types import SimpleNamespace

import numpy as np
import pytest

from cellseg.runtime.errors import UsageError
from cellseg.runtime.plugin.chosen import chosen_pixels

FLAT = SimpleNamespace(ndim=2, displayed=(0, 1), point=(0.0, 0.0))


def layer(data, *, rgb=False, multiscale=False, scale=(1.0, 1.0), translate=(0.0, 0.0)):
    def world_to_data(point):
        return tuple(np.array(point[-len(scale) :]) / scale)

    return SimpleNamespace(
        name="a", data=data, rgb=rgb, multiscale=multiscale, scale=np.array(scale),
        translate=np.array(translate), world_to_data=world_to_data,
    )  # fmt: skip


def test_a_plane_is_taken_as_it_is():
    pixels = np.arange(12).reshape(3, 4)
    found = chosen_pixels(layer(pixels, scale=(0.5, 0.25), translate=(3, 4)), FLAT)
    assert found.pixels is pixels
    assert (found.scale, found.translate) == ((0.5, 0.25), (3, 4))


def test_of_a_pyramid_the_largest_and_of_colours_all():
    levels = [np.zeros((8, 6, 3)), np.zeros((4, 3, 3))]
    assert chosen_pixels(layer(levels, rgb=True, multiscale=True), FLAT).pixels is levels[0]


@pytest.mark.parametrize(("point", "at"), [((0, 4.2, 0, 0), 2), ((0, 0, 0, 0), 0), ((0, 99, 0, 0), 4)])
def test_of_a_stack_the_plane_that_is_shown(point, at):
    stack = np.random.default_rng(0).random((5, 3, 4))
    dims = SimpleNamespace(ndim=4, displayed=(2, 3), point=point)
    found = chosen_pixels(layer(stack, scale=(2.0, 0.5, 0.5), translate=(0, 0, 0)), dims)
    assert np.array_equal(found.pixels, stack[at])


@pytest.mark.parametrize("displayed", [(0, 1), (2, 1), (0, 1, 2)])
def test_a_stack_from_the_side_is_refused(displayed):
    dims = SimpleNamespace(ndim=3, displayed=displayed, point=(0, 0, 0))
    with pytest.raises(UsageError, match="show it as a plane"):
        chosen_pixels(layer(np.zeros((5, 3, 4)), scale=(1, 1, 1), translate=(0, 0, 0)), dims)
