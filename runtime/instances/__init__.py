"""Planes into cells: the model's bytes become numbered, measured and outlined cells."""

from .cells import Cells, Strip
from .stream import Stats
from .strips import InstanceStream, split_planes

__all__ = ["Cells", "InstanceStream", "Stats", "Strip", "split_planes"]
