"""Which channels of a slide a model sees.

Decided once per slide; the gather kernel and the measurement of the slide's mapping follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import ImageError
from .normalization import luma

_COLOURS = ("red", "green", "blue")


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


def choose(names: Sequence[str], wanted: int, path: Path) -> ChannelChoice:
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
        Equal counts are taken in order; one channel is repeated for a colour model; colours become
        grey for a grey model.

    Raises
    ------
    ImageError
        The counts do not match: the user must choose.
    """
    count = len(names)
    if count == wanted or count == 1:
        return ChannelChoice(tuple(range(count)))
    if wanted == 1 and tuple(names[:3]) == _COLOURS and count == 3:
        return ChannelChoice((0, 1, 2), grey=True)
    listed = ", ".join(f"{i} {name!r}" for i, name in enumerate(names))
    takes = "1 channel" if wanted == 1 else "1 or 3 channels"
    raise ImageError(
        f"{path}: has {count} channels ({listed}) and the model takes {takes}; "
        "choose, for example, --channels 0"
    )
