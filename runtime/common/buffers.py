"""Buffers that are used again instead of being freed and allocated again.

Fresh memory is not free: the system clears each page when it is touched first, which took 40 % of the
processor time outside the engine. Stages that make large arrays all the time keep them instead.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: What a new buffer has more than it needs, as a part: the next array may be a little larger.
SPARE = 0.25


class Recycler:
    """Hands out arrays, and takes them back for later ones of any shape and type.

    It may be used from several threads at once.

    Parameters
    ----------
    keep
        Buffers that are kept at most, the largest ones: as many as are in use at once.

    Examples
    --------
    >>> recycler = Recycler(1)
    >>> first = recycler.take((3, 4), np.int32)
    >>> address = first.ctypes.data
    >>> recycler.give(first)
    >>> recycler.take((2, 2), np.float64).ctypes.data == address
    True
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._free: list[NDArray[np.uint8]] = []  # by size
        self._lock = threading.Lock()

    def take(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array that holds anything."""
        wanted = np.dtype(dtype)
        size = math.prod((shape,) if isinstance(shape, int) else shape) * wanted.itemsize
        with self._lock:
            place = next((i for i, buffer in enumerate(self._free) if len(buffer) >= size), None)
            buffer = None if place is None else self._free.pop(place)
        if buffer is None:
            buffer = np.empty(size + int(SPARE * size), np.uint8)
        return buffer[:size].view(wanted).reshape(shape)

    def give(self, array: NDArray[Any]) -> None:
        """Take back an array, which nobody may use any more; one from elsewhere will do too.

        A part of an array gives back all of it.
        """
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if owner.base is not None or not owner.flags.writeable or not owner.flags.c_contiguous:
            return
        with self._lock:
            self._free.append(owner.reshape(-1).view(np.uint8))
            self._free.sort(key=len)
            del self._free[: max(0, len(self._free) - self._keep)]
