"""OME-Zarr images, versions 0.1 to 0.4 (Zarr 2) and 0.5 (Zarr 3): local folders and URLs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..common.addresses import explain, is_address, is_of_store
from ..common.bounded import brief
from ..common.spelling import option
from ..errors import ImageError, UsageError
from ..geometry.tiling import Region
from .base import Level, Pixels, SlideReader, name_channels, readable, select
from .blocks import reason, skipping
from .chunks import ChunkError, bounded
from .headers import check_piece
from .multiscale import choose_number, fields_of, read_multiscale
from .stores import store_of

#: Chunks of fewer pixels are refused where there are many: each costs a tenth of a millisecond and more.
SMALLEST_CHUNK, MANY_CHUNKS = 256, 1 << 16


class OmeZarrReader(SlideReader):
    """An OME-Zarr multiscale image.

    Parameters
    ----------
    path
        The image's folder, or a URL that fsspec understands.
    series
        Number of the image in a folder of several (the bioformats2raw layout); by default 0.
    z, t
        Depth and time, from 0, the default.
    channels
        Names or numbers of the channels to read; by default all.
    skip_bad_tiles
        Read regions with damaged chunks as zero and list them instead of raising.
    exact
        Hand out what is stored, of whatever type it is: labels.

    Raises
    ------
    ImageError
        The folder is no such image, or is damaged.
    UsageError
        A series, plane or channel does not exist.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        series: int | None = None,
        z: int | None = None,
        t: int | None = None,
        channels: Sequence[int | str] | None = None,
        skip_bad_tiles: bool = False,
        exact: bool = False,
    ) -> None:
        self._exact = exact
        self._skip = skip_bad_tiles
        self._bad: dict[str, None] = {}
        #: As given: a Path would make one slash of the two in a URL.
        self._name = str(path)
        try:
            group = zarr.open_group(store_of(path), mode="r")
            attributes = _attributes(group)
            if "multiscales" not in attributes:
                group = _descend(group, attributes, self._name, series)
                attributes = _attributes(group)
            elif series:
                raise UsageError(f"{path}: there is no series {series}; it has 0 only")
            self._open(self._name, group, attributes, {"z": z, "t": t}, channels)
        except (ImageError, UsageError):
            raise
        except Exception as error:  # zarr and its stores raise what they like
            raise ImageError(_explain(self._name, error)) from None

    def _open(
        self,
        path: str,
        group: Any,
        attributes: Any,
        wanted: dict[str, int | None],
        channels: Sequence[int | str] | None,
    ) -> None:
        image = read_multiscale(path, attributes)
        arrays = [_level(path, group, name) for name in image.levels]
        axes = image.axes_of(path, arrays[0].ndim)
        if any(array.ndim != len(axes) for array in arrays):
            raise ImageError(f"{path}: its axes {brief(list(axes))} do not fit all of its levels")
        at_y, at_x = axes.index("y"), axes.index("x")
        arrays.sort(key=lambda array: -int(array.shape[at_y]) * int(array.shape[at_x]))
        first = arrays[0]
        notes = []
        picked: dict[int, int] = {}
        for number, (name, length) in enumerate(zip(axes, first.shape, strict=True)):
            if name in "cyx":
                continue
            value = wanted.get(name)
            if value is not None and not 0 <= value < length:
                raise UsageError(f"{path}: there is no {option(name, value)}; it has 0 to {length - 1}")
            if value is None and length > 1:
                notes.append(f"{name} 0 of {length} (choose another with {option(name)})")
            picked[number] = value or 0
        wrong = [name for name, value in wanted.items() if value and name not in axes]
        if wrong:
            raise UsageError(
                f"{path}: there is only one plane along {option(wrong[0])} (axes {''.join(axes)})"
            )
        for array in arrays:
            _check_chunks(path, array, at_y, at_x)
            check_piece(path, f"a chunk of {array.name}", array.chunks, array.dtype, "rechunk the image")
        self._arrays = arrays
        self._axes = axes
        # Depth may be reduced from level to level, too.
        self._picked = [
            {n: at * array.shape[n] // max(1, first.shape[n]) for n, at in picked.items()} for array in arrays
        ]
        count = first.shape[axes.index("c")] if "c" in axes else 1
        names = name_channels(image.channel_names(count), count, colour=False)
        self._selection, called = select(names, channels, path)
        height, width = first.shape[at_y], first.shape[at_x]
        sizes = [(a.shape[at_y], a.shape[at_x]) for a in arrays]
        super().__init__(
            Path(path),
            dtype=first.dtype.newbyteorder("=") if self._exact else readable(first.dtype, Path(path)),
            channel_names=called,
            levels=[Level(h, w, (height / max(1, h) + width / max(1, w)) / 2) for h, w in sizes],
            scale=image.scale(at_y, at_x),
            notes=notes,
        )

    @property
    def bad_blocks(self) -> tuple[str, ...]:
        """Regions with damaged chunks that were read as zero."""
        return tuple(self._bad)

    @property
    def location(self) -> str:
        """The folder or the URL."""
        return self._name

    def _read(self, region: Region, level: int) -> Pixels:
        out = np.zeros((region.height, region.width, self.channels), self.dtype)
        for channel, stored in enumerate(self._selection):
            try:
                out[:, :, channel] = self._block(stored, region, level)
            except Exception:  # codecs and stores raise what they like
                self._by_chunks(stored, region, level, out[:, :, channel])
        return out

    def _block(self, channel: int, region: Region, level: int) -> Any:
        """Read a rectangle of one channel, (height, width)."""
        picked = self._picked[level]
        spans = {"c": channel, "y": slice(region.y, region.y1), "x": slice(region.x, region.x1)}
        index = tuple(picked[n] if n in picked else spans[name] for n, name in enumerate(self._axes))
        values = _values(self._arrays[level][index])
        return values if self._axes.index("y") < self._axes.index("x") else values.T

    def _by_chunks(self, channel: int, region: Region, level: int, out: Pixels) -> None:
        """Read a region chunk by chunk, for one of them is damaged; shape of ``out`` (height, width)."""
        chunks, picked = self._arrays[level].chunks, self._picked[level]
        tall, wide = (chunks[self._axes.index(axis)] for axis in "yx")
        for row in range(region.y // tall, -(-region.y1 // tall)):
            for column in range(region.x // wide, -(-region.x1 // wide)):
                y, x = max(row * tall, region.y), max(column * wide, region.x)
                y1, x1 = min((row + 1) * tall, region.y1), min((column + 1) * wide, region.x1)
                try:
                    part = self._block(channel, Region(y, x, y1 - y, x1 - x), level)
                    out[y - region.y : y1 - region.y, x - region.x : x1 - region.x] = part
                except Exception as error:  # codecs and stores raise what they like
                    at = {"c": channel, "y": row * tall, "x": column * wide}
                    place = (picked.get(n, at.get(name, 0)) for n, name in enumerate(self._axes))
                    key = "/".join(str(i // chunk) for i, chunk in zip(place, chunks, strict=True))
                    message = (
                        f"{self._name}: chunk {key} of level {level} "
                        f"(rows from {row * tall}, columns from {column * wide}) cannot be read: "
                        f"{reason(error)}"
                    )
                    if not self._skip:
                        raise ImageError(f"{message}; {skipping()}") from None
                    self._bad[message] = None


def _explain(name: str, error: Exception) -> str:
    """Return why an image could not be opened, and what can be done."""
    if is_address(name):
        if isinstance(error, FileNotFoundError) and "bucket" not in str(error):
            return (
                f"{name}: there is no OME-Zarr image; check the address (files of other formats are known by "
                "the ending of their names)"
            )
        if is_of_store(error):
            return f"{name}: {explain(name, error)}"
    return f"{name}: not a readable OME-Zarr image: {type(error).__name__}: {reason(error)}"


def _attributes(group: Any) -> dict[str, Any]:
    """Return the OME record: under ``ome`` since 0.5, at the top before."""
    attributes: dict[str, Any] = group.attrs.asdict()
    inner = attributes.get("ome")
    return inner if isinstance(inner, dict) else attributes


def _descend(group: Any, attributes: dict[str, Any], path: str, series: int | None) -> Any:
    """Return one image of a folder that holds several."""
    if "plate" in attributes or "well" in attributes:
        raise ImageError(_name_a_field(group, attributes, path))
    numbers = sorted(int(name) for name in group if str(name).isdecimal())
    number = choose_number(path, numbers, series)
    child = group[str(number)]
    if "multiscales" not in _attributes(child):
        raise ImageError(f"{path}: this Zarr folder holds no OME-Zarr image (no multiscales record)")
    return child


def _name_a_field(group: Any, attributes: dict[str, Any], path: str) -> str:
    """Return which fields a plate or a well has, for a message."""
    inner = fields_of(attributes)
    if "well" in attributes:
        listed = ", ".join(inner[:8]) + (" …" if len(inner) > 8 else "")
        example = f"for example {path}/{inner[0]}; it has {listed}" if inner else "it has none"
        return f"{path}: this is a well of a plate; name one of its fields, {example}"
    for well in inner:
        with contextlib.suppress(Exception):  # a well that was never imaged
            field = fields_of(_attributes(group[well]))[0]
            return (
                f"{path}: this is a plate of {len(inner)} wells; name one of its fields, for example "
                f"{path}/{well}/{field}, or all of them: '{path}/*/*/*'"
            )
    return f"{path}: this is a plate of {len(inner)} wells, and none of them holds a picture"


def _check_chunks(path: str, array: Any, at_y: int, at_x: int) -> None:
    """Refuse chunks of no or of so few pixels that a picture of them takes hours."""
    (tall, wide), (height, width) = ((each[at_y], each[at_x]) for each in (array.chunks, array.shape))
    if min(array.chunks) < 1:
        raise ImageError(f"{path}: chunks of {tall}×{wide} pixels hold nothing: its record is damaged")
    count = -(-height // tall) * -(-width // wide)
    if tall * wide < SMALLEST_CHUNK and count > MANY_CHUNKS:
        raise ImageError(
            f"{path}: {height:,}×{width:,} pixels in {count:,} chunks of {tall}×{wide} would take hours; "
            "rechunk the image"
        )


def _level(path: str, group: Any, name: str) -> Any:
    try:
        return bounded(group[name])
    except ChunkError as error:
        raise ImageError(f"{path}: its level {brief(name)} is not read: {error}") from None
    except KeyError:
        raise ImageError(
            f"{path}: not a readable OME-Zarr image: its level {brief(name)} is missing"
        ) from None


def _values(block: Any) -> Any:
    """Return grey levels; bilevel images become 0 and 255."""
    pixels = np.asarray(block)
    return pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels
