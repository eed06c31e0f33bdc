"""Which channels of a slide a model sees.

Decided once per slide; the gather kernel, the measurement of the slide's mapping and training follow it.
Three channels are colours only where the file says so: a mapping to bytes that three stains share would
drown the faint one, and their order means nothing to a model of colours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.spelling import option
from ..errors import ImageError
from .normalization import Normalization, luma

COLOURS = ("red", "green", "blue")
_LETTERS = ("r", "g", "b")
#: Names of stains and markers that show nuclei, the usual ones first: what a message advises.
_NUCLEAR = re.compile(
    r"dapi|hoechst|\bdna\d*\b|nucle(us|i|ar)|draq[57]|sytox|to-?pro|histone|\bh2b|\bh3\b|propidium|"
    r"syto\s*\d+|7-?aad|iridium|\bir19[13]|h(a|ae)?ematoxylin",
    re.IGNORECASE,
)
#: Names that programs give where the user gave none: "Channel 0", "C:1", "ch2", "1".
_UNNAMED = re.compile(r"(channel|chan|ch|c|sample|image|intensity)?[\s:_#-]*\d*", re.IGNORECASE)
#: How many channels a message lists at most.
_LISTED = 64


@dataclass(frozen=True, slots=True)
class ChannelChoice:
    """The source channels of a model's input."""

    #: One source channel for each input channel, one that is repeated, or three for ``grey``.
    pick: tuple[int, ...]
    #: Reduce the three picked channels to their luma.
    grey: bool = False

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the chosen channels of raw pixels (h, w, c), before repetition, for statistics."""
        if self.grey:
            return luma(array[:, :, list(self.pick)])
        return array if self.pick == tuple(range(array.shape[2])) else array[:, :, list(self.pick)]

    def to_bytes(self, array: NDArray[Any], mapping: Normalization, wanted: int) -> NDArray[np.uint8]:
        """Return raw pixels (h, w, c) as a model of ``wanted`` channels sees them, uint8 (h, w, wanted)."""
        pixels = mapping.apply(self.apply(array))
        return pixels if pixels.shape[2] == wanted else np.repeat(pixels, wanted, axis=2)


def are_colours(names: Sequence[str]) -> bool:
    """Return whether channels of these names are red, green and blue, in this order."""
    return tuple(name.strip().casefold() for name in names) in (COLOURS, _LETTERS)


def are_unnamed(names: Sequence[str]) -> bool:
    """Return whether these names say nothing, as those that a program counts up."""
    return all(_UNNAMED.fullmatch(name.strip()) for name in names)


def choose(names: Sequence[str], wanted: int, path: Path | str) -> ChannelChoice:
    """Match the channels that a reader hands out with a model.

    Parameters
    ----------
    names
        The reader's channel names.
    wanted
        Channels of the model: 1 or 3.
    path
        The slide, for messages.

    Returns
    -------
    ChannelChoice
        One channel is repeated for a colour model; colours are taken in order, and become grey for a
        grey model.

    Raises
    ------
    ImageError
        There are several channels, and they are not colours: the user must choose.
    """
    count = len(names)
    if count == 1:
        return ChannelChoice((0,))
    if are_colours(names):
        return ChannelChoice((0, 1, 2), grey=wanted == 1)
    colours = ""
    if count >= 3 and are_unnamed(names):
        colours = f", or {option('channels', ['0', '1', '2'])} where these are red, green and blue"
    raise ImageError(
        f"{path}: has {count} channels ({list_channels(names)}) and the model takes one, or the three of a "
        f"colour picture; choose, for example, {option('channels', [advised(names)])}{colours}"
    )


def list_channels(names: Sequence[str]) -> str:
    """Return numbers and names of channels, for a message."""
    listed = ", ".join(f"{i} {name!r}" for i, name in enumerate(names[:_LISTED]))
    return f"{listed} and {len(names) - _LISTED} more" if len(names) > _LISTED else listed


def advised(names: Sequence[str]) -> str:
    """Return the channel that a message advises to take: of nuclei, where a name says so, else the first.

    Its number stands for a name that cannot be told apart in a list.
    """
    best = [i for word in ("dapi", "hoechst") for i, name in enumerate(names) if word in name.casefold()]
    best += [i for i, name in enumerate(names) if _NUCLEAR.search(name)]
    index = best[0] if best else 0
    name = names[index]
    plain = names.count(name) == 1 and name.strip() == name and "," not in name and not are_unnamed([name])
    return name if plain else str(index)
