"""Which cells are shown, and in which colours: tables from a cell's number to a colour.

A :class:`Style` is what the address of a tile says; it knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .scene import Scene

#: Colours of cells that are told apart by nothing but being neighbours, red green blue.
NEIGHBOURS = (
    (255, 209, 102),
    (6, 214, 160),
    (76, 201, 240),
    (255, 112, 166),
    (199, 125, 255),
    (255, 151, 112),
)
#: Colours of classes: told apart by people with any kind of colour vision (Okabe and Ito 2008).
CLASSES = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
#: Part of the values of a column below and above which colours do not change any more.
TAILS = (0.01, 0.99)
#: Colours of a scale; number 0 hides.
STEPS = 255


@dataclass(frozen=True, slots=True)
class Style:
    """How cells are drawn. Cells are shown whose score and area lie within the limits, ends included."""

    #: A column of the table, or nothing: neighbours in different colours.
    by: str = ""
    min_score: float = 0.0
    min_area: float = 0.0
    max_area: float = float("inf")
    #: One colour for all, by its number from 1, where several results lie over one another.
    colour: int = 0
    #: Part of the opacity inside of cells, 0…1; their outlines have all of it.
    fill: float = 0.0

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Self:
        """Read the part of an address behind the question mark; what is not there has its default.

        Raises
        ------
        UsageError
            A value is not a number.
        """
        given: dict[str, Any] = {}
        for field in fields(cls):
            text = query.get(field.name, "")
            if not text:
                continue
            if field.name == "by":
                given["by"] = text
                continue
            try:
                given[field.name] = int(text) if field.name == "colour" else float(text)
            except ValueError:
                raise UsageError(f"{field.name} is {text[:40]!r}; wanted a number") from None
        return cls(**given)

    def shown(self, scene: Scene) -> NDArray[np.bool_]:
        """Return for each row of the table whether the cell is shown."""
        score, area = scene.column("score"), scene.column("area")
        kept = (area >= self.min_area) & (area <= self.max_area)
        return kept & ~(score < self.min_score)  # a score that is no number hides nothing

    def lookup(self, scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the colour of each number of the label image, and what each colour looks like.

        Returns
        -------
        colour_of
            uint8, shape (highest number + 1,); 0 is hidden.
        palette
            uint8, shape (256, 4): blue, green, red, opacity.
        """
        labels, shown = scene.column("label"), self.shown(scene)
        colours, palette = self._colours(scene)
        colour_of = np.zeros(int(labels.max(initial=0)) + 1, np.uint8)
        colour_of[labels] = np.where(shown, colours, 0)
        return colour_of, palette

    def _colours(self, scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the colour of each row, and the palette."""
        if self.colour:
            return deal(np.full(scene.count, self.colour - 1), CLASSES)
        if not self.by:
            return deal(scene.column("label") * 7, NEIGHBOURS)
        values = scene.column(self.by)
        if values.dtype.kind not in "biuf":
            _, codes = np.unique(np.asarray(values, str), return_inverse=True)
            return deal(codes, CLASSES)
        low, high = span(values)
        share = np.clip((np.nan_to_num(values.astype(np.float64), nan=low) - low) / (high - low), 0, 1)
        return (1 + np.rint(share * (STEPS - 1))).astype(np.uint8), scale()


def deal(
    codes: NDArray[Any], colours: tuple[tuple[int, int, int], ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Deal a few colours out in turn."""
    palette = np.zeros((256, 4), np.uint8)
    for number, (red, green, blue) in enumerate(colours, 1):
        palette[number] = blue, green, red, 255
    return (1 + codes % len(colours)).astype(np.uint8), palette


def scale() -> NDArray[np.uint8]:
    """Return the palette of a scale: viridis, from dark blue to yellow."""
    import cv2

    ramp = np.rint(np.linspace(0, 255, STEPS)).astype(np.uint8)
    palette = np.zeros((256, 4), np.uint8)
    palette[1:, :3] = cv2.applyColorMap(ramp[:, None], cv2.COLORMAP_VIRIDIS)[:, 0]
    palette[1:, 3] = 255
    return palette


def span(values: NDArray[Any]) -> tuple[float, float]:
    """Return the values at the ends of a column's scale, apart from each other."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not len(finite):
        return 0.0, 1.0
    low, high = (float(v) for v in np.quantile(finite, TAILS))
    return (low, high) if high > low else (low - 0.5, low + 0.5)
