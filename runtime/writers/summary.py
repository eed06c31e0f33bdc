"""What the report says of the cells, counted as they come."""

from __future__ import annotations

import numpy as np

from ..instances import Strip
from .base import Writer
from .charts import Histogram
from .places import Places


class Summary(Writer):
    """Counts what the report shows; writes nothing and holds a few histograms and a grid only.

    Parameters
    ----------
    height, width
        Size of the image in pixels.
    """

    stage = "summary"

    def __init__(self, height: int, width: int) -> None:
        #: Diameter of the circle of equal area, in pixels.
        self.diameter = Histogram.empty(0, 400)
        self.eccentricity = Histogram.empty(0, 1)
        self.solidity = Histogram.empty(0, 1)
        self.score = Histogram.empty(0, 1)
        #: Sum of the cells' areas in pixels, and number of cells on the image's border.
        self.area = 0
        self.border = 0
        #: Where a look is worth it.
        self.places = Places(height, width)

    def write(self, strip: Strip) -> None:
        """Count the cells of the next strip."""
        columns = strip.cells.columns
        area = columns["area"].astype(np.float64)
        self.diameter.add(np.sqrt(area * 4 / np.pi))
        self.eccentricity.add(columns["eccentricity"])
        self.solidity.add(columns["solidity"])
        self.score.add(columns["score"])
        self.area += int(area.sum())
        self.border += int(np.count_nonzero(columns["touches_border"]))
        self.places.add(strip.cells)

    def commit(self) -> None:
        """Nothing is written."""
