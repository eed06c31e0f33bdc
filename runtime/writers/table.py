"""The table of cells as Parquet or CSV, streamed in row groups of one size."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ..common.files import writing
from ..instances import Cells, Strip
from ..instances.cells import image_columns
from .base import Writer, opening
from .blocks import CellBlocks

#: Rows of a row group.
GROUP = 1 << 16


def table_columns(
    channel_names: Sequence[str],
    pixel_size: float | None,
    stains: Sequence[str] = (),
    *,
    regions: Sequence[str] = (),
) -> dict[str, Any]:
    """Return name and Arrow type of every column, in order.

    Parameters
    ----------
    channel_names
        Of the channels whose intensity was measured.
    pixel_size
        Micrometres a pixel; columns in µm are there only where it is known.
    stains
        Names of the stains whose optical densities were measured.
    regions
        Names of the regions of interest; the column ``roi`` is there only where there are any.
    """
    f8, i4 = pa.float64(), pa.int32()
    micro = pixel_size is not None
    columns = {"label": i4, "centroid_y": f8, "centroid_x": f8}
    if micro:
        columns |= {"centroid_y_um": f8, "centroid_x_um": f8}
    columns |= {"y0": i4, "x0": i4, "y1": i4, "x1": i4, "area": pa.int64()}
    if micro:
        columns |= {"area_um2": f8}
    columns |= {"perimeter": f8}
    if micro:
        columns |= {"perimeter_um": f8}
    columns |= {"eccentricity": f8, "solidity": f8, "mean_probability": f8, "score": f8}
    columns |= dict.fromkeys([*intensity_columns(channel_names), *stain_columns(stains)], f8)
    columns |= {"touches_border": pa.bool_()}
    return columns | ({"roi": pa.string()} if regions else {})


def intensity_columns(channel_names: Sequence[str]) -> list[str]:
    """Return the column of each channel's mean intensity, each name once."""
    return _columns("mean_intensity", channel_names)


def stain_columns(stains: Sequence[str]) -> list[str]:
    """Return the columns of each stain's mean and of each stain's largest optical density."""
    lower = [stain.lower() for stain in stains]
    return _columns("mean_od", lower) + _columns("max_od", lower)


def _columns(what: str, of: Sequence[str]) -> list[str]:
    """Return ``what`` with each name behind it, of letters and digits, each once."""
    names: list[str] = []
    for number, given in enumerate(of):
        plain = "_".join("".join(c if c.isalnum() else " " for c in given).split()) or str(number)
        name = f"{what}_{plain}"
        names.append(name if name not in names else f"{name}_{number}")
    return names


def measured(
    cells: Cells,
    channel_names: Sequence[str],
    pixel_size: float | None,
    stains: Sequence[str] = (),
    *,
    regions: Sequence[str] = (),
) -> dict[str, npt.NDArray[Any]]:
    """Return the values of every column of :func:`table_columns` for some cells.

    What is infinite or no number, as the mean of pixels that are, is not a number: tables hold null for
    it, as pandas does.
    """
    values: dict[str, npt.NDArray[Any]] = dict(cells.columns)
    for number, name in enumerate(intensity_columns(channel_names)):
        means = cells.columns[f"mean_intensity_{number}"]
        values[name] = np.where(np.isfinite(means), means, np.nan)
    for kept, name in zip(image_columns(0, len(stains)), stain_columns(stains), strict=True):
        values[name] = cells.columns[kept]
    if pixel_size is not None:
        # A pixel's centre is its index; its corner, half a pixel before, is where µm begin.
        values["centroid_y_um"] = (values["centroid_y"] + 0.5) * pixel_size
        values["centroid_x_um"] = (values["centroid_x"] + 0.5) * pixel_size
        values["area_um2"] = values["area"] * pixel_size**2
        values["perimeter_um"] = values["perimeter"] * pixel_size
    if regions:
        # The last name is that of -1.
        values["roi"] = np.array([*regions, None], object)[cells.columns["roi"]]
    wanted = table_columns(channel_names, pixel_size, stains, regions=regions)
    return {name: values[name] for name in wanted}


class CellTable(Writer):
    """Writes ``cells.parquet`` or, where the name ends so, ``cells.csv``.

    Parameters
    ----------
    path
        The file to make.
    channel_names
        Names of the channels whose intensity was measured.
    pixel_size
        Micrometres a pixel, where known.
    stains
        Names of the stains whose optical densities were measured.
    regions
        Names of the regions of interest, to which the column ``roi`` of the cells points.
    """

    stage = "table"

    def __init__(
        self,
        path: Path,
        *,
        channel_names: Sequence[str] = (),
        pixel_size: float | None = None,
        stains: Sequence[str] = (),
        regions: Sequence[str] = (),
    ) -> None:
        self.path = path
        if path.suffix == ".csv":
            self.stage = "csv"
        self._channels = tuple(channel_names)
        self._pixel_size = pixel_size
        self._stains, self._regions = tuple(stains), tuple(regions)
        told = {"pixel_size_um": pixel_size, "channels": self._channels}
        told |= {"stains": self._stains} if stains else {}
        columns = table_columns(channel_names, pixel_size, stains, regions=regions)
        self._schema = pa.schema(list(columns.items()), metadata={"cellseg": json.dumps(told)})
        self._cells = CellBlocks(GROUP)
        self._committed = False
        self._file: Any = None
        self._stream: Any = None
        with opening(self, path):
            self._stream = path.open("wb")  # Arrow opens no path with a name that is no UTF-8
            self._file = (
                pa.csv.CSVWriter(self._stream, self._schema)
                if path.suffix == ".csv"
                # Measurements hardly repeat: a dictionary of them costs time and saves nothing.
                else pa.parquet.ParquetWriter(
                    self._stream, self._schema, compression="zstd", use_dictionary=False
                )
            )

    def write(self, strip: Strip) -> None:
        """Take the cells of the next strip."""
        for block in self._cells.push(strip.cells.without_outlines()):
            self._put(block)

    def _put(self, cells: Cells) -> None:
        """Write one row group."""
        values = measured(cells, self._channels, self._pixel_size, self._stains, regions=self._regions)
        arrays = [
            pa.array(np.asarray(values[field.name]), type=field.type, from_pandas=True)  # NaN is null
            for field in self._schema
        ]
        with writing(self.path):
            self._file.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def commit(self) -> None:
        """Write the remaining rows and close the file."""
        for block in self._cells.finish():
            self._put(block)
        with writing(self.path):
            self._file.close()
            self._stream.close()
        self._file = self._stream = None
        self._committed = True

    def discard(self) -> None:
        """Remove the file, unless committed."""
        if self._committed:
            return
        for held in filter(None, (self._file, self._stream)):
            with contextlib.suppress(OSError):
                held.close()
        self._file = self._stream = None
        self.path.unlink(missing_ok=True)
