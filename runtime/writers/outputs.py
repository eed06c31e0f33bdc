"""The table of outputs: every file of a folder of results is one row.

A new output is one row of :data:`OUTPUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..geometry.regions import Polygons
from ..options import SegmentOptions
from .base import Discarding
from .contents import RECORD
from .density import DensityMap
from .formats import LabelsPng, LabelsTiff, check_png
from .geojson import GeoJson
from .labels import LabelsZarr
from .overview import Overview
from .planes import PlanesZarr
from .table import CellTable


@dataclass(frozen=True, slots=True)
class Subject:
    """What writers know of an image."""

    #: Name of its file.
    name: str
    #: Its size in pixels.
    height: int
    width: int
    #: Micrometres a pixel, where known.
    pixel_size: float | None
    channels: tuple[str, ...]
    #: Names of the stains that are measured.
    stains: tuple[str, ...]
    #: Text that decides the cells' identifiers together with the labels.
    space: str
    #: The reduced picture, or what returns it when all rows have been read.
    picture: NDArray[Any] | Callable[[], NDArray[Any]]
    #: Regions of interest in pixels.
    regions: Polygons | None
    #: What they are called, each name once.
    region_names: tuple[str, ...]
    #: Names of the network's planes, and their size.
    heads: tuple[str, ...]
    seen: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def labels(self) -> dict[str, Any]:
        """What every label image is told."""
        return {"pixel_size": self.pixel_size, "name": self.name}

    @property
    def columns(self) -> dict[str, Any]:
        """What every table is told."""
        return {
            "pixel_size": self.pixel_size,
            "channel_names": self.channels,
            "stains": self.stains,
            "regions": self.region_names,
        }


@dataclass(frozen=True, slots=True)
class Output:
    """A row of the table."""

    file: str
    #: What it is for, as the report says it.
    title: str
    #: Begin the file: a :class:`~cellseg.runtime.writers.Writer`, or what takes planes.
    make: Callable[[Path, Subject], Discarding]
    #: Whether the user wants it.
    wanted: Callable[[SegmentOptions], bool] = lambda options: True
    #: Refuse an image of this height and width that the format cannot hold, before anything is computed.
    check: Callable[[Path, int, int], None] = lambda path, height, width: None


OUTPUTS: tuple[Output, ...] = (
    Output(
        "labels.ome.zarr",
        "label image (OME-Zarr 0.5): napari, Fiji, OMERO",
        lambda path, of: LabelsZarr(path, *of.size, **of.labels),
        lambda options: options.labels == "zarr",
    ),
    Output(
        "labels.ome.tif",
        "label image (OME-TIFF): QuPath, Fiji",
        lambda path, of: LabelsTiff(path, *of.size, **of.labels),
        lambda options: options.labels == "tiff",
    ),
    Output(
        "labels.png",
        "label image (16-bit PNG)",
        lambda path, of: LabelsPng(path, *of.size, **of.labels),
        lambda options: options.labels == "png",
        check_png,
    ),
    Output("cells.parquet", "table of cells: Python, R", lambda path, of: CellTable(path, **of.columns)),
    Output(
        "cells.csv",
        "table of cells: spreadsheets",
        lambda path, of: CellTable(path, **of.columns),
        lambda options: options.csv,
    ),
    Output(
        "cells.geojson.gz",
        "outlines and measurements: drag into QuPath",
        lambda path, of: GeoJson(path, **of.columns, space=of.space),
    ),
    Output(
        "overview.png",
        "the picture with the cells' outlines",
        lambda path, of: Overview(path, of.picture, *of.size, regions=of.regions),
    ),
    Output(
        "density.png",
        "map of cell density",
        lambda path, of: DensityMap(path, *of.size, pixel_size=of.pixel_size),
    ),
    Output(
        "planes.ome.zarr",
        "the network's planes (OME-Zarr 0.5), 0…255",
        lambda path, of: PlanesZarr(path, of.heads, *of.seen, pixel_size=of.pixel_size, full_size=of.size),
        lambda options: options.probabilities,
    ),
)


def check_outputs(options: SegmentOptions, folder: Path, height: int, width: int) -> None:
    """Refuse an image of this size where a format that is wanted cannot hold it.

    Raises
    ------
    OutputError
        One cannot.
    """
    for row in OUTPUTS:
        if row.wanted(options):
            row.check(folder / row.file, height, width)


def titles() -> Mapping[str, str]:
    """Return what each file of a folder of results is for."""
    return {row.file: row.title for row in OUTPUTS} | {RECORD: "everything about this run, for programs"}
