"""What runs as a user runs it, and mirrors no file of the source."""

import cv2
import numpy as np
import pytest
import tifffile

from cellseg.runtime import segment
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec

#: Centres and radii of discs in a picture of 900 rows and 1200 columns, x and y.
DISCS = [(100, 90, 12), (400, 120, 20), (700, 600, 9), (50, 880, 15), (1180, 40, 11), (610, 610, 25)]


@pytest.fixture(scope="session")
def finished_views(tmp_path_factory):
    """Return two results of one picture, by a model for which cells are what is bright."""
    place = tmp_path_factory.mktemp("view")
    picture = np.full((900, 1200), 10, np.uint8)
    for x, y, radius in DISCS:
        cv2.circle(picture, (x, y), radius, 230, -1)
    tifffile.imwrite(place / "discs.tif", picture)
    with LocalEngine(local_spec(1), 1) as engine:
        for name in ("first", "second"):
            segment(place / "discs.tif", engine, output=place / name, pixel_size=0.5, probabilities=True)
    return [place / "first", place / "second"]
