"""Pictures for people: raw values of any type and channel count as 8-bit colours.

What a model sees is decided in :mod:`.normalization`; this is only for looking at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .normalization import Normalization, measure

#: Colours that stand for channels where there are not one or three of them.
CHANNEL_COLOURS = (
    (0.25, 0.45, 1),
    (0.2, 1, 0.35),
    (1, 0.25, 0.2),
    (1, 0.85, 0.2),
    (1, 0.3, 0.9),
    (0.3, 1, 1),
)


@dataclass(frozen=True, slots=True)
class Display:
    """How a picture is shown, the same for each part of it.

    8-bit colours stay as they are; all else has its contrast stretched by the percentiles of
    :mod:`cellseg.runtime.intensity.normalization`, several channels as colours that add up.
    """

    #: One mapping for all channels together, or one for each; none where bytes are shown as they are.
    mappings: tuple[Normalization, ...]

    @classmethod
    def of(cls, sample: NDArray[Any]) -> Display:
        """Measure it on pixels of the picture, shape (h, w, channels)."""
        count = sample.shape[2]
        if count == 3 and sample.dtype == np.uint8:
            return cls(())
        if count in (1, 3):
            return cls((measure(sample),))
        return cls(tuple(measure(sample[:, :, channel]) for channel in range(count)))

    def apply(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """Return raw pixels, shape (h, w, channels), as red, green and blue: uint8, shape (h, w, 3)."""
        if not self.mappings:
            return np.ascontiguousarray(pixels)
        if len(self.mappings) == 1:
            stretched = self.mappings[0].apply(pixels)
            if pixels.shape[2] == 3:
                return np.ascontiguousarray(stretched)
            return np.asarray(cv2.cvtColor(stretched, cv2.COLOR_GRAY2RGB), np.uint8)
        mixed = np.zeros((*pixels.shape[:2], 3), np.float32)
        for channel, mapping in enumerate(self.mappings):
            colour = np.array(CHANNEL_COLOURS[channel % len(CHANNEL_COLOURS)], np.float32)
            mixed += mapping.apply(pixels[:, :, channel])[:, :, None] * colour
        return np.clip(mixed, 0, 255).astype(np.uint8)
