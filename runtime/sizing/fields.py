"""Which parts of a slide are looked at to learn how large its cells are, and how they fit into tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry.tiling import Region
from ..readers import SlideReader

#: Edge of the windows, in pixels, among which fields are chosen by their contrast, and how many there are
#: for each field.
WINDOW, CANDIDATES = 128, 12

#: Vertical and horizontal place of a field's centre, as part of the slide's size.
Centre = tuple[float, float]
#: Rows of raw pixels → the bytes that the model sees.
ToBytes = Callable[[NDArray[np.generic]], NDArray[np.uint8]]


def choose_centres(slide: SlideReader, to_bytes: ToBytes, count: int, area: Region) -> list[Centre]:
    """Choose places that have something to show and lie far apart.

    Windows on a regular lattice are ranked by their contrast; glass and empty background have little. Of
    those with at least half the contrast of the best ones, the first is the best, and each further one is
    the one that is farthest from those that were chosen.

    Parameters
    ----------
    slide
        The slide.
    to_bytes
        How its pixels become the model's.
    count
        How many to choose; fewer where the slide is small.
    area
        Where to choose them.
    """
    tall, wide = min(WINDOW, area.height), min(WINDOW, area.width)
    side = (CANDIDATES * count) ** 0.5 * (area.height / area.width) ** 0.5
    rows = max(1, min(area.height // tall, round(side)))
    columns = max(1, min(area.width // wide, round(CANDIDATES * count / rows)))
    found: list[tuple[float, Centre]] = []
    for i in range(rows):
        y = area.y + (2 * i + 1) * (area.height - tall) // (2 * rows)
        for j in range(columns):
            x = area.x + (2 * j + 1) * (area.width - wide) // (2 * columns)
            contrast = float(to_bytes(slide.read(Region(y, x, tall, wide))).std())
            found.append((contrast, ((y + tall / 2) / slide.height, (x + wide / 2) / slide.width)))
    found.sort(key=lambda each: -each[0])
    enough = found[min(count, len(found)) - 1][0] / 2
    left = [centre for contrast, centre in found if contrast >= enough]
    chosen = [left.pop(0)]
    while left and len(chosen) < count:
        far = max(left, key=lambda centre: min(_distance(centre, other, slide) for other in chosen))
        left.remove(far)
        chosen.append(far)
    return chosen


def _distance(one: Centre, other: Centre, slide: SlideReader) -> float:
    return ((one[0] - other[0]) * slide.height) ** 2 + ((one[1] - other[1]) * slide.width) ** 2


def fields(area: Region, edge: int, sheet: int, centres: Sequence[tuple[float, float]]) -> list[Region]:
    """Return what is looked at of a picture.

    Parameters
    ----------
    area
        Where in the picture to look.
    edge
        Size of a field.
    sheet
        Size of what fields are laid into; a small area is one field where it fits in.
    centres
        Of the fields, (y, x) in pixels of the picture.

    Returns
    -------
    list of Region
        All of the area, where that is not more than the fields; else a field around each centre, moved
        inside the area, each once.
    """
    if max(area.height, area.width) <= sheet and area.area <= len(centres) * edge * edge:
        return [area]
    tall, wide = min(area.height, edge), min(area.width, edge)
    places = (
        Region(
            min(max(round(y - tall / 2), area.y), area.y1 - tall),
            min(max(round(x - wide / 2), area.x), area.x1 - wide),
            tall,
            wide,
        )
        for y, x in centres
    )
    return list(dict.fromkeys(places))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field lies in which sheet."""

    sheet: int
    y: int
    x: int

    def of(self, sheet: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the part of a sheet, (edge, edge, …), that a field of some size has."""
        return sheet[self.y : self.y + size[0], self.x : self.x + size[1]]


def lay_out(sizes: Sequence[tuple[int, int]], edge: int) -> list[Place]:
    """Lay rectangles, (height, width), into as few squares as is easy: in rows, the tallest first.

    Returns
    -------
    list of Place
        One for each rectangle, in their order.
    """
    places: dict[int, Place] = {}
    sheet = y = x = row = 0
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index][0], -sizes[index][1], index)):
        height, width = sizes[index]
        if x + width > edge:
            y, x, row = y + row, 0, 0
        if y + height > edge:
            sheet, y, x, row = sheet + 1, 0, 0, 0
        places[index] = Place(sheet, y, x)
        x, row = x + width, max(row, height)
    return [places[index] for index in range(len(sizes))]
