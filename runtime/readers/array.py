"""An array in memory as a slide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ImageError
from ..geometry.tiling import Region
from .base import Level, Pixels, SlideReader, default_channel_names, readable, select


class ArrayReader(SlideReader):
    """A picture that already lies in memory.

    Parameters
    ----------
    array
        Shape (height, width) or (height, width, channels). Not copied where its type is uint8,
        uint16 or float32.
    path
        A name for messages and for the output folder.
    channel_names
        One name for each channel; by default colours for three channels, numbers otherwise.
    pixel_size
        Micrometres a pixel.
    channels
        Names or numbers of the channels to keep.
    notes
        Choices made on the way to this array.

    Raises
    ------
    ImageError
        The array is not a picture.
    """

    def __init__(
        self,
        array: npt.NDArray[Any],
        path: Path | str = "array",
        *,
        channel_names: Sequence[str] | None = None,
        pixel_size: float | None = None,
        channels: Sequence[int | str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        path = Path(path)
        pixels = np.asarray(array)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if pixels.ndim != 3:
            raise ImageError(
                f"{path}: an array of shape {pixels.shape} is not one picture; give height × width "
                "or height × width × channels"
            )
        dtype = readable(pixels.dtype, path)
        if pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8) * 255
        self._pixels = pixels.astype(dtype, copy=False)
        count = pixels.shape[2]
        names = tuple(channel_names or default_channel_names(count, colour=count in (3, 4)))
        chosen, called = select(names, channels, path)
        if chosen != tuple(range(count)):
            self._pixels = np.ascontiguousarray(self._pixels[:, :, chosen])
        super().__init__(
            path,
            dtype=dtype,
            channel_names=called,
            levels=[Level(pixels.shape[0], pixels.shape[1], 1.0)],
            pixel_size=pixel_size,
            notes=notes,
        )

    def _read(self, region: Region, level: int) -> Pixels:
        return self._pixels[region.y : region.y1, region.x : region.x1]
