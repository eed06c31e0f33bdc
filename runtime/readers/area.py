"""Reduce a picture by exact area averaging, one strip of rows at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


def shrink(
    strips: Iterable[npt.NDArray[Any]],
    height: int,
    width: int,
    out_height: int,
    out_width: int,
    dtype: np.dtype[Any],
) -> npt.NDArray[Any]:
    """Average a picture that arrives strip by strip down to a smaller size.

    Parameters
    ----------
    strips
        Arrays of shape (rows, width, channels) that follow on and cover the picture; any number of
        rows each.
    height, width
        Size of the picture in pixels.
    out_height, out_width
        Size of the result, at most that of the picture.
    dtype
        Type of the result; integers are rounded.

    Returns
    -------
    ndarray, shape (out_height, out_width, channels)
        Pixel (i, j) is the mean over the rectangle it covers; pixels that are covered in part count
        in part.
    """
    total: npt.NDArray[np.float32] | None = None
    top = 0
    for strip in strips:
        rows, _, channels = strip.shape
        if total is None:
            total = np.zeros((out_height, out_width, channels), np.float32)
        narrow = strip.astype(np.float32)
        if out_width != width:
            # INTER_AREA is an exact box average when both axes shrink or stay; it takes four channels.
            parts = [
                cv2.resize(narrow[:, :, c : c + 4], (out_width, rows), interpolation=cv2.INTER_AREA)
                for c in range(0, channels, 4)
            ]
            narrow = np.concatenate([part.reshape(rows, out_width, -1) for part in parts], axis=2)
        first = top * out_height // height
        last = -(-(top + rows) * out_height // height)
        weights = row_weights(top, rows, height, first, last, out_height)
        total[first:last] += (weights @ narrow.reshape(rows, -1)).reshape(last - first, out_width, channels)
        top += rows
    assert total is not None
    if dtype.kind in "iu":
        return np.clip(np.rint(total), 0, np.iinfo(dtype).max).astype(dtype)
    return total.astype(dtype)


def row_weights(
    top: int, rows: int, height: int, first: int, last: int, out_height: int
) -> npt.NDArray[np.float32]:
    """Return how much of each output row in [first, last) comes from each of ``rows`` rows at ``top``.

    Returns
    -------
    ndarray of float32, shape (last - first, rows)
        Overlap of the two rows' spans divided by the output row's span; exact in integers before
        the division.
    """
    # In units of 1/out_height of a source row, both edges are integers.
    source = (np.arange(rows, dtype=np.int64) + top) * out_height
    target = np.arange(first, last, dtype=np.int64) * height
    low = np.maximum(source[None, :], target[:, None])
    high = np.minimum(source[None, :] + out_height, target[:, None] + height)
    overlap = np.maximum(high - low, 0)
    return np.asarray(overlap / height, np.float32)
