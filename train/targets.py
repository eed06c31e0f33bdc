"""Boundary and density targets, derived from instance labels.

Pure NumPy functions of one label image; they know nothing of files or batches.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]

#: Labels must stay below this: OpenCV takes them as float32, which counts exactly up to here.
LABEL_LIMIT = 2**24 - 1


def boundary_band(labels: Labels, width: int = 1) -> NDArray[np.uint8]:
    """Mark the pixels within `width` of an edge between two labels, on both sides.

    Parameters
    ----------
    labels
        Instance labels, (H, W), 0 is background.
    width
        Pixels on either side, chessboard distance.

    Returns
    -------
    (H, W) uint8, 1 in the band. Where two cells touch, the band covers both their rims.
    """
    low, high = _extrema(labels, 2 * width + 1)
    band: NDArray[np.uint8] = (low != high).astype(np.uint8)
    return band


def touching(labels: Labels, reach: int = 2) -> NDArray[np.uint8]:
    """Mark the pixels that have two different cells within `reach` pixels (chessboard distance).

    Returns
    -------
    (H, W) uint8, 1 where cells touch or nearly do: the pixels on which separating them depends.
    """
    size = 2 * reach + 1
    _, high = _extrema(labels, size)
    # Lowest cell label nearby: background must not count, so it is lifted above every label.
    lifted = np.where(labels == 0, np.int32(LABEL_LIMIT), labels)
    low, _ = _extrema(lifted, size)
    near: NDArray[np.uint8] = ((high > 0) & (low != high) & (low < LABEL_LIMIT)).astype(np.uint8)
    return near


def density_map(labels: Labels, spread: float = 0.5, sigma: float | None = None) -> NDArray[np.float32]:
    """Place one Gaussian of unit mass on each cell, so that the sum is the number of cells.

    Lempitsky and Zisserman, "Learning to count objects in images" (NIPS 2010), eq. 2. A kernel that
    would leave the image is cut off and rescaled, so each cell counts one wherever it lies.

    Parameters
    ----------
    labels
        Instance labels, (H, W).
    spread
        Standard deviation as a share of the cell's equivalent radius, sqrt(area / pi).
    sigma
        Fixed standard deviation in pixels instead.

    Returns
    -------
    (H, W) float32, cells per pixel.
    """
    height, width = labels.shape
    out = np.zeros((height, width), np.float32)
    ys, xs = np.nonzero(labels)
    if not len(ys):
        return out
    _, ids = np.unique(labels[ys, xs], return_inverse=True)
    area = np.bincount(ids)
    centre_y, centre_x = np.bincount(ids, ys) / area, np.bincount(ids, xs) / area
    sigmas = (
        np.full(len(area), sigma) if sigma is not None else np.maximum(spread * np.sqrt(area / np.pi), 0.75)
    )
    for cy, cx, s in zip(centre_y, centre_x, sigmas, strict=True):
        reach = int(np.ceil(3 * s))
        y0, y1 = max(0, int(cy) - reach), min(height, int(cy) + reach + 1)
        x0, x1 = max(0, int(cx) - reach), min(width, int(cx) + reach + 1)
        column = np.exp(-((np.arange(y0, y1) - cy) ** 2) / (2 * s * s))
        row = np.exp(-((np.arange(x0, x1) - cx) ** 2) / (2 * s * s))
        out[y0:y1, x0:x1] += np.outer(column, row) / (column.sum() * row.sum())
    return out


def _extrema(labels: Labels, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Smallest and largest label in the square of `size` around each pixel; beyond the image is nothing."""
    kernel = np.ones((size, size), np.uint8)
    plane = labels.astype(np.float32)  # OpenCV morphs no int32
    return cv2.erode(plane, kernel), cv2.dilate(plane, kernel)
