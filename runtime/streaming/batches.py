"""Batches on their way through the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..backends import Pending
from ..geometry.tiling import Tile
from .bands import BandRows


@dataclass(slots=True)
class Slot:
    """A batch and the planes it becomes."""

    batch: NDArray[np.uint8]
    planes: NDArray[np.uint8]


@dataclass(slots=True)
class Flight:
    """A batch on its way through the engine; its tiles may belong to several bands."""

    #: ``None`` while there is no tile in it.
    slot: Slot | None = None
    #: Tiles of one band each, and whether the band has no more after these.
    parts: list[tuple[BandRows, list[Tile], bool]] = field(default_factory=list)
    count: int = 0
    pending: Pending | None = None
