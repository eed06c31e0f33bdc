"""The cells that a model knows, measured on label images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..model.spec import CellDiameter
from .votes import diameters

#: The range served is that of the pictures' own medians, but for this many percent at either end; and at
#: least from the median over this factor to the median times it: a network knows more than a few pictures
#: that are alike.
OUTER, OCTAVE = 5, 2.0


def measure_cells(pictures: Iterable[NDArray[np.integer]]) -> CellDiameter:
    """Return the sizes of the cells in some label images.

    Parameters
    ----------
    pictures
        Each (H, W): 0 for background, one number for each cell; in pixels as the model sees them.

    Raises
    ------
    DataError
        There is no cell.
    """
    sizes = [diameters(areas[areas > 0]) for areas in (np.bincount(each.ravel())[1:] for each in pictures)]
    sizes = [each for each in sizes if len(each)]
    if not sizes:
        raise DataError("no cell in any label image: their diameter cannot be measured")
    middle = float(np.median(np.concatenate(sizes)))
    low, high = np.percentile([np.median(each) for each in sizes], (OUTER, 100 - OUTER))
    return CellDiameter(
        median=round(middle, 1),
        low=round(min(float(low), middle / OCTAVE), 1),
        high=round(max(float(high), middle * OCTAVE), 1),
    )
