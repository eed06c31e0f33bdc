"""Cells by class, counted as they come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..instances import Strip
from ..intensity.classes import Classes


class ClassCounter:
    """Gives every cell of a strip its class, and counts.

    Parameters
    ----------
    classes
        How cells are told positive.

    Attributes
    ----------
    cells
        Of each class; those without one do not count.
    """

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.cells = np.zeros(len(classes.names), np.int64)

    def __call__(self, strip: Strip) -> Strip:
        """Return a strip with the column ``class``."""
        found = self.classes.of(strip.cells.columns)
        self.cells += self.classes.count(found)
        return replace(strip, cells=strip.cells.with_column("class", found))
