"""Look at a few fields of a slide at several scales, through the model itself.

All fields of a step are laid side by side into few tiles, so that it costs little whatever the
engine's tile is. Cells near a field's edge see their neighbour across it, as they see a reflection elsewhere;
those that touch it do not count.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..backends import Backend, Pending
from ..geometry.tiling import Region
from ..instances import Cells, InstanceStream
from ..intensity.channels import ChannelChoice
from ..intensity.normalization import Normalization, to_channels
from ..model.spec import CellDiameter, SplitSettings
from ..readers import SlideReader
from ..readers.scaled import ScaledReader
from .fields import Centre, choose_centres, fields, lay_out
from .votes import Estimate, Evidence, Look, estimate

#: Scales that are looked at first, and those that are looked at where that leaves doubt; octaves, as a model
#: serves more than one.
FIRST, LATER = (1.0, 0.5, 0.25, 0.125), (2.0, 4.0)
#: Edge of a field and of the tile that fields are laid into, about, in pixels; and how many of the model's
#: cells a field must be across at least, as those that its edge cuts say nothing.
FIELD, SHEET, ACROSS = 160, 512, 7
#: Fewest and most fields, and the part of a slide's pixels that they may come to.
FEWEST, MOST, PART = 3, 12, 0.02
#: No doubt is left by this many votes that agree this well about cells this much larger than the smallest
#: that the model serves.
PLENTY, CLEAR, ABOVE = 10.0, 0.6, 1.2


@dataclass(frozen=True, slots=True)
class Survey:
    """What was looked at and found."""

    #: By scale, the largest first.
    evidence: tuple[Evidence, ...]
    estimate: Estimate | None
    #: Pixels that the engine computed for it.
    pixels: int


class Surveyor:
    """Looks at fields of one slide.

    Parameters
    ----------
    slide
        The slide, at full resolution or at the model's physical scale.
    backend
        The model; it is prepared for another tile.
    known
        The cells that it was trained on.
    choice, mapping
        How the slide's pixels become the model's.
    within
        Where to look, in pixels of the slide; everywhere by default.
    """

    def __init__(
        self,
        slide: SlideReader,
        backend: Backend,
        known: CellDiameter,
        choice: ChannelChoice,
        mapping: Normalization,
        within: Region | None = None,
    ) -> None:
        self._slide, self._backend, self._known = slide, backend, known
        self._choice, self._mapping = choice, mapping
        self._split = every_cell(backend.spec.split)
        self._sheet = sheet_edge(slide, backend, known)
        self._edge = self._sheet // max(1, round(self._sheet / field_edge(known)))
        self._within = within or Region(0, 0, slide.height, slide.width)
        self.pixels = 0

    def run(self) -> Survey:
        """Look, estimate, and look closer where that leaves doubt.

        Raises
        ------
        ImageError, BackendError
            The slide cannot be read, or the engine failed.
        """
        spent = len(FIRST + LATER) * self._edge**2
        count = min(max(int(PART * self._slide.height * self._slide.width / spent), FEWEST), MOST)
        centres = choose_centres(self._slide, self._bytes, count, self._within)
        looks = self.look(FIRST, centres)
        found = estimate(looks, self._known)
        if not self._clear(found):
            looks += self.look(LATER, centres)
            found = estimate(looks, self._known)
        return Survey(self._evidence(looks), found, self.pixels)

    def _evidence(self, looks: Sequence[Look]) -> tuple[Evidence, ...]:
        scales = sorted({look.scale for look in looks}, reverse=True)
        return tuple(
            Evidence.of([look for look in looks if look.scale == scale], self._known) for scale in scales
        )

    def _clear(self, found: Estimate | None) -> bool:
        return (
            found is not None
            and found.certain
            and found.votes >= PLENTY
            and found.agreement >= CLEAR
            and found.diameter >= ABOVE * self._known.low
        )

    def look(self, scales: Iterable[float], centres: Sequence[Centre]) -> list[Look]:
        """Return the cells found around some centres at each of these scales."""
        read = [(scale, self._bytes(pixels)) for scale in scales for pixels in self._pixels(scale, centres)]
        planes = self._predict([picture for _, picture in read])
        return [
            Look(scale, len(picture), len(picture[0]), self._cells(part))
            for (scale, picture), part in zip(read, planes, strict=True)
        ]

    def _pixels(self, scale: float, centres: Sequence[Centre]) -> Iterable[NDArray[np.generic]]:
        slide = self._slide
        height, width = (max(1, round(edge * scale)) for edge in (slide.height, slide.width))
        seen = slide if scale == 1 else ScaledReader(slide, height, width)
        tall, wide = height / slide.height, width / slide.width
        y, x = min(int(self._within.y * tall), height - 1), min(int(self._within.x * wide), width - 1)
        y1, x1 = math.ceil(self._within.y1 * tall), math.ceil(self._within.x1 * wide)
        area = Region(y, x, min(y1, height) - y, min(x1, width) - x)
        middles = [(y * height, x * width) for y, x in centres]
        return (seen.read(field) for field in fields(area, self._edge, self._sheet, middles))

    def _bytes(self, pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
        return to_channels(self._mapping.apply(self._choice.apply(pixels)), self._backend.spec.channels)

    def _predict(self, pictures: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Return the planes of each picture, (K, h, w)."""
        places = lay_out([picture.shape[:2] for picture in pictures], self._sheet)
        backend = self._backend
        flying: deque[Pending] = deque()
        sheets: list[NDArray[np.uint8]] = []
        with backend.prepared(self._sheet, 1):
            try:
                for number in range(1 + max(place.sheet for place in places)):
                    if len(flying) == max(1, backend.in_flight - 1):
                        sheets.append(flying.popleft().result()[0])
                    batch = backend.new_batch()
                    batch.fill(0)
                    for picture, place in zip(pictures, places, strict=True):
                        if place.sheet == number:
                            place.of(batch[0], picture.shape[:2])[...] = picture
                    flying.append(backend.submit(batch))
                    self.pixels += self._sheet**2
                while flying:
                    sheets.append(flying.popleft().result()[0])
            finally:  # after an error: the engine must not write into freed memory
                for pending in flying:
                    with contextlib.suppress(Exception):
                        pending.result()
            return [
                place.of(sheets[place.sheet].transpose(1, 2, 0), picture.shape[:2]).transpose(2, 0, 1).copy()
                for picture, place in zip(pictures, places, strict=True)
            ]

    def _cells(self, planes: NDArray[np.uint8]) -> Cells:
        height, width = planes.shape[1:]
        with InstanceStream(height, width, self._backend.spec.heads, self._split) as stream:
            strips = stream.push(planes) + stream.finish()
        return Cells.concatenate([strip.cells for strip in strips]).without_outlines()


def every_cell(split: SplitSettings) -> SplitSettings:
    """Return the same settings, but for that doubtful cells are kept."""
    if split.score is None:
        return split
    return split.model_copy(update={"score": split.score.model_copy(update={"minimum": 0.0})})


def field_edge(known: CellDiameter) -> int:
    """Return the edge of a field, about."""
    return max(FIELD, round(ACROSS * known.median))


def sheet_edge(slide: SlideReader, backend: Backend, known: CellDiameter) -> int:
    """Return the edge of the tile that fields are laid into: no larger than a small slide needs."""
    spec, (low, high) = backend.spec, backend.tiles
    field = field_edge(known)
    wanted = min(max(SHEET, 2 * field), max(field, slide.height, slide.width))
    step = max(spec.multiple, 32 // spec.multiple * spec.multiple)
    up = -(-min(max(wanted, low), high) // step) * step
    return up if up <= high else high // spec.multiple * spec.multiple
