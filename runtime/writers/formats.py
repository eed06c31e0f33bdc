"""Other formats for finished labels: a pyramidal OME-TIFF, or a PNG for small images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
import zarr

from ..errors import OutputError
from .base import write_whole, writing

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
    pixels = level.shape[0] * level.shape[1]
    if pixels > MAX_PNG_PIXELS:
        raise OutputError(
            f"{path}: {level.shape[0]:,}×{level.shape[1]:,} pixels are too many for a PNG "
            f"({MAX_PNG_PIXELS:,}); choose --labels tiff or zarr"
        )
    array = np.asarray(level[:])
    if array.max(initial=0) > MAX_PNG_LABEL:
        raise OutputError(
            f"{path}: {array.max():,} cells are too many for a 16-bit PNG ({MAX_PNG_LABEL:,}); choose "
            "--labels tiff or zarr"
        )
    _, data = cv2.imencode(".png", array.astype(np.uint16))
    write_whole(path, data.tobytes())


def convert_labels(folder: Path, kind: str, *, pixel_size: float | None = None) -> None:
    """Replace ``labels.ome.zarr`` in a folder of results by another format.

    Parameters
    ----------
    folder
        The folder.
    kind
        ``tiff`` or ``png``; ``zarr`` leaves it as it is.
    pixel_size
        Micrometres a pixel, where known.

    Raises
    ------
    OutputError
        The labels do not fit the format, or cannot be written.
    """
    source = folder / "labels.ome.zarr"
    if kind == "zarr":
        return
    if kind == "tiff":
        labels_to_tiff(source, folder / "labels.ome.tif", pixel_size=pixel_size)
    else:
        labels_to_png(source, folder / "labels.png")
    shutil.rmtree(source)


def read_labels(folder: Path) -> npt.NDArray[np.int32]:
    """Return the label image of a folder of results, whatever its format."""
    if (folder / "labels.ome.tif").is_file():
        return np.asarray(tifffile.imread(folder / "labels.ome.tif"), np.int32)
    if (folder / "labels.png").is_file():
        return np.asarray(cv2.imread(str(folder / "labels.png"), cv2.IMREAD_UNCHANGED), np.int32)
    level: Any = zarr.open_array(folder / "labels.ome.zarr" / "0", mode="r")
    return np.asarray(level[:], np.int32)


def _tiles(level: Any) -> Iterator[npt.NDArray[np.int32]]:
    """Yield a level's tiles row by row, padded with zeros; one row of tiles is held at a time."""
    height, width = level.shape
    for y in range(0, height, TILE):
        rows = np.zeros((TILE, -(-width // TILE) * TILE), np.int32)
        band = np.asarray(level[y : y + TILE])
        rows[: band.shape[0], :width] = band
        for x in range(0, width, TILE):
            yield np.ascontiguousarray(rows[:, x : x + TILE])
