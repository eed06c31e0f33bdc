"""Boundary and density targets, derived from instance labels.

Pure NumPy functions of one label image; they know nothing of files or batches.
"""

from __future__ import annotations

from typing import Literal

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


#: Cells of up to this many pixels have all of the extra weight of small cells, larger ones less.
SMALL = 100


def smallness(labels: Labels, areas: NDArray[np.number], reach: int = 2) -> NDArray[np.float32]:
    """Tell how small the cell is that a pixel belongs to or lies near: min(1, :data:`SMALL` / area).

    An average over pixels hardly sees small cells, and what is scored counts cells.

    Parameters
    ----------
    labels
        Instance labels, (H, W), 0 is background.
    areas
        Pixels of each cell by its label, of whole cells where `labels` cuts them; ``areas[0]`` is ignored.
    reach
        Pixels around a cell that are near it, chessboard distance.

    Returns
    -------
    (H, W) float32 in 0…1; of the smallest where several cells are near, 0 away from all.
    """
    share = SMALL / np.maximum(areas, SMALL).astype(np.float32)
    share[0] = 0
    size = 2 * reach + 1
    near: NDArray[np.float32] = cv2.dilate(share[labels], np.ones((size, size), np.uint8))
    return near


def density_map(
    labels: Labels,
    spread: float = 0.5,
    sigma: float | None = None,
    shape: Literal["round", "ellipse"] = "round",
) -> NDArray[np.float32]:
    """Place one Gaussian of unit mass on each cell, so that the sum is the number of cells.

    Lempitsky and Zisserman, "Learning to count objects in images" (NIPS 2010), eq. 2. A kernel that
    would leave the image is cut off and rescaled, so each cell counts one wherever it lies.

    Parameters
    ----------
    labels
        Instance labels, (H, W).
    spread
        Standard deviation as a share of the cell's equivalent radius, sqrt(area / pi); of its half axes
        where `shape` is an ellipse.
    sigma
        Fixed standard deviation in pixels instead, whatever the shape.
    shape
        The same in all directions, or as long, wide and turned as the ellipse that has the cell's second
        moments: two long cells side by side then are two ridges and not one hill.

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
    centres = np.stack([np.bincount(ids, ys), np.bincount(ids, xs)], axis=1) / area[:, None]
    if sigma is not None:
        variance = np.broadcast_to(sigma**2 * np.eye(2), (len(area), 2, 2))
    elif shape == "round":
        variance = (spread**2 * area / np.pi)[:, None, None] * np.eye(2)
    else:
        # An ellipse of half axis a has the variance a² / 4; a pixel, being a square, 1 / 12.
        dy, dx = ys - centres[ids, 0], xs - centres[ids, 1]
        moments = np.stack([np.bincount(ids, v) for v in (dy * dy, dy * dx, dy * dx, dx * dx)], axis=1)
        variance = 4 * spread**2 * (moments / area[:, None] + np.eye(2).ravel() / 12).reshape(-1, 2, 2)
    if sigma is None:  # a narrower kernel would fall between the pixels
        spans, axes = np.linalg.eigh(variance)
        variance = (axes * np.maximum(spans, 0.75**2)[:, None, :]) @ axes.transpose(0, 2, 1)
    reaches = np.ceil(3 * np.sqrt(np.diagonal(variance, axis1=1, axis2=2))).astype(int)
    for (cy, cx), (ry, rx), ((a, b), (_, c)) in zip(centres, reaches, np.linalg.inv(variance), strict=True):
        y0, y1 = max(0, int(cy) - ry), min(height, int(cy) + ry + 1)
        x0, x1 = max(0, int(cx) - rx), min(width, int(cx) + rx + 1)
        dy, dx = np.ogrid[y0 - cy : y1 - cy - 0.5, x0 - cx : x1 - cx - 0.5]
        kernel = np.exp(-0.5 * (a * dy * dy + 2 * b * dy * dx + c * dx * dx))
        out[y0:y1, x0:x1] += kernel / kernel.sum()
    return out


def _extrema(labels: Labels, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Smallest and largest label in the square of `size` around each pixel; beyond the image is nothing."""
    kernel = np.ones((size, size), np.uint8)
    plane = labels.astype(np.float32)  # OpenCV morphs no int32
    return cv2.erode(plane, kernel), cv2.dilate(plane, kernel)
