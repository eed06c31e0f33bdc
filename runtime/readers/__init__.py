"""Pictures of any size and format behind one interface, :class:`SlideReader`."""

from .array import ArrayReader
from .base import Level, SlideReader
from .open import open_slide

__all__ = ["ArrayReader", "Level", "SlideReader", "open_slide"]
