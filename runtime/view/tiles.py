"""Tiles as bytes that a browser shows: the picture as JPEG, cells and planes as PNG with transparency.

Tiles lie as in the pyramids of OpenSeadragon and Deep Zoom: at zoom 0 the picture is one pixel, each zoom
doubles it, and the last is the full resolution. Tiles are ``TILE`` pixels wide, less at the right and lower
edge.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..geometry.tiling import Region
from ..kernels.tint import tint
from .scene import Scene
from .style import Style

#: Edge of a tile in pixels.
TILE = 512
#: Quality of the picture's JPEG, and effort of PNG: drawn tiles are flat, and travel over the loopback only.
QUALITY, EFFORT = 85, 1
#: Tables of colours that are kept.
KEPT = 8


def zooms(height: int, width: int) -> int:
    """Return the zoom at which the picture has its full resolution."""
    return max(0, (max(height, width) - 1).bit_length())


def place(scene: Scene, zoom: int, column: int, row: int) -> tuple[Region, int]:
    """Return the part of the image that a tile covers, and how many of its pixels make one.

    Raises
    ------
    UsageError
        There is no such tile.
    """
    last = zooms(scene.height, scene.width)
    if not 0 <= zoom <= last:
        raise UsageError(f"zoom {zoom}: the picture has 0 to {last}")
    step = 1 << (last - zoom)
    y, x = row * TILE * step, column * TILE * step
    if not (0 <= y < scene.height and 0 <= x < scene.width):
        raise UsageError(f"tile {column}, {row} at zoom {zoom} lies outside of the picture")
    return Region(y, x, min(TILE * step, scene.height - y), min(TILE * step, scene.width - x)), step


class Painter:
    """Draws the tiles of scenes; may be called from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tables: OrderedDict[tuple[int, Style], tuple[NDArray[np.uint8], NDArray[np.uint8]]] = (
            OrderedDict()
        )

    def picture(self, scene: Scene, zoom: int, column: int, row: int) -> bytes | None:
        """Return a tile of the picture as JPEG, or None without a picture."""
        import cv2

        pixels = scene.picture_at(*place(scene, zoom, column, row))
        if pixels is None:
            return None
        return _encoded(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])

    def cells(self, scene: Scene, zoom: int, column: int, row: int, style: Style) -> bytes:
        """Return a tile of the cells as PNG."""
        import cv2

        region, step = place(scene, zoom, column, row)
        height, width = -(-region.height // step), -(-region.width // step)
        labels = scene.labels_at(region.y // step - 1, region.x // step - 1, height + 2, width + 2, step)
        colour_of, palette = self._table(scene, style)
        out = np.empty((height, width, 4), np.uint8)
        tint(labels, colour_of, palette, round(255 * min(max(style.fill, 0.0), 1.0)), out)
        return _encoded(".png", out, [cv2.IMWRITE_PNG_COMPRESSION, EFFORT])

    def plane(self, scene: Scene, head: str, zoom: int, column: int, row: int) -> bytes | None:
        """Return a tile of one of the network's planes as PNG, or None where it was not kept."""
        import cv2

        pixels = scene.plane_at(head, *place(scene, zoom, column, row))
        if pixels is None:
            return None
        out = np.dstack([cv2.applyColorMap(pixels, cv2.COLORMAP_INFERNO), pixels])
        return _encoded(".png", out, [cv2.IMWRITE_PNG_COMPRESSION, EFFORT])

    def _table(self, scene: Scene, style: Style) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        key = (id(scene), style)
        with self._lock:
            if key not in self._tables:
                self._tables[key] = style.lookup(scene)
            self._tables.move_to_end(key)
            while len(self._tables) > KEPT:
                self._tables.popitem(last=False)
            return self._tables[key]


def _encoded(suffix: str, pixels: Any, options: list[int]) -> bytes:
    import cv2

    done, data = cv2.imencode(suffix, pixels, options)
    assert done
    return bytes(data)
