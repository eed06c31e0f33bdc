"""Buffers that are used again instead of being freed and allocated again.

Fresh memory is not free: the system clears each page when it is touched first, which took 40 % of the
processor time outside the engine. Stages that make large arrays all the time keep them instead.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: What a new buffer has more than it needs, as a part: the next array may be a little larger.
SPARE = 0.25


class Recycler:
    """Hands out arrays whose memory comes back as soon as nothing refers to them or to a part of them.

    It may be used from several threads at once.

    Parameters
    ----------
    keep
        Free buffers that are kept at most, the largest ones: as many as are in use at once.

    Examples
    --------
    >>> recycler = Recycler(1)
    >>> first = recycler.take((3, 4), np.int32)
    >>> part, address = first[:1], first.ctypes.data
    >>> del first, part
    >>> recycler.take((2, 2), np.float64).ctypes.data == address
    True
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._free: list[NDArray[np.uint8]] = []  # by size
        # What has come back since; buffers come at any time, also while the lock is held.
        self._returned: deque[NDArray[np.uint8]] = deque(maxlen=None if keep else 0)
        self._lock = threading.Lock()

    def take(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array that holds anything."""
        wanted = np.dtype(dtype)
        size = math.prod((shape,) if isinstance(shape, int) else shape) * wanted.itemsize
        with self._lock:
            while self._returned:
                self._free.append(self._returned.popleft())
            self._free.sort(key=len)
            del self._free[: max(0, len(self._free) - self._keep)]
            place = next((i for i, buffer in enumerate(self._free) if len(buffer) >= size), None)
            buffer = None if place is None else self._free.pop(place)
        if buffer is None:
            buffer = np.empty(size + int(SPARE * size), np.uint8)
        loan: NDArray[np.uint8] = np.asarray(_Loan(buffer, self._returned))
        return loan[:size].view(wanted).reshape(shape)


class _Loan:
    """What owns the memory of an array that was handed out; it gives the buffer back when it goes."""

    __slots__ = ("__array_interface__", "_buffer", "_returned")

    def __init__(self, buffer: NDArray[np.uint8], returned: deque[NDArray[np.uint8]]) -> None:
        self._buffer = buffer
        self._returned = returned
        self.__array_interface__ = buffer.__array_interface__

    def __del__(self) -> None:
        self._returned.append(self._buffer)
