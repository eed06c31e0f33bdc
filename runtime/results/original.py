"""The picture that a result is of, opened again as the run saw it, also as arrays that load late."""

from __future__ import annotations

import math
import os
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.addresses import is_address
from ..common.names import original
from ..errors import DataError
from ..geometry.tiling import Region
from ..readers import SlideReader, open_slide
from .record import RunRecord


def place_of(record: RunRecord) -> str | None:
    """Return where the image of a run is, from wherever one asks; ``None`` where it is not there any more."""
    given, whole = record.image.path, record.image.source.path
    if is_address(given):
        return given
    found = original(given) or original(whole)
    return None if found is None else str(found)


def is_gone(record: RunRecord) -> bool:
    """Return whether the image is no longer where the run found it."""
    return place_of(record) is None


def open_original(record: RunRecord, image: str | os.PathLike[str] | None = None) -> SlideReader:
    """Open the image of a run, with the plane and the channels that the run saw.

    Parameters
    ----------
    record
        Of the run.
    image
        Where the image is, if not where it was.

    Raises
    ------
    DataError
        It is not there any more, or another image is.
    ImageError
        It cannot be read.
    """
    path = place_of(record) if image is None else os.fspath(image)
    if path is None:
        raise DataError(f"{record.image.path} is not there any more; say where it is")
    asked = {name: record.options.get(name) for name in ("series", "page", "z", "t", "channels")}
    # A damaged tile is shown black.
    reader = open_slide(path, **asked, skip_bad_tiles=True)
    wanted = record.image.height, record.image.width
    if (reader.height, reader.width) != wanted:
        size = f"{reader.height}×{reader.width}"
        reader.close()
        raise DataError(f"{path} has {size} pixels, the result {wanted[0]}×{wanted[1]}: it is another image")
    return reader


class Shared:
    """A picture that is closed when nobody looks at it any more."""

    def __init__(self, reader: SlideReader) -> None:
        self.reader = reader
        weakref.finalize(self, reader.close)


class LevelArray:
    """One resolution of a picture, read as it is indexed: as much of an array as viewers ask for.

    Parameters
    ----------
    shared
        The picture.
    number
        Of the level.
    channel
        The only one of the array, which then has two axes; none for all, as the last axis.
    """

    def __init__(self, shared: Shared, number: int, channel: int | None) -> None:
        self._shared, self._number, self._channel = shared, number, channel
        level = shared.reader.levels[number]
        self.shape: tuple[int, ...] = (
            level.height,
            level.width,
            *(() if channel is not None else (shared.reader.channels,)),
        )
        self.dtype, self.ndim = shared.reader.dtype, len(self.shape)
        self.size = math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def __getitem__(self, part: Any) -> NDArray[Any]:
        given: list[Any] = list(part) if isinstance(part, tuple) else [part]
        if Ellipsis in given:
            at = given.index(Ellipsis)
            given[at : at + 1] = [slice(None)] * (self.ndim - len(given) + 1)
        y, x, *rest = given + [slice(None)] * (self.ndim - len(given))
        rows, columns = _span(y, self.shape[0]), _span(x, self.shape[1])
        if not (rows and columns):
            return np.empty((len(rows), len(columns), *self.shape[2:]), self.dtype)
        region = Region(rows.start, columns.start, len(rows), len(columns))
        pixels = self._shared.reader.read(region, self._number)
        if self._channel is not None:
            pixels = pixels[..., self._channel]
        found: NDArray[Any] = pixels[(_within(y), _within(x), *rest)]
        return found


def _span(part: Any, size: int) -> range:
    """Return the rows from the first to the last that an index asks for."""
    if isinstance(part, slice):
        wanted = range(*part.indices(size))
        return range(min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1]) + 1) if len(wanted) else range(0)
    at = range(size)[int(part)]
    return range(at, at + 1)


def _within(part: Any) -> Any:
    """Return the index that is left once these rows were read."""
    return slice(None, None, part.step) if isinstance(part, slice) else 0
