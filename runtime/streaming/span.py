"""A part of a slide's bands, for runs that do no more than that."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..instances import Stats
from ..instances.expansion import Expansion
from .setup import Setup


class Splitting(Protocol):
    """What takes finished rows of planes; :class:`~cellseg.runtime.instances.InstanceStream` is one."""

    @property
    def stats(self) -> Stats:
        """Counts so far."""
        ...

    def push(self, planes: NDArray[np.uint8], image: NDArray[Any] | None = None, /) -> list[Any]:
        """Take the next rows; return what is finished, for the sinks."""
        ...

    def finish(self) -> list[Any]:
        """All rows are in."""
        ...

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """End, by an error or not."""
        ...


@dataclass(frozen=True, slots=True)
class SpanOf:
    """Bands in a row of one slide."""

    #: The bands that are computed, and the first whose rows count: where tiles are averaged, rows need
    #: the tiles of bands above them.
    bands: range
    first: int
    #: The rows that count, in the reader's pixels, half-open.
    y: int
    y1: int
    #: Takes the rows; without it they become strips.
    split: Splitting | None = None

    @classmethod
    def all(cls, setup: Setup) -> Self:
        """Return all bands of a slide."""
        return cls(range(setup.grid.n_bands), 0, 0, setup.grid.height)


def expansion_of(setup: Setup) -> Expansion | None:
    """Return what grows nuclei into cells, where that is wanted."""
    if setup.distance is None:
        return None
    return Expansion(
        setup.grid.height,
        setup.grid.width,
        setup.distance,
        image_channels=setup.reader.channels,
        stains=setup.measures.stains,
        workers=setup.workers,
    )


def stream_options(setup: Setup) -> dict[str, Any]:
    """Return what whoever splits the planes of a slide is told."""
    return {
        "height": setup.grid.height,
        "width": setup.grid.width,
        "heads": setup.backend.spec.heads,
        "settings": setup.split,
        "image_channels": setup.reader.channels,
        "stains": setup.measures.stains,
        "workers": setup.workers,
    }
