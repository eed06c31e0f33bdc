"""How a slide's raw values become the bytes that every model takes.

The mapping is measured once per slide and is the same for each of its pixels: a mapping per tile
would make neighbouring tiles disagree along their seam. Training and the runtime share this module,
so a network sees in production what it saw while learning. The arithmetic here is the plain NumPy
reference; :mod:`cellseg.runtime.kernels.gather` does the same on the fly. This module knows nothing of
files, tiles or models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError

#: The value types a slide may have.
DTYPES = ("uint8", "uint16", "float32")
#: The percentiles of all values of a slide that map to byte 0 and byte 255.
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.8
#: The narrowest span that is stretched to 0…255, as a fraction of the full scale (uint8) or of the
#: brightest value (uint16, float32, whose full scale says nothing of the exposure).
MINIMUM_SPAN = 8 / 255
#: The narrowest span of a 16-bit slide in grey levels: below it lies camera noise.
MINIMUM_SPAN_16 = 64.0
#: A percentile lies in the ground where it is less than this many times as far from the median as the
#: percentile on the other side: of noise alone the 99.8th is 1.1 times as far as the 0.5th.
IN_THE_GROUND = 2.0
#: What stands out of the ground is this many times as far from the median, where most of the pixels about it
#: do so too: hot pixels have no company.
STANDS_OUT = 3.0
#: Fewest values that stand out: those of one small nucleus.
FEWEST = 40
#: Percentile of what stands out that takes the place of the one that lies in the ground.
WITHIN = 90.0
#: Values that are counted at once: OpenCV counts in float32, which is exact up to 2²⁴.
COUNTED = 1 << 22
#: Red, green and blue parts of luma (ITU-R BT.601), in 1/65536; they sum to 65536.
LUMA = (19595, 38470, 7471)


@dataclass(frozen=True, slots=True)
class Normalization:
    """One slide's mapping ``byte = round(255 * clip((value - low) / (high - low), 0, 1))``.

    Integers are mapped in 16-bit fixed point (see :attr:`fixed_point`; within 0.52 of the exact
    fraction), because eight of those fit a vector register where a lookup goes one by one. Floats
    are computed in float32, NaN becomes 0. The kernel does the same arithmetic bit for bit.
    """

    #: Raw value that maps to byte 0; a whole number for integer types.
    low: float
    #: Raw value that maps to byte 255; above ``low``; a whole number for integer types.
    high: float
    #: Name of the raw value type, one of :data:`DTYPES`.
    dtype: str

    def __post_init__(self) -> None:
        _check_dtype(np.dtype(self.dtype))
        if not -np.inf < self.low < self.high < np.inf:
            raise ImageError(f"normalisation needs finite low < high, found {self.low:g} and {self.high:g}")
        if np.dtype(self.dtype).kind == "u":
            top = np.iinfo(self.dtype).max
            for value in (self.low, self.high):
                if value != int(value) or not 0 <= value <= top:
                    raise ImageError(
                        f"normalisation of {self.dtype} needs whole numbers of 0…{top}, found {value}"
                    )

    @classmethod
    def full_scale(cls, dtype: np.dtype[Any]) -> Normalization:
        """Return the mapping of the type's whole range (0…1 for floats), for slides taken as they are."""
        _check_dtype(dtype)
        return cls(0.0, 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max), dtype.name)

    @property
    def offset(self) -> np.float32:
        """Value that is subtracted from a float pixel."""
        return np.float32(self.low)

    @property
    def scale(self) -> np.float32:
        """Bytes per raw unit."""
        return np.float32(255.0 / (self.high - self.low))

    @property
    def fixed_point(self) -> tuple[int, int, int, int]:
        """The integer mapping as ``(low, span, shift, factor)``, all within 16 bits.

        ``t = min(max(value - low, 0), span)``; ``byte = ((((t << shift) * factor) >> 16) + 64) >> 7``.
        The shift brings ``span`` to 32768…65535, so that no bit of the factor is wasted; rounding the
        factor up makes ``high`` map to 255 exactly.
        """
        low, span = int(self.low), int(self.high) - int(self.low)
        shift = 16 - span.bit_length()
        factor = -(-(255 << 23) // (span << shift))
        return low, span, shift, factor

    def lookup(self) -> NDArray[np.uint8] | None:
        """Return the byte of every possible value, uint8[256] or uint8[65536]; ``None`` for floats."""
        dtype = np.dtype(self.dtype)
        if dtype.kind == "f":
            return None
        low, span, shift, factor = self.fixed_point
        values = np.arange(np.iinfo(dtype).max + 1, dtype=np.int64)
        scaled = ((np.clip(values - low, 0, span) << shift) * factor) >> 16
        return ((scaled + 64) >> 7).astype(np.uint8)

    def apply(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        """Map an array of any shape to bytes.

        Parameters
        ----------
        array
            Raw values of type :attr:`dtype`.

        Returns
        -------
        ndarray of uint8
            Same shape, a new array.

        Raises
        ------
        ImageError
            The array is of another type than this mapping.
        """
        if array.dtype != np.dtype(self.dtype):
            raise ImageError(f"normalisation is for {self.dtype} pixels, found {array.dtype}")
        table = self.lookup()
        if table is not None:
            mapped: NDArray[np.uint8] = table[array]
            return mapped
        with np.errstate(invalid="ignore", over="ignore"):
            value = (array - self.offset) * self.scale
            value = np.minimum(np.fmax(value, np.float32(0)), np.float32(255))  # fmax turns NaN into 0
        rounded: NDArray[np.uint8] = (value + np.float32(0.5)).astype(np.uint8)
        return rounded


def measure(sample: NDArray[Any]) -> Normalization:
    """Find a slide's mapping from its percentiles.

    The channels are taken jointly: the ratio between them is the hue of a stain, which must survive.
    A span too narrow to hold a picture is widened, so that an empty slide stays dark instead of
    becoming noise. Where cells are so few that a percentile lies in the ground's noise, it is taken from
    what stands out of the ground, so that cells look the same however large the empty field about them is.

    Parameters
    ----------
    sample
        Pixels of the slide, shape (height, width, channels) or (height, width); uint8, uint16 or
        float32. NaN and infinities are left out.

    Raises
    ------
    ImageError
        No pixel, no finite pixel, or an unsupported value type.
    """
    _check_dtype(sample.dtype)
    if sample.dtype.kind == "f":
        values = sample[np.isfinite(sample)]
        if not values.size:
            raise ImageError("the image holds no finite pixel value (all are NaN or infinite)")
        percentiles = np.percentile(values, (LOW_PERCENTILE, 50, HIGH_PERCENTILE))
        low, middle, high = (float(v) for v in percentiles)
        span = MINIMUM_SPAN * max(abs(low), abs(high))
        low, high = _outstanding(sample, low, middle, high, span / 8)
        span = max(MINIMUM_SPAN * max(abs(low), abs(high)), float(np.finfo(np.float32).tiny) * 256)
        return Normalization(low, max(high, low + span), sample.dtype.name)
    if not sample.size:
        raise ImageError(f"image of shape {sample.shape} holds no pixel")
    low, middle, high = _percentiles(sample)
    low, high = _outstanding(
        sample, low, middle, high, 1.0 if sample.dtype == np.uint8 else MINIMUM_SPAN_16 / 8
    )
    top = float(np.iinfo(sample.dtype).max)
    span = MINIMUM_SPAN * top if sample.dtype == np.uint8 else max(MINIMUM_SPAN_16, MINIMUM_SPAN * high)
    high = min(max(high, low + np.ceil(span)), top)
    # A slide that is white all over keeps its span by moving the low end instead.
    return Normalization(min(low, high - np.ceil(span)), high, sample.dtype.name)


def to_channels(array: NDArray[Any], channels: int) -> NDArray[Any]:
    """Give an image the number of channels that a model takes.

    Parameters
    ----------
    array
        Grey of shape (height, width) or (height, width, 1), or colours of shape (height, width, 3).
    channels
        1 or 3. Grey becomes RGB by repetition, RGB becomes grey by luma.

    Returns
    -------
    ndarray
        Shape (height, width, channels), same type.

    Raises
    ------
    ImageError
        The image has another number of channels.
    """
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ImageError(
            f"image of shape {array.shape}: expected (height, width) or (height, width, 1 or 3 channels); "
            "choose channels first"
        )
    if array.shape[2] == channels:
        return array
    if channels == 3:
        return np.repeat(array, 3, axis=2)
    if channels == 1:
        return luma(array)
    raise ImageError(f"a model takes 1 or 3 channels, not {channels}")


def luma(array: NDArray[Any]) -> NDArray[Any]:
    """Return the grey picture of an RGB one: shape (height, width, 3) to (height, width, 1), same type."""
    if array.dtype.kind == "f":
        r, g, b = (np.float32(part / 65536) for part in LUMA)
        grey: NDArray[Any] = array[:, :, 0] * r + array[:, :, 1] * g + array[:, :, 2] * b
    else:
        wide = array.astype(np.int64)
        grey = (wide[:, :, 0] * LUMA[0] + wide[:, :, 1] * LUMA[1] + wide[:, :, 2] * LUMA[2] + 32768) >> 16
    return grey.astype(array.dtype)[:, :, None]


def _outstanding(
    sample: NDArray[Any], low: float, middle: float, high: float, least: float
) -> tuple[float, float]:
    """Return both ends of the mapping, found among what stands out where a percentile lies in the ground.

    `least` is the smallest distance from the median that counts as noise.
    """
    below, above = max(middle - low, least), max(high - middle, least)
    if high - middle < IN_THE_GROUND * below:
        high = max(high, _end(sample, sample > middle + STANDS_OUT * below, WITHIN, high))
    if middle - low < IN_THE_GROUND * above:
        low = min(low, _end(sample, sample < middle - STANDS_OUT * above, 100 - WITHIN, low))
    return low, high


def _end(sample: NDArray[Any], outside: NDArray[np.bool_], percentile: float, otherwise: float) -> float:
    """Return a percentile of the values that are `outside` together with most of their 3×3 neighbours."""
    if np.count_nonzero(outside) < FEWEST:
        return otherwise
    share = cv2.boxFilter(outside.astype(np.float32), -1, (3, 3)).reshape(outside.shape)
    values = sample[outside & (share > 0.5)]
    values = values[np.isfinite(values)] if sample.dtype.kind == "f" else values
    if values.size < FEWEST:
        return otherwise
    return float(np.percentile(values, percentile, method="nearest"))


def _percentiles(sample: NDArray[Any]) -> tuple[float, float, float]:
    """Return both percentiles and the median of an integer array: smallest value at that rank."""
    bins = np.iinfo(sample.dtype).max + 1
    histogram = np.zeros(bins, np.int64)
    values = sample.reshape(-1)
    for start in range(0, len(values), COUNTED):
        part = cv2.calcHist([values[start : start + COUNTED]], [0], None, [bins], [0, bins])
        histogram += part.reshape(-1).astype(np.int64)
    below = np.cumsum(histogram)
    ranks = (part / 100 * sample.size for part in (LOW_PERCENTILE, 50, HIGH_PERCENTILE))
    low, middle, high = (int(np.searchsorted(below, rank, side="left")) for rank in ranks)
    return float(low), float(middle), float(high)


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype.name not in DTYPES:
        raise ImageError(f"pixels of type {dtype} are not supported; expected {', '.join(DTYPES)}")
