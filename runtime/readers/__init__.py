"""Pictures of any size and format behind one interface, :class:`SlideReader`."""

from .array import ArrayReader
from .base import DirectReader, Level, SlideReader
from .open import by_size, open_slide

__all__ = ["ArrayReader", "DirectReader", "Level", "SlideReader", "by_size", "open_slide"]
