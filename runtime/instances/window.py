"""The rows that components may still need, by address.

Rows of the push in progress are used where they lie; only those still needed afterwards are copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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

    def copy_from(self, y: int) -> _Chunk:
        """Return an own copy of the rows from ``y`` on."""
        skip = y - self.y
        image = None if self.image is None else self.image[skip:].copy()
        return _Chunk(y, [plane[skip:].copy() for plane in self.planes], image, owned=True)


def _row_addresses(arrays: Iterable[NDArray[np.generic]]) -> Addresses:
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
        self.planes = [_row_addresses(chunk.planes[k] for chunk in self._chunks) for k in range(len(planes))]
        if image is not None:
            self.image = _row_addresses(c.image for c in self._chunks if c.image is not None)

    def release(self, y: int) -> None:
        """Forget the rows above ``y``, and own the others."""
        kept = []
        for chunk in self._chunks:
            first = max(y, chunk.y)
            needed = chunk.y + chunk.rows - first
            if needed <= 0:
                continue
            # A chunk of our own is copied again only when that halves it.
            kept.append(chunk if chunk.owned and 2 * needed > chunk.rows else chunk.copy_from(first))
        self._chunks = kept
        self.planes, self.image = [], None
