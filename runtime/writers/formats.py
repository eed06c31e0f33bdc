"""Other formats for finished labels: a pyramidal OME-TIFF, or a PNG for small images."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
import zarr

from ..common.files import writing
from ..common.pulse import beat
from ..common.spelling import option
from ..errors import OutputError
from ..instances import Strip
from .base import Writer, write_whole
from .contents import check
from .labels import LabelField, LabelsZarr

#: Edge of a TIFF tile in pixels.
TILE = 512
#: Largest image and highest label that a 16-bit PNG is made of.
MAX_PNG_PIXELS, MAX_PNG_LABEL = 1 << 28, (1 << 16) - 1


def labels_to_tiff(labels: Path, path: Path, *, pixel_size: float | None = None) -> None:
    """Convert ``labels.ome.zarr`` into a tiled OME-TIFF with the same pyramid in SubIFDs.

    Parameters
    ----------
    labels
        Folder written by :class:`~cellseg.runtime.writers.LabelsZarr`.
    path
        The file to make.
    pixel_size
        Micrometres a pixel, where known.

    Raises
    ------
    OutputError
        It cannot be written; nothing is left then.
    """
    group: Any = zarr.open_group(labels, mode="r")
    levels = [group[name] for name in sorted(group.array_keys(), key=int)]
    metadata: dict[str, Any] = {"axes": "YX", "Name": "labels"}
    if pixel_size is not None:
        metadata |= {"PhysicalSizeX": pixel_size, "PhysicalSizeXUnit": "µm"}
        metadata |= {"PhysicalSizeY": pixel_size, "PhysicalSizeYUnit": "µm"}
    options = {"dtype": np.int32, "tile": (TILE, TILE), "compression": "zlib", "photometric": "minisblack"}
    try:
        with writing(path), tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
            for number, level in enumerate(levels):
                extra: dict[str, Any] = (
                    {"subifds": len(levels) - 1, "metadata": metadata}
                    if number == 0
                    else {"subfiletype": 1, "metadata": None}
                )
                file.write(_tiles(level), shape=level.shape, **options, **extra)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def labels_to_png(labels: Path, path: Path) -> None:
    """Convert ``labels.ome.zarr`` into a 16-bit PNG.

    Raises
    ------
    OutputError
        The image is too large or has too many cells for the format, or cannot be written.
    """
    level: Any = zarr.open_group(labels, mode="r")["0"]
    check_png(path, level.shape[0], level.shape[1])
    array = np.asarray(level[:])
    check_png(path, level.shape[0], level.shape[1], int(array.max(initial=0)))
    _, data = cv2.imencode(".png", array.astype(np.uint16))
    write_whole(path, data.tobytes())


class _Converted(Writer):
    """Writes labels in another format, made from a ``labels.ome.zarr`` that is removed afterwards.

    Parameters are those of :class:`~cellseg.runtime.writers.LabelsZarr`.
    """

    def __init__(
        self,
        path: Path,
        height: int,
        width: int,
        *,
        pixel_size: float | None = None,
        name: str = "labels",
        field: LabelField = "labels",
    ) -> None:
        self.path = path
        self._pixel_size = pixel_size
        store = path.with_name(f"{path.name.partition('.')[0]}.ome.zarr")
        self._zarr = LabelsZarr(store, height, width, pixel_size=pixel_size, name=name, field=field)

    def write(self, strip: Strip) -> None:
        """Take the next strip."""
        self._zarr.write(strip)

    def commit(self) -> None:
        """Convert what was written."""
        self._zarr.commit()
        check(self._zarr.written())  # a shard that has gone would be read as background
        self._convert()
        with writing(self._zarr.path):
            shutil.rmtree(self._zarr.path)

    @abstractmethod
    def _convert(self) -> None:
        """Make the file from the finished ``labels.ome.zarr``; after an error it is not there."""

    def discard(self) -> None:
        """Remove what there is, unless committed."""
        self._zarr.discard()


class LabelsTiff(_Converted):
    """Writes ``labels.ome.tif``."""

    def _convert(self) -> None:
        labels_to_tiff(self._zarr.path, self.path, pixel_size=self._pixel_size)


class LabelsPng(_Converted):
    """Writes ``labels.png``; what does not fit is refused as soon as that is known.

    Raises
    ------
    OutputError
        The image is too large for the format.
    """

    def __init__(self, path: Path, height: int, width: int, **options: Any) -> None:
        check_png(path, height, width)
        super().__init__(path, height, width, **options)

    def write(self, strip: Strip) -> None:
        """Take the next strip.

        Raises
        ------
        OutputError
            There are too many cells for the format.
        """
        if len(strip.cells):
            check_png(self.path, 0, 0, int(strip.cells.columns["label"].max()))
        super().write(strip)

    def _convert(self) -> None:
        labels_to_png(self._zarr.path, self.path)


def check_png(path: Path, height: int, width: int, cells: int = 0) -> None:
    """Refuse an image that is too large for a 16-bit PNG, or has too many cells."""
    if height * width > MAX_PNG_PIXELS:
        raise OutputError(
            f"{path}: {height:,}×{width:,} pixels are too many for a PNG ({MAX_PNG_PIXELS:,}); choose "
            f"{option('labels', 'zarr')}"
        )
    if cells > MAX_PNG_LABEL:
        raise OutputError(
            f"{path}: {cells:,} cells are too many for a 16-bit PNG ({MAX_PNG_LABEL:,}); choose "
            f"{option('labels', 'zarr')}"
        )


def _tiles(level: Any) -> Iterator[npt.NDArray[np.int32]]:
    """Yield a level's tiles row by row, padded with zeros; one row of tiles is held at a time."""
    height, width = level.shape
    for y in range(0, height, TILE):
        rows = np.zeros((TILE, -(-width // TILE) * TILE), np.int32)
        band = np.asarray(level[y : y + TILE])
        rows[: band.shape[0], :width] = band
        beat()
        for x in range(0, width, TILE):
            yield np.ascontiguousarray(rows[:, x : x + TILE])
