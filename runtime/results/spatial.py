"""A result as a SpatialData object: picture, labels, outlines and table in one, in pixels and micrometres."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..readers import SlideReader
from .original import LevelArray, Shared, open_original
from .tables import library, to_anndata, to_geopandas

if TYPE_CHECKING:
    from .result import Result

#: Names of the elements, and of the systems of coordinates.
IMAGE, LABELS, OUTLINES, TABLE = "image", "labels", "outlines", "cells"
PIXELS, MICROMETRES = "global", "um"
#: Edge of the pieces in which the picture is read, pixels.
CHUNK = 1024


def to_spatialdata(result: Result, *, image: str | os.PathLike[str] | bool, outlines: bool) -> Any:
    """Return the result as one object; what is in files is read as it is looked at."""
    spatialdata = library("spatialdata", "to_spatialdata")
    size = result.record.image.pixel_size_um
    spaces = {PIXELS: spatialdata.transformations.Identity()}
    if size is not None:
        spaces[MICROMETRES] = spatialdata.transformations.Scale([size, size], axes=("x", "y"))
    parts: dict[str, dict[str, Any]] = {"labels": {LABELS: _raster(_label_levels(result), spaces, None)}}
    if image is not False:
        reader = open_original(result.record, None if image is True else image)
        parts["images"] = {IMAGE: _raster(_picture_levels(reader), spaces, list(reader.channel_names))}
    if outlines and result.count:  # an element of no shapes is none
        frame = to_geopandas(result).set_index("label", drop=False)[["label", "score", "geometry"]]
        frame.index.name = None
        parts["shapes"] = {OUTLINES: spatialdata.models.ShapesModel.parse(frame, transformations=spaces)}
    parts["tables"] = {TABLE: _table(result, spatialdata.models.TableModel)}
    return spatialdata.SpatialData(**parts)


def _table(result: Result, model: Any) -> Any:
    """Return the table of cells, tied to the numbers in the label image."""
    pandas = library("pandas", "to_spatialdata")
    table = to_anndata(result)
    if not result.count:  # one that annotates must have a row of what it annotates
        return model.parse(table)
    table.obs["region"] = pandas.Categorical([LABELS] * result.count, categories=[LABELS])
    return model.parse(table, region=LABELS, region_key="region", instance_key="label")


def _label_levels(result: Result) -> list[Any]:
    """Return the label image and its reduced copies as arrays that load as they are read."""
    array = library("dask.array", "to_spatialdata")
    return [array.from_array(level, chunks=getattr(level, "chunks", "auto")) for level in result.levels]


def _picture_levels(reader: SlideReader) -> list[Any]:
    """Return the levels of a picture, channels first; its file stays open as long as one is in use."""
    array = library("dask.array", "to_spatialdata")
    shared = Shared(reader)
    levels = [LevelArray(shared, number, None) for number in range(len(reader.levels))]
    chunks = (CHUNK, CHUNK, -1)
    return [array.moveaxis(array.from_array(level, chunks, asarray=False), 2, 0) for level in levels]


def _raster(levels: Sequence[Any], spaces: dict[str, Any], channels: list[str] | None) -> Any:
    """Return an element of one level, or of several."""
    from spatialdata.models import Image2DModel, Labels2DModel

    model, more = (Labels2DModel, {}) if channels is None else (Image2DModel, {"c_coords": channels})
    if len(levels) == 1:
        return model.parse(levels[0], transformations=spaces, **more)
    import xarray
    from spatialdata.transformations import set_transformation

    dims = ("c", "y", "x") if channels is not None else ("y", "x")
    tree = {}
    for number, level in enumerate(levels):
        coordinates: dict[str, Any] = {} if channels is None else {"c": channels}
        for axis in ("y", "x"):
            at = dims.index(axis)
            # Places of the full picture: that is how several levels are told apart from several pictures.
            wide = levels[0].shape[at] / level.shape[at]
            coordinates[axis] = (np.arange(level.shape[at]) + 0.5) * wide
        tree[f"scale{number}"] = xarray.Dataset({"image": xarray.DataArray(level, coordinates, dims)})
    element = xarray.DataTree.from_dict(tree)
    set_transformation(element, spaces, set_all=True)
    model().validate(element)
    return element
