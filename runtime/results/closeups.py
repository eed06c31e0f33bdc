"""Close-ups for the report: what was chosen while cells came is read again from the slide when all is done.

A few hundred pixels each, they cost a thousandth of a slide, and nothing had to be kept for them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import CellsegError
from ..readers import SlideReader
from ..writers.closeups import Closeup, draw
from ..writers.overview import MIN_EDGE, Overview
from ..writers.summary import Summary
from .stored import open_levels


def closeups_of(slide: SlideReader, folder: Path, summary: Summary, overview: Overview) -> list[Closeup]:
    """Return close-ups of an image; none of one that the overview shows as large.

    Parameters
    ----------
    slide
        At full resolution, in whose pixels the results are.
    folder
        Holds the finished label image.
    summary, overview
        Took all strips, and are committed.
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
        made.append(Closeup(place, draw(pixels, numbers, overview.palette)))
    return made
