"""Reduce a picture by exact area averaging, one strip of rows at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels.resample import shrink_rows


class Shrinker:
    """Averages a picture that arrives strip by strip down to a smaller size.

    Parameters
    ----------
    height, width
        Size of the picture in pixels.
    out_height, out_width
        Size of the result, at most that of the picture.
    dtype
        Type of the result; integers are rounded.
    """

    def __init__(
        self, height: int, width: int, out_height: int, out_width: int, dtype: npt.DTypeLike
    ) -> None:
        self.height, self.width = height, width
        self.out_height, self.out_width = out_height, out_width
        self.dtype = np.dtype(dtype)
        self._out: npt.NDArray[Any] | None = None
        self._line = np.zeros(0, np.float32)
        self._top = 0

    def push(self, strip: npt.NDArray[Any]) -> None:
        """Add the next rows, shape (rows, width, channels); any number of them.

        NaN and infinities count as 0: they would spread over all that is averaged with them.
        """
        rows, width, channels = strip.shape
        if self._out is None:
            self._out = np.zeros((self.out_height, self.out_width, channels), self.dtype)
            self._line = np.zeros(width * channels, np.float32)
        shrink_rows(strip, self._top, self.height, self._line, self._out)
        self._top += rows

    def result(self) -> npt.NDArray[Any]:
        """Return the reduced picture, shape (out_height, out_width, channels); all rows were pushed.

        Pixel (i, j) is the mean over the rectangle it covers; pixels that are covered in part count in
        part.
        """
        assert self._out is not None
        return self._out


class Thinner:
    """Passes on as many rows and columns as a picture to look at needs.

    Such a picture need not average every pixel: two to four samples a side of each of its own do.

    Parameters
    ----------
    height, width
        Size of the picture in pixels.
    out_height, out_width
        Size that it will be reduced to.
    row
        Row of the picture that comes first.
    """

    def __init__(self, height: int, width: int, out_height: int, out_width: int, *, row: int = 0) -> None:
        self._step = max(1, min(height // out_height, width // out_width) // 2)
        self._row = row
        #: Height and width of what is passed on.
        self.size = -(-height // self._step), -(-width // self._step)

    def __call__(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what is passed on of the next rows, shape (rows, width, channels); possibly no row."""
        first = -self._row % self._step
        self._row += len(rows)
        return rows[first :: self._step, :: self._step]
