"""Buffers that are used again."""

import threading

import numpy as np

from cellseg.runtime.common.buffers import Recycler


def test_the_smallest_that_fits_is_used_again() -> None:
    recycler = Recycler(3)
    arrays = [recycler.take(size, np.uint8) for size in (1000, 100, 10_000)]
    places = [array.ctypes.data for array in arrays]
    arrays.clear()
    found = recycler.take((10, 9), np.float64)  # 720 bytes
    assert found.ctypes.data == places[0]
    assert (found.shape, found.dtype) == ((10, 9), np.float64)
    held = [recycler.take(size, np.uint8) for size in (90, 900, 10)]
    assert [array.ctypes.data for array in held[:2]] == places[1:]
    assert held[2].ctypes.data not in places


def test_the_largest_are_kept() -> None:
    recycler = Recycler(2)
    arrays = [recycler.take(size, np.uint8) for size in (1000, 3000, 2000)]
    places = [array.ctypes.data for array in arrays]
    arrays.clear()
    held = [recycler.take(1, np.uint8) for _ in range(2)]
    assert [array.ctypes.data for array in held] == [places[2], places[1]]


def test_without_room_nothing_is_kept() -> None:
    recycler = Recycler(0)
    recycler.take(64, np.uint8)[:] = 1
    assert not recycler._returned
    assert not recycler._free


def test_a_part_holds_all() -> None:
    recycler = Recycler(1)
    whole = recycler.take((8, 8), np.int32)
    whole[:] = np.arange(64).reshape(8, 8)
    part, address = whole[2:3, ::2], whole.ctypes.data
    view = memoryview(whole[3:])
    del whole
    assert recycler.take((8, 8), np.int32).ctypes.data != address
    assert part.tolist() == [[16, 18, 20, 22]]
    del part
    assert recycler.take((8, 8), np.int32).ctypes.data != address
    view.release()
    del view
    found = [recycler.take((8, 8), np.int32) for _ in range(2)]
    assert address in [array.ctypes.data for array in found]


def test_nobody_writes_where_another_reads() -> None:
    """Arrays that are handed from thread to thread hold what was put into them, however they are dropped."""
    recycler = Recycler(4)
    wrong = []

    def work(number: int) -> None:
        for turn in range(300):
            array = recycler.take(50 + turn % 7, np.int64)
            array[:] = number
            part = array[::3]
            del array
            if (part != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_has_no_size() -> None:
    assert Recycler(1).take((0, 5), np.int32).shape == (0, 5)
