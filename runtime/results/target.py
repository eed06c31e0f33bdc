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
        none = Cells.empty(slide.channels, len(setup.stains or ()))
        self._tables = [none if setup.named is None else none.with_column("roi", np.empty(0, np.int32))]
        return Opened((self,))

    def write(self, strip: Strip) -> None:
        """Take the next strip."""
        self._labels[strip.y : strip.y + len(strip.labels)] = strip.labels
        self._tables.append(strip.cells)

    def commit(self, report: Report) -> Result:
        """Return the arrays."""
        return Result(report.record(), None, self._labels, Cells.concatenate(self._tables))
