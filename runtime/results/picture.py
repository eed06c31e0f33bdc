"""The reduced picture of a slide, from its own levels or from the rows as they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from ..readers import SlideReader
from ..readers.area import Shrinker, Thinner
from ..writers.overview import MAX_EDGE, reduced_size


def needs_rows(slide: SlideReader, seen: SlideReader) -> bool:
    """Whether the picture must be made of the rows of ``seen``, the slide at the model's scale."""
    rows, columns = reduced_size(slide.height, slide.width)
    return len(slide.levels) == 1 and seen.height >= rows and seen.width >= columns


def reduced_picture(
    slide: SlideReader, seen: SlideReader
) -> tuple[NDArray[Any] | Callable[[], NDArray[Any]], Callable[[NDArray[Any]], None] | None]:
    """Return the reduced picture; or how to get it, and what must be shown the rows of the slide for it."""
    if not needs_rows(slide, seen):
        return slide.overview(MAX_EDGE), None
    thinned, shrinker = thinned_picture(slide, seen)

    def watch(band: NDArray[Any]) -> None:
        if len(fewer := thinned(band)):
            shrinker.push(fewer)

    return shrinker.result, watch


def thinned_picture(slide: SlideReader, seen: SlideReader, *, row: int = 0) -> tuple[Thinner, Shrinker]:
    """Return what thins the rows of ``seen`` from ``row`` on, and what makes the picture of these."""
    rows, columns = reduced_size(slide.height, slide.width)
    thinned = Thinner(seen.height, seen.width, rows, columns, row=row)
    return thinned, Shrinker(*thinned.size, rows, columns, seen.dtype)
