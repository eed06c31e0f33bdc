"""Results as napari takes them: LayerData tuples, made without napari.

A tuple is (data, keyword arguments, kind of layer), as ``napari.layers.Layer.create`` and the reader
contribution of a plugin take it. Places are in napari's order, y and x, where the centre of a
pixel is its index; ``scale`` makes micrometres of them where the size of a pixel is known.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..instances import Cells

if TYPE_CHECKING:
    from .target import Result

#: (data, keyword arguments, ``labels``, ``points`` or ``shapes``).
Layer = tuple[Any, dict[str, Any], str]
#: Columns that lie in the data of a layer already.
PLACES = ("centroid_y", "centroid_x", "centroid_y_um", "centroid_x_um")


def layers(result: Result, *, outlines: bool = True) -> list[Layer]:
    """Return layers: ``labels``, the centres of cells as ``points``, and their outlines as ``shapes``.

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
    data, multiscale = _labels(result)
    features, rings = _cells(result, outlines)
    centres = np.stack([features["centroid_y"], features["centroid_x"]], axis=1).astype(np.float64)
    shown = {key: values for key, values in features.items() if key not in PLACES}
    extra = {"multiscale": True} if multiscale else {}
    found: list[Layer] = [
        (data, {"name": f"{name} labels", **common, **extra}, "labels"),
        (centres, {"name": f"{name} cells", "features": shown, "size": 4, **common}, "points"),
    ]
    if outlines:
        look = {"shape_type": "polygon", "edge_width": 1, "edge_color": "yellow", "face_color": "transparent"}
        found.append((rings, {"name": f"{name} outlines", "features": shown, **look, **common}, "shapes"))
    return found


def _labels(result: Result) -> tuple[Any, bool]:
    """Return the label image, and whether it is a list of levels that are read when looked at."""
    pyramid = None if result.folder is None else result.folder / "labels.ome.zarr"
    if pyramid is None or not pyramid.is_dir():
        return result.labels, False
    import zarr

    group: Any = zarr.open_group(pyramid, mode="r")
    levels = [group[name] for name in sorted(group.array_keys(), key=int)]
    return (levels, True) if len(levels) > 1 else (levels[0], False)  # a list of one is no pyramid to napari


def _cells(result: Result, outlines: bool) -> tuple[dict[str, NDArray[Any]], list[NDArray[np.float64]]]:
    """Return columns of the table, and a ring of y and x for each cell."""
    if result.folder is None:
        cells: Cells = result.cells
        rings = np.split(cells.outline, cells.outline_start[1:-1]) if outlines and len(cells) else []
        return dict(cells.columns), [_corners(ring) for ring in rings]
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(result.folder / "cells.parquet")
    columns = {name: table[name].to_numpy() for name in table.column_names}
    if not outlines:
        return columns, []
    record = json.loads(gzip.decompress((result.folder / "cells.geojson.gz").read_bytes()))
    # GeoJSON closes its rings by repeating the first corner.
    closed = [feature["geometry"]["coordinates"][0] for feature in record["features"]]
    return columns, [_corners(np.array(ring[:-1])) for ring in closed]


def _corners(ring: NDArray[Any]) -> NDArray[np.float64]:
    """Return corners of pixels, x and y from the image's corner, as napari counts: from a pixel's centre."""
    return ring[:, ::-1].astype(np.float64) - 0.5
