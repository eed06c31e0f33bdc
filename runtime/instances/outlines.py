"""Rings around the cells of a label image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..kernels.measure import measure_labels


def renumbered(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the labels as 1, 2, 3 … in the order of their first pixels, row by row; 0 stays 0."""
    values, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.where(values == 0, -1, first))
    numbers = np.empty(len(values), np.int32)
    numbers[order] = np.arange(len(values), dtype=np.int32) + (0 if (values == 0).any() else 1)
    return numbers[inverse].reshape(labels.shape)


def outlines(labels: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Return the outer ring of each cell along its pixels' edges, x and y from the corner of the array."""
    count = int(labels.max(initial=0))
    if not count:
        return []
    cells, _, points = measure_labels(np.ascontiguousarray(labels), count, None, 0, 0)
    return np.split(points, cells["outline_end"])[:count]
