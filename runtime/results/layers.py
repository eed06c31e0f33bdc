"""Results as napari takes them: LayerData tuples, made without napari.

A tuple is (data, keyword arguments, kind of layer), as ``napari.layers.Layer.create`` and the reader
contribution of a plugin take it. Places are in napari's order, y and x, where the centre of a
pixel is its index; ``scale`` makes micrometres of them where the size of a pixel is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .result import Result

#: (data, keyword arguments, ``labels``, ``points`` or ``shapes``).
Layer = tuple[Any, dict[str, Any], str]
#: Columns that lie in the data of a layer already.
PLACES = ("centroid_y", "centroid_x", "centroid_y_um", "centroid_x_um")


def layers(result: Result, *, outlines: bool = True) -> list[Layer]:
    """Return layers: ``labels``, the centres of cells as ``points``, and their outlines as ``shapes``.

    Where nuclei were grown into cells, the labels of whole cells come first.

    Parameters
    ----------
    result
        In memory or in a folder.
    outlines
        Whether to make the shapes; napari draws tens of thousands of them slowly.
    """
    name = Path(result.record.image.path).name
    size = result.record.image.pixel_size_um or 1.0
    common: dict[str, Any] = {"scale": (size, size), "metadata": {"cellseg": result.record.to_dict()}}
    levels = result.levels
    features = result.table
    centres = np.stack([features["centroid_y"], features["centroid_x"]], axis=1).astype(np.float64)
    shown = {key: values for key, values in features.items() if key not in PLACES}
    images = [("labels", levels)]
    if result.cell_levels is not None:
        images.insert(0, ("whole cells", result.cell_levels))  # below those of nuclei
    found: list[Layer] = [
        *(_labels(f"{name} {what}", image, features["label"], shown, common) for what, image in images),
        (centres, {"name": f"{name} cells", "features": shown, "size": 4, **common}, "points"),
    ]
    if outlines:
        look = {"shape_type": "polygon", "edge_width": 1, "edge_color": "yellow", "face_color": "transparent"}
        cells = result.cells
        rings = [_corners(cells.ring(at)) for at in range(len(cells))]
        found.append((rings, {"name": f"{name} outlines", "features": shown, **look, **common}, "shapes"))
    return found


def _labels(
    name: str, levels: list[Any], numbers: NDArray[Any], shown: dict[str, Any], common: dict[str, Any]
) -> Layer:
    """Return a layer of labels."""
    # A list of one is no pyramid to napari, which finds the row of a label by the column `index`.
    data, more = (levels, {"multiscale": True}) if len(levels) > 1 else (levels[0], {})
    return data, {"name": name, "features": {"index": numbers, **shown}, **common, **more}, "labels"


def _corners(ring: NDArray[Any]) -> NDArray[np.float64]:
    """Return corners of pixels, x and y from the image's corner, as napari counts: from a pixel's centre."""
    return ring[:, ::-1].astype(np.float64) - 0.5
