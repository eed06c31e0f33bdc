"""Buffers that are used again."""

import numpy as np
import pytest

from cellseg.runtime.common.buffers import Recycler


def test_the_smallest_that_fits_is_used_again() -> None:
    recycler = Recycler(3)
    arrays = [recycler.take(size, np.uint8) for size in (1000, 100, 10_000)]
    places = [array.ctypes.data for array in arrays]
    for array in arrays:
        recycler.give(array)
    found = recycler.take((10, 9), np.float64)  # 720 bytes
    assert found.ctypes.data == places[0]
    assert (found.shape, found.dtype) == ((10, 9), np.float64)
    assert recycler.take(90, np.uint8).ctypes.data == places[1]
    assert recycler.take(900, np.uint8).ctypes.data == places[2]
    assert recycler.take(10, np.uint8).ctypes.data not in places


def test_the_largest_are_kept() -> None:
    recycler = Recycler(2)
    arrays = [recycler.take(size, np.uint8) for size in (3000, 1000, 2000)]
    for array in arrays:
        recycler.give(array)
    found = [recycler.take(1, np.uint8).ctypes.data for _ in range(2)]
    assert found == [arrays[2].ctypes.data, arrays[0].ctypes.data]


def test_without_room_nothing_is_kept() -> None:
    recycler = Recycler(0)
    first = recycler.take(64, np.uint8)
    recycler.give(first)
    assert recycler.take(64, np.uint8).ctypes.data != first.ctypes.data


def test_a_part_gives_back_all() -> None:
    recycler = Recycler(1)
    whole = recycler.take((8, 8), np.int32)
    recycler.give(whole[2:3, ::2])
    assert recycler.take((8, 8), np.int32).ctypes.data == whole.ctypes.data


@pytest.mark.parametrize(
    "foreign", [np.frombuffer(b"abcdefgh", np.uint8), np.asfortranarray(np.zeros((4, 4)))]
)
def test_what_cannot_be_used_again_is_left(foreign: np.ndarray) -> None:
    recycler = Recycler(1)
    recycler.give(foreign)
    assert recycler.take(1, np.uint8).ctypes.data != foreign.ctypes.data


def test_nothing_has_no_size() -> None:
    assert Recycler(1).take((0, 5), np.int32).shape == (0, 5)
