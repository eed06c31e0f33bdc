"""Rows of planes and pixels around seams, kept for those who go over them again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..instances.fragments import Fragment, FragmentStream
from ..instances.stream import Stats
from .blocks import BlockReader, BlockWriter

#: Rows that wait in memory at most; those above go to the file.
WAITING = 1024
#: Rows that are handed over at once.
PUSH = 256

_Rows = tuple[int, NDArray[np.uint8], NDArray[Any]]


class KeepingStream:
    """A span's stream of rows that keeps those that the seams will need.

    Parameters
    ----------
    stream
        Takes the rows.
    y
        Where they begin.
    file
        Gets those to be kept: each block is some rows from ``y``, ``planes`` (K, rows, W) and ``image``
        (rows, W, channels). Rows may be in it twice.
    """

    def __init__(self, stream: FragmentStream, y: int, file: BlockWriter) -> None:
        self._stream, self._file = stream, file
        self._y = self._begin = y
        self._waiting: deque[_Rows] = deque()

    @property
    def stats(self) -> Stats:
        """Counts of the stream."""
        return self._stream.stats

    def push(self, planes: NDArray[np.uint8], image: NDArray[Any] | None = None) -> list[Fragment]:
        """Take the next rows."""
        assert image is not None
        fragments = self._stream.push(planes, image)
        y, self._y = self._y, self._y + planes.shape[1]
        reach = self._stream.reach
        wanted = max(reach.top, self._begin + 1) if self._begin else 0
        if y < wanted:  # the upper seam needs these
            self._keep(y, planes[:, : wanted - y], image[: wanted - y])
        while self._waiting and self._waiting[0][0] + len(self._waiting[0][2]) <= reach.bottom:
            self._waiting.popleft()
        first = max(reach.bottom, y)
        if first < self._y and not (y < wanted and wanted >= self._y):
            self._waiting.append((first, planes[:, first - y :].copy(), image[first - y :].copy()))
        while sum(len(rows) for _, _, rows in self._waiting) > WAITING:
            self._keep(*self._waiting.popleft())
        return fragments

    def finish(self) -> list[Fragment]:
        """All rows are in: keep those that wait."""
        while self._waiting:
            y, planes, image = self._waiting.popleft()
            first = max(self._stream.reach.bottom, y) - y
            self._keep(y + first, planes[:, first:], image[first:])
        return self._stream.finish()

    def _keep(self, y: int, planes: NDArray[np.uint8], image: NDArray[Any]) -> None:
        if len(image):
            self._file.add({"y": y, "y1": y + len(image)}, {"planes": planes, "image": image})

    def __enter__(self) -> Self:
        self._stream.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.__exit__(kind, error, trace)


def kept_rows(file: BlockReader, y: int, y1: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[Any]]]:
    """Yield the rows from ``y`` to ``y1`` in order, as planes and image; the file holds all of them."""
    places = [(file.told(block)["y"], file.told(block)["y1"]) for block in range(len(file))]
    while y < y1:
        block = max(
            (n for n, (start, end) in enumerate(places) if start <= y < end), key=lambda n: places[n][1]
        )
        start, end = places[block]
        found = file.load(block)
        for first in range(y, min(end, y1), PUSH):
            rows = slice(first - start, min(first + PUSH, end, y1) - start)
            yield found["planes"][:, rows], found["image"][rows]
        y = min(end, y1)
