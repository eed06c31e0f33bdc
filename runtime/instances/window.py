"""The rows that components may still need, by address.

Rows of the push in progress are used where they lie; only those still needed afterwards are copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.buffers import Recycler

#: Buffers of rows that wait to be used again: the planes and the image of two chunks.
BUFFERS = 8

Addresses = NDArray[np.uintp]


@dataclass(slots=True)
class _Chunk:
    """Consecutive rows: planes (rows, W) and the image (rows, W, C)."""

    y: int
    planes: list[NDArray[np.uint8]]
    image: NDArray[np.generic] | None
    owned: bool

    @property
    def rows(self) -> int:
        return len(self.planes[0])

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """All that it holds."""
        return [*self.planes, *([] if self.image is None else [self.image])]

    def copy_from(self, y: int, buffers: Recycler) -> _Chunk:
        """Return a copy of the rows from ``y`` on, in buffers of our own."""
        copies = []
        for array in self.arrays:
            rows = array[y - self.y :]
            copies.append(buffers.take(rows.shape, rows.dtype))
            copies[-1][...] = rows
        image = None if self.image is None else copies.pop()
        return _Chunk(y, copies, image, owned=True)


def row_addresses(arrays: Iterable[NDArray[np.generic]]) -> Addresses:
    """Return the address of each row (first axis) of all arrays."""
    return np.concatenate(
        [
            np.uintp(array.ctypes.data) + np.arange(len(array), dtype=np.uintp) * np.uintp(array.strides[0])
            for array in arrays
        ]
    )


class RowWindow:
    """A sliding window of rows of planes and of the image.

    Attributes
    ----------
    planes
        Addresses of the rows of each plane, from row :attr:`y` on; valid until :meth:`release`.
    image
        The same of the image, where there is one.
    """

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []
        self._buffers = Recycler(BUFFERS)
        self.planes: list[Addresses] = []
        self.image: Addresses | None = None

    @property
    def y(self) -> int:
        """First row held; 0 while the window is empty."""
        return self._chunks[0].y if self._chunks else 0

    def append(self, y: int, planes: Sequence[NDArray[np.uint8]], image: NDArray[np.generic] | None) -> None:
        """Add rows without copying them; they must live and not change until :meth:`release`.

        Parameters
        ----------
        y
            First of the rows, which follow on those held.
        planes
            The same number each time, each of shape (rows, W).
        image
            Shape (rows, W, C), or ``None`` each time.
        """
        own_planes = [
            plane if plane[:1].flags.c_contiguous else np.ascontiguousarray(plane) for plane in planes
        ]
        if image is not None and not image[:1].flags.c_contiguous:
            image = np.ascontiguousarray(image)
        self._chunks.append(_Chunk(y, own_planes, image, owned=False))
        self.planes = [row_addresses(chunk.planes[k] for chunk in self._chunks) for k in range(len(planes))]
        if image is not None:
            self.image = row_addresses(c.image for c in self._chunks if c.image is not None)

    def release(self, y: int) -> None:
        """Forget the rows above ``y``, and own the others."""
        kept = []
        for chunk in self._chunks:
            first = max(y, chunk.y)
            needed = chunk.y + chunk.rows - first
            # A chunk of our own is copied again only when that halves it.
            if chunk.owned and 2 * needed > chunk.rows:
                kept.append(chunk)
                continue
            if needed > 0:
                kept.append(chunk.copy_from(first, self._buffers))
        self._chunks = kept
        self.planes, self.image = [], None
