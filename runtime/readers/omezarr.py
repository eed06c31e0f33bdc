"""OME-Zarr images, versions 0.4 (Zarr 2) and 0.5 (Zarr 3): local folders and URLs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..errors import ImageError, UsageError
from ..geometry.tiling import Region
from .base import Level, Pixels, SlideReader, name_channels, readable, select
from .blocks import SKIP, reason
from .headers import HARMLESS_BYTES
from .tiff_metadata import to_microns

#: What pip must install before an address of a scheme can be read.
PACKAGES = {
    "http": "'cellseg[remote]'", "https": "'cellseg[remote]'", "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs",
    "az": "adlfs", "abfs": "adlfs",
}  # fmt: skip
#: A chunk beyond this is refused: it would have to be decoded whole.
MAX_CHUNK_BYTES = 2 << 30


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
    ) -> None:
        self._skip = skip_bad_tiles
        self._bad: dict[str, None] = {}
        #: As given: a Path would make one slash of the two in a URL.
        self._name = str(path)
        try:
            group = zarr.open_group(str(path), mode="r")
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
        scales = attributes["multiscales"][0]
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scales["axes"]]
        names = [str(axis["name"]).lower() for axis in axes]
        if names[-2:] != ["y", "x"]:
            raise ImageError(f"{path}: its axes are {names}; wanted y and x last")
        arrays = [group[dataset["path"]] for dataset in scales["datasets"]]
        first = arrays[0]
        if any(array.ndim != len(names) for array in arrays):
            raise ImageError(f"{path}: its axes {names} do not fit its arrays of {first.ndim} dimensions")
        notes = []
        self._index: list[Any] = []
        for name, length in zip(names[:-2], first.shape, strict=False):
            if name == "c":
                self._index.append(slice(None))
                continue
            value = wanted.get(name)
            if value is not None and not 0 <= value < length:
                raise UsageError(f"{path}: there is no --{name} {value}; it has 0 to {length - 1}")
            if value is None and length > 1:
                notes.append(f"{name} 0 of {length} (choose another with --{name})")
            self._index.append(value or 0)
        wrong = [name for name, value in wanted.items() if value and name not in names]
        if wrong:
            raise UsageError(f"{path}: there is only one plane along --{wrong[0]} (axes {''.join(names)})")
        for array in arrays:
            size = int(np.prod(array.chunks, dtype=np.float64)) * array.dtype.itemsize
            if size > max(MAX_CHUNK_BYTES, HARMLESS_BYTES):
                raise ImageError(
                    f"{path}: a chunk of {array.name} holds {size / 1e9:.1f} GB; rechunk the image"
                )
        self._arrays = arrays
        count = first.shape[names.index("c")] if "c" in names else 1
        labels = [str(c.get("label") or "") for c in attributes.get("omero", {}).get("channels", [])]
        self._selection, called = select(name_channels(labels, count, colour=False), channels, Path(path))
        height, width = first.shape[-2:]
        super().__init__(
            Path(path),
            dtype=readable(first.dtype, Path(path)),
            channel_names=called,
            levels=[
                Level(
                    a.shape[-2], a.shape[-1], (height / max(1, a.shape[-2]) + width / max(1, a.shape[-1])) / 2
                )
                for a in arrays
            ],
            pixel_size=_pixel_size(scales, axes),
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
            index = tuple(stored if isinstance(i, slice) else i for i in self._index)
            try:
                out[:, :, channel] = self._block(index, region, level)
            except Exception:  # codecs and stores raise what they like
                self._by_chunks(index, region, level, out[:, :, channel])
        return out

    def _block(self, index: tuple[int, ...], region: Region, level: int) -> Any:
        window = (slice(region.y, region.y1), slice(region.x, region.x1))
        return _values(self._arrays[level][(*index, *window)])

    def _by_chunks(self, index: tuple[int, ...], region: Region, level: int, out: Pixels) -> None:
        """Read a region chunk by chunk, for one of them is damaged; shape of ``out`` (height, width)."""
        tall, wide = self._arrays[level].chunks[-2:]
        for row in range(region.y // tall, -(-region.y1 // tall)):
            for column in range(region.x // wide, -(-region.x1 // wide)):
                y, x = max(row * tall, region.y), max(column * wide, region.x)
                y1, x1 = min((row + 1) * tall, region.y1), min((column + 1) * wide, region.x1)
                try:
                    part = self._block(index, Region(y, x, y1 - y, x1 - x), level)
                    out[y - region.y : y1 - region.y, x - region.x : x1 - region.x] = part
                except Exception as error:  # codecs and stores raise what they like
                    message = (
                        f"{self._name}: chunk {'/'.join(map(str, (*index, row, column)))} of level {level} "
                        f"(rows from {row * tall}, columns from {column * wide}) cannot be read: "
                        f"{reason(error)}"
                    )
                    if not self._skip:
                        raise ImageError(f"{message}; {SKIP}") from None
                    self._bad[message] = None


def _explain(name: str, error: Exception) -> str:
    """Return why an image could not be opened, and what can be done."""
    scheme, remote, _ = name.partition("://")
    if isinstance(error, ImportError) and remote:
        package = PACKAGES.get(scheme)
        advice = f"pip install {package}" if package else "install what fsspec asks for"
        return f"{name}: reading {scheme}:// needs another package ({reason(error)}): {advice}"
    if remote and "protocol not known" in str(error).lower():
        return f"{name}: {scheme}:// is no address that can be read; use https://, s3:// or a path"
    if remote and isinstance(error, FileNotFoundError):
        return (
            f"{name}: there is no OME-Zarr image; check the address (other formats are not read from URLs: "
            "download them first)"
        )
    if remote and isinstance(error, OSError):
        return f"{name}: cannot be reached: {reason(error)}; check address and connection"
    return f"{name}: not a readable OME-Zarr image: {type(error).__name__}: {reason(error)}"


def _attributes(group: Any) -> Any:
    """Return the OME record: under ``ome`` since 0.5, at the top before."""
    attributes = group.attrs.asdict()
    return attributes.get("ome", attributes)


def _descend(group: Any, attributes: Any, path: str, series: int | None) -> Any:
    """Return one image of a folder that holds several."""
    if "plate" in attributes or "well" in attributes:
        raise ImageError(f"{path}: this is a plate; name one of its fields, for example {path}/A/1/0")
    numbers = sorted(int(name) for name in group if str(name).isdecimal())
    number = series or 0
    if number not in numbers:
        if series is not None and numbers:
            raise UsageError(f"{path}: there is no series {series}; it has {numbers[0]} to {numbers[-1]}")
        raise ImageError(f"{path}: this Zarr folder holds no OME-Zarr image (no multiscales record)")
    child = group[str(number)]
    if "multiscales" not in _attributes(child):
        raise ImageError(f"{path}: this Zarr folder holds no OME-Zarr image (no multiscales record)")
    return child


def _pixel_size(scales: Any, axes: list[Any]) -> float | None:
    """Return micrometres a pixel of the first dataset."""
    factor, found = 1.0, False
    for holder in (scales["datasets"][0], scales):
        for transform in holder.get("coordinateTransformations", []):
            if transform.get("type") == "scale":
                factor *= float(transform["scale"][-1])
                found = True
    unit = axes[-1].get("unit")
    return to_microns(factor, str(unit)) if found and unit else None


def _values(block: Any) -> Any:
    """Return grey levels; bilevel images become 0 and 255."""
    pixels = np.asarray(block)
    return pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels
