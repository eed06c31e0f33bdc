"""Where results go: memory here, or a folder (:mod:`.folder`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..instances import Cells, Strip
from ..streaming.journal import Journal
from ..streaming.setup import Setup, Sink
from .report import Report
from .result import Result


@dataclass(frozen=True, slots=True)
class Opened:
    """What takes what a run makes."""

    #: Take the strips.
    sinks: tuple[Sink, ...]
    #: Wants to see the raw rows as they are read.
    watch: Callable[[NDArray[Any]], None] | None = None
    #: Wants to see the planes of each band.
    planes: Callable[[NDArray[np.uint8]], None] | None = None
    #: Keeps finished bands.
    journal: Journal | None = None


class Target(ABC):
    """Where strips go: a context manager that leaves nothing behind unless committed."""

    @abstractmethod
    def open(self, setup: Setup) -> Opened:
        """Get ready for a slide; return what takes its strips."""

    def finish(self) -> None:
        """All strips have been written: finish the files."""
        return

    @abstractmethod
    def commit(self, report: Report) -> Result:
        """Make the results final."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Memory(Target):
    """Collects strips into one label image and one table."""

    def open(self, setup: Setup) -> Opened:
        """Make the label image."""
        slide = setup.slide
        self._labels = np.empty((slide.height, slide.width), np.int32)
        self._whole = None if setup.distance is None else np.empty_like(self._labels)
        none = Cells.empty(
            slide.channels, len(setup.measures.stains or ()), expanded=setup.distance is not None
        )
        for name, there in (("class", setup.measures.classes), ("roi", setup.named)):
            if there is not None:
                none = none.with_column(name, np.empty(0, np.int32))
        self._tables = [none]
        return Opened((self,))

    def write(self, strip: Strip) -> None:
        """Take the next strip."""
        self._labels[strip.y : strip.y + len(strip.labels)] = strip.labels
        if self._whole is not None and strip.whole is not None:
            self._whole[strip.y : strip.y + len(strip.labels)] = strip.whole
        self._tables.append(strip.cells)

    def commit(self, report: Report) -> Result:
        """Return the arrays."""
        return Result(report.record(), None, self._labels, Cells.concatenate(self._tables), self._whole)
