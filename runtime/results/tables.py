"""Results as tables of other libraries: pandas, geopandas, anndata; each imported when it is asked for.

Places are x and y from the image's corner, y down, so that the centre of the first pixel is (0.5, 0.5):
outlines, which run along the edges of pixels, and micrometres begin there, too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .polygons import polygons

if TYPE_CHECKING:
    from .result import Result

#: Columns that say where a cell is, or which; they are no measurements.
PLACES = (
    *("label", "y0", "x0", "y1", "x1", "touches_border"),
    *("centroid_y", "centroid_x", "centroid_y_um", "centroid_x_um"),
)
#: Of columns that have one.
UNITS = {"area": "px²", "perimeter": "px", "area_um2": "µm²", "perimeter_um": "µm"}


def library(name: str, method: str) -> Any:
    """Import a library of the extra.

    Raises
    ------
    UsageError
        It, or something that it needs, is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        lacking = error.name or name
        raise UsageError(f"{method}() needs {lacking}; pip install 'cellseg[spatial]'") from None


def scale_of(result: Result, unit: Literal["px", "um"]) -> float:
    """Return what a pixel is in a unit.

    Raises
    ------
    UsageError
        The unit is unknown, or the size of a pixel is.
    """
    if unit == "px":
        return 1.0
    if unit != "um":
        raise UsageError(f"unit={unit!r}: wanted 'px' or 'um'")
    if result.record.image.pixel_size_um is None:
        raise UsageError("unit='um': the size of a pixel is not known; say it to segment() with pixel_size=…")
    return result.record.image.pixel_size_um


def to_pandas(result: Result) -> Any:
    """Return the table as a data frame."""
    return library("pandas", "to_pandas").DataFrame(result.table)


def to_geopandas(result: Result, unit: Literal["px", "um"] = "px") -> Any:
    """Return the table with the cells' polygons."""
    scale = scale_of(result, unit)
    geopandas = library("geopandas", "to_geopandas")
    import shapely

    outlines = polygons(result)
    if scale != 1.0 and len(outlines):
        outlines = shapely.transform(outlines, lambda corners: corners * scale)
    return geopandas.GeoDataFrame(to_pandas(result), geometry=list(outlines))


def to_anndata(result: Result) -> Any:
    """Return measurements as a matrix, annotated by cells and by what was measured."""
    anndata, pandas = library("anndata", "to_anndata"), library("pandas", "to_anndata")
    table = result.table
    names = [name for name, values in table.items() if name not in PLACES and values.dtype.kind in "iuf"]
    matrix = np.empty((result.count, len(names)), np.float64)
    for at, name in enumerate(names):
        matrix[:, at] = table[name]
    # Words as categories: a cell in no region has none, which a column of text cannot say in a file.
    said = {
        name: pandas.Categorical(values) if values.dtype == object else values
        for name, values in table.items()
        if name not in names
    }
    cells = pandas.DataFrame(said, index=table["label"].astype(str))
    measures = pandas.DataFrame({"unit": [UNITS.get(name, "") for name in names]}, index=names)
    return anndata.AnnData(matrix, cells, measures, _about(result), obsm=_centroids(result))


def _centroids(result: Result) -> dict[str, NDArray[np.float64]]:
    """Return x and y of cells in pixels, and in micrometres where the scale is known."""
    table, size = result.table, result.record.image.pixel_size_um
    places = np.stack([table["centroid_x"], table["centroid_y"]], axis=1).astype(np.float64) + 0.5
    return {"spatial": places} | ({} if size is None else {"spatial_um": places * size})


def _about(result: Result) -> dict[str, Any]:
    """Return what a table of numbers does not say, in values that its file formats can hold."""
    record = result.record
    about: dict[str, Any] = {
        "image": record.image.path,
        "height": record.image.height,
        "width": record.image.width,
        "model": record.model.name,
        "weights_sha256": record.model.weights_sha256,
        "notes": list(record.notes),
    }
    if record.image.pixel_size_um is not None:
        about["pixel_size_um"] = record.image.pixel_size_um
    return {"cellseg": about}
