"""An array as a slide: NumPy, or what loads itself as it is read (Dask, Zarr, Xarray); pictures of PIL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ImageError
from ..geometry.tiling import Region
from .base import Level, Pixels, SlideReader, default_channel_names, readable, select
from .blocks import reason

#: A last axis longer than this is no channel axis where the first one is at most this long.
MOST_CHANNELS = 16
#: Modes of PIL in which the numbers are no grey levels or colours, and what they are turned into.
_PIL_MODES = {"P": "RGB", "PA": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB", "LA": "L"}


def is_array(image: Any) -> bool:
    """Return whether an object is an array, or can be read as one."""
    shaped = hasattr(image, "shape") and hasattr(image, "dtype")
    return shaped or hasattr(image, "__array__") or hasattr(image, "__array_interface__")


class ArrayReader(SlideReader):
    """A picture that is given as an array.

    Parameters
    ----------
    array
        Shape (height, width) or (height, width, channels). One that lies in memory is not copied where its
        type is uint8, uint16 or float32; one that has a shape, a type and slices is read region by region. A
        fourth channel of uint8 that is only 0 and 255 is alpha, and left out, as in files.
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
        array: Any,
        path: Path | str = "array",
        *,
        channel_names: Sequence[str] | None = None,
        pixel_size: float | None = None,
        channels: Sequence[int | str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        path = Path(path)
        pixels = _loaded(path, array)
        count = _count_channels(path, pixels.shape)
        dtype = readable(np.dtype(pixels.dtype), path)
        if channel_names is None and count == 4 and isinstance(pixels, np.ndarray) and _has_alpha(pixels):
            pixels, count = pixels[:, :, :3], 3
            notes = (*notes, "its fourth channel is taken for alpha")
        names = tuple(channel_names or default_channel_names(count, colour=count in (3, 4)))
        self._selection, called = select(names, channels, path)
        if isinstance(pixels, np.ndarray):
            if pixels.dtype == np.bool_:
                pixels = pixels.astype(np.uint8) * 255
            pixels = (pixels if pixels.ndim == 3 else pixels[:, :, None]).astype(dtype, copy=False)
            if self._selection != tuple(range(pixels.shape[2])):
                pixels = np.ascontiguousarray(pixels[:, :, self._selection])
        self._pixels = pixels
        super().__init__(
            path,
            dtype=dtype,
            channel_names=called,
            levels=[Level(int(pixels.shape[0]), int(pixels.shape[1]), 1.0)],
            pixel_size=pixel_size,
            notes=notes,
        )

    def _read(self, region: Region, level: int) -> Pixels:
        rows, columns = slice(region.y, region.y1), slice(region.x, region.x1)
        if isinstance(self._pixels, np.ndarray):
            return self._pixels[rows, columns]
        part = np.asarray(self._pixels[rows, columns])
        if part.dtype == np.bool_:
            part = part.astype(np.uint8) * 255
        part = part if part.ndim == 3 else part[:, :, None]
        return part[:, :, self._selection].astype(self.dtype, copy=False)


def _loaded(path: Path, array: Any) -> Any:
    """Return what can be sliced: the array, where it loads itself as it is read, or its values."""
    mode = getattr(array, "mode", None)
    if isinstance(mode, str) and hasattr(array, "convert"):  # a picture of PIL
        array = array.convert(_PIL_MODES[mode]) if mode in _PIL_MODES else array
    lazy = all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__"))
    if isinstance(array, np.ndarray) or not lazy:
        try:
            return np.asarray(array)
        except Exception as error:  # arrays of other libraries raise what they like
            what = f"{type(error).__name__}: {reason(error)}"
            raise ImageError(f"{path}: cannot be read as an array ({what})") from None
    # Torch has types of its own; and what is labelled by axes is not sliced by place alone.
    return array if isinstance(array.dtype, np.dtype) and not hasattr(array, "iloc") else np.asarray(array)


def _count_channels(path: Path, shape: Sequence[int]) -> int:
    """Return the number of channels of an array of this shape.

    Raises
    ------
    ImageError
        It is no picture; where its channels come first, what to do.
    """
    said = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
    if len(shape) == 2:
        return 1
    if len(shape) == 3 and shape[0] <= MOST_CHANNELS < shape[2]:
        fix = "image[0]" if shape[0] == 1 else "numpy.moveaxis(image, 0, -1)"
        raise ImageError(
            f"{path}: an array of shape {said} has its channels first; give height × width × channels: {fix}"
        )
    if len(shape) != 3:
        raise ImageError(
            f"{path}: an array of shape {said} is not one picture; give height × width or "
            "height × width × channels"
        )
    return int(shape[2])


def _has_alpha(pixels: npt.NDArray[Any]) -> bool:
    """Return whether the fourth channel is that of a cut-out picture: nothing or everything."""
    last = pixels[:, :, 3]
    return pixels.dtype == np.uint8 and bool(((last == 0) | (last == 255)).all()) and bool(last.any())
