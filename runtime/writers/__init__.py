"""Results: labels, tables, polygons and pictures, streamed and committed as a whole."""

from .base import Writer
from .density import DensityMap
from .folder import OutputFolder
from .geojson import GeoJson
from .labels import LabelsZarr
from .overview import Overview
from .record import write_record
from .table import CellTable

__all__ = [
    "CellTable",
    "DensityMap",
    "GeoJson",
    "LabelsZarr",
    "OutputFolder",
    "Overview",
    "Writer",
    "write_record",
]
