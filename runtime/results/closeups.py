"""Close-ups for the report: what was chosen while cells came is read again from the slide when all is done.

A few hundred pixels each, they cost a thousandth of a slide, and nothing had to be kept for them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..errors import CellsegError
from ..intensity.classes import Classes
from ..readers import SlideReader
from ..writers.closeups import Closeup, draw
from ..writers.contents import TABLE
from ..writers.overview import MIN_EDGE, Overview
from ..writers.summary import Summary
from .stored import open_levels


def closeups_of(
    slide: SlideReader, folder: Path, summary: Summary, overview: Overview, classes: Classes | None = None
) -> list[Closeup]:
    """Return close-ups of an image; none of one that the overview shows as large.

    Parameters
    ----------
    slide
        At full resolution, in whose pixels the results are.
    folder
        Holds the finished label image and, where cells have classes, the table.
    summary, overview
        Took all strips, and are committed.
    classes
        How cells are told positive, where they are.
    """
    if max(slide.height, slide.width) <= MIN_EDGE:
        return []
    places = summary.places.chosen(summary.diameter.quantile(0.5))
    if not places:
        return []
    labels = open_levels(folder)[0]
    made = []
    for place in places:
        at = place.region
        try:
            pixels = overview.display.apply(slide.read(at))
        except (CellsegError, OSError):
            # The image has gone, or the web does not answer any more: the results are complete without.
            break
        numbers = np.asarray(labels[at.y : at.y1, at.x : at.x1], np.int32)
        known = None if classes is None else _classes_in(folder, numbers, classes)
        made.append(Closeup(place, draw(pixels, numbers, overview.palette, known)))
    return made


def _classes_in(folder: Path, labels: NDArray[np.int32], classes: Classes) -> dict[int, int]:
    """Return the class of each cell of a part of the label image, from the table."""
    wanted = np.setdiff1d(labels, [0]).tolist()
    if not wanted:
        return {}
    rows = pq.read_table(folder / TABLE, columns=["label", "class"], filters=[("label", "in", wanted)])
    index = {name: at for at, name in enumerate(classes.names)}
    pairs = zip(rows["label"].to_pylist(), rows["class"].to_pylist(), strict=True)
    return {label: index[name] for label, name in pairs if name is not None}
