"""What is measured of cells beyond their shape and brightness: stains, rings, classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from ..common.spelling import option
from ..errors import UsageError
from ..instances.expansion import FARTHEST
from ..intensity.classes import Classes, choose_classes
from ..intensity.estimate import choose_stains
from ..intensity.stains import Stains
from ..options import SegmentOptions
from ..readers import SlideReader
from .classes import ClassCounter


@dataclass(frozen=True, slots=True)
class Measures:
    """What is measured of the cells of a slide.

    Attributes
    ----------
    stains, note
        Whose optical densities, and what the user should know of that.
    expand
        How far cells reach from their nuclei, in micrometres; ``None``: nuclei only.
    classes
        How cells are told positive.
    """

    stains: Stains | None = None
    note: str | None = None
    expand: float | None = None
    classes: Classes | None = None

    def counter(self) -> ClassCounter | None:
        """Return what tells cells positive and counts them."""
        return None if self.classes is None else ClassCounter(self.classes)

    @classmethod
    def choose(cls, slide: SlideReader, options: SegmentOptions, pixel_size: float | None) -> Self:
        """Find out what the options mean for a slide.

        Raises
        ------
        UsageError
            They do not fit it.
        """
        path, rule = slide.location, options.positive
        assert not isinstance(rule, str)  # it was read when the options were made
        if options.expand is not None and pixel_size is None:
            raise UsageError(
                f"{path}: {option('expand', options.expand)} is in micrometres, and the image does not say "
                f"how large a pixel is; give it with {option('pixel_size')}"
            )
        if rule is not None and rule.part != "nucleus" and options.expand is None:
            raise UsageError(
                f"{option('positive', str(rule))}: nuclei have a {rule.part} only when they are grown into "
                f"cells; say by how many micrometres, for example {option('expand', 5)}"
            )
        names = slide.channel_names
        stains, note = choose_stains(options.stains, names, slide.dtype, path, slide.sample)
        return cls(stains, note, options.expand, choose_classes(rule, names, stains, path))

    def distance(self, slide: SlideReader, seen: SlideReader, pixel_size: float | None) -> float | None:
        """Return how far cells reach in pixels of the picture that is seen, which may be at another scale.

        Raises
        ------
        UsageError
            It is less than one pixel, or more than can be.
        """
        if self.expand is None or pixel_size is None:
            return None
        found = self.expand / (pixel_size * math.sqrt(slide.height * slide.width / seen.height / seen.width))
        if not 1 <= found <= FARTHEST:
            raise UsageError(
                f"{slide.location}: {option('expand', self.expand)} is {found:.3g} pixels of "
                f"{self.expand / found:.3g} µm; wanted 1 to {FARTHEST} pixels"
            )
        return found
