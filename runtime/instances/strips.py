"""The whole of an image into strips of labels with their cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.buffers import Recycler
from ..errors import UsageError
from ..model.spec import Head, SplitSettings
from .cells import Cells, Strip
from .stream import RowStream


class InstanceStream(RowStream[Strip]):
    """Planes of one image, pushed in rows from top to bottom, into strips of cells.

    Parameters
    ----------
    canvases
        Where strips get their label images from.
    height, width, heads, settings, **options
        As for :class:`RowStream`.
    """

    def __init__(
        self,
        height: int,
        width: int,
        heads: Sequence[Head],
        settings: SplitSettings,
        *,
        canvases: Recycler | None = None,
        **options: Any,
    ) -> None:
        super().__init__(height, width, heads, settings, **options)
        self._canvases = canvases or Recycler(0)

    def _piece(self, y: int, y1: int, cells: Cells) -> Strip:
        """Paint the rows."""
        labels: NDArray[np.int32] = self._canvases.take((y1 - y, self.width), np.int32)
        self._pool.paint(labels, y, self._batches)
        return Strip(y, labels, cells)


def split_planes(
    planes: NDArray[np.uint8],
    heads: Sequence[Head],
    settings: SplitSettings,
    *,
    workers: int = 1,
    connectivity: int = 8,
) -> NDArray[np.int32]:
    """Split the planes of a whole image into numbered cells.

    Parameters
    ----------
    planes
        Shape (K, H, W), one plane for each head.
    heads, settings, workers, connectivity
        As for :class:`InstanceStream`, which does the work.

    Returns
    -------
    ndarray of int32, shape (H, W)
        Cells 1…n by first row and first column in it, 0 for background.
    """
    if planes.ndim != 3:
        raise UsageError(f"planes of shape {planes.shape}; wanted ({len(heads)}, H, W)")
    height, width = planes.shape[1:]
    with InstanceStream(height, width, heads, settings, workers=workers, connectivity=connectivity) as stream:
        strips = stream.push(planes)
        strips += stream.finish()
    return np.concatenate([strip.labels for strip in strips])
