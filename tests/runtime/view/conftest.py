"""A finished result to look at: bright discs found by a model for which cells are what is bright."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from cellseg.runtime import segment
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec

#: Centres and radii of the discs, x and y.
DISCS = [(100, 90, 12), (400, 120, 20), (700, 600, 9), (50, 880, 15), (1180, 40, 11), (610, 610, 25)]


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """Return the folder of the result; the image lies next to it."""
    place = tmp_path_factory.mktemp("view")
    picture = np.full((900, 1200), 10, np.uint8)
    for x, y, radius in DISCS:
        cv2.circle(picture, (x, y), radius, 230, -1)
    tifffile.imwrite(place / "discs.tif", picture)
    with LocalEngine(local_spec(1), 1) as engine:
        segment(place / "discs.tif", engine, output=place / "out", pixel_size=0.5, probabilities=True)
    return place / "out"
