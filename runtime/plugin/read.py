"""What napari calls when a folder is opened in it: a finished result becomes layers. Knows nothing of Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CellsegError
from ..readers import SlideReader
from ..results.layers import Layer
from ..results.original import LevelArray, Shared, open_original
from ..results.result import Result
from ..writers.contents import RECORD

#: With more cells outlines are left out: napari draws tens of thousands of polygons slowly.
MOST_OUTLINES = 5_000

Paths = str | Sequence[str]


def reader_of(path: Paths) -> Callable[[Paths], list[Layer]] | None:
    """Return what reads a path, or ``None`` where it is no folder of results.

    Parameters
    ----------
    path
        One folder, or several.
    """
    return read if all((Path(each) / RECORD).is_file() for each in _several(path)) else None


def read(path: Paths) -> list[Layer]:
    """Return the layers of one result or of several: picture, labels, centres, outlines.

    Raises
    ------
    OutputError
        A result is damaged or of a newer release.
    """
    return [layer for folder in _several(path) for layer in result_layers(Result.open(folder))]


def _several(path: Paths) -> list[str]:
    return [path] if isinstance(path, str) else list(path)


def result_layers(result: Result) -> list[Layer]:
    """Return the picture of a result, where it can still be read, and above it what was found."""
    try:
        picture = picture_layers(open_original(result.record), result.record.image.pixel_size_um)
    except CellsegError:
        picture = []
    return [*picture, *result.to_napari(outlines=result.count <= MOST_OUTLINES)]


def picture_layers(reader: SlideReader, pixel_size: float | None) -> list[Layer]:
    """Return a picture as layers, level by level: one in colours, or one a channel.

    Parameters
    ----------
    reader
        Stays open as long as a layer is there: napari reads from it as one looks around.
    pixel_size
        Micrometres, where known.
    """
    size, shared = pixel_size or 1.0, Shared(reader)
    common: dict[str, Any] = {"scale": (size, size), "multiscale": len(reader.levels) > 1}
    if reader.dtype == np.uint8 and reader.channels == 3:
        return [(_levels(shared, None), {"name": reader.path.name, "rgb": True, **common}, "image")]
    sample = np.asarray(reader.sample(1_000_000), np.float64)
    layers: list[Layer] = []
    for channel, name in enumerate(reader.channel_names):
        low, high = (float(value) for value in np.nanpercentile(sample[..., channel], (0.5, 99.8)))
        look = {"contrast_limits": (low, high if high > low else low + 1), "blending": "additive"}
        title = reader.path.name if reader.channels == 1 else f"{reader.path.name} {name}"
        layers.append((_levels(shared, channel), {"name": title, **look, **common}, "image"))
    return layers


def _levels(shared: Shared, channel: int | None) -> Any:
    levels = [LevelArray(shared, number, channel) for number in range(len(shared.reader.levels))]
    return levels if len(levels) > 1 else levels[0]
