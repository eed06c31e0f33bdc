"""Where on a slide to look.

A :class:`Focus` answers two questions for a rectangle: whether there is anything to do, and which of its
pixels count. The answer for a pixel is the same whatever rectangle is asked about. This module knows
nothing of tiles or models.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .tiling import Region


def digest_of(arrays: Iterable[npt.NDArray[Any]]) -> str:
    """Return what tells one focus from another, as 64 hexadecimal digits."""
    made = hashlib.sha256()
    for array in arrays:
        made.update(f"{array.shape} ".encode())
        made.update(np.ascontiguousarray(array).data)
    return made.hexdigest()


class Focus(ABC):
    """A part of a slide."""

    @abstractmethod
    def touches(self, region: Region) -> bool:
        """Return whether any pixel of a rectangle counts; ``True`` where that is not certain."""

    @abstractmethod
    def inside(self, region: Region) -> npt.NDArray[np.bool_] | None:
        """Return which pixels count, shape (height, width); ``None`` where all do."""


class Intersection(Focus):
    """What lies in each of several parts of a slide.

    Parameters
    ----------
    parts
        At least one.
    """

    def __init__(self, parts: Sequence[Focus]) -> None:
        self._parts = tuple(parts)

    def touches(self, region: Region) -> bool:
        """Return whether each part and a rectangle overlap."""
        return all(part.touches(region) for part in self._parts)

    def inside(self, region: Region) -> npt.NDArray[np.bool_] | None:
        """Return which pixels lie in all parts; ``None`` where all do."""
        masks = [mask for part in self._parts if (mask := part.inside(region)) is not None]
        return np.logical_and.reduce(masks) if masks else None
