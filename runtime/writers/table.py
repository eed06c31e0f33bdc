"""The table of cells as Parquet or CSV, streamed in row groups of one size."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ..common.files import writing
from ..instances import Cells, Strip
from .base import Writer, opening
from .blocks import CellBlocks
from .columns import Columns

#: Rows of a row group.
GROUP = 1 << 16


class CellTable(Writer):
    """Writes ``cells.parquet`` or, where the name ends so, ``cells.csv``.

    Parameters
    ----------
    path
        The file to make.
    columns
        What is known of the cells.
    """

    stage = "table"

    def __init__(self, path: Path, columns: Columns = Columns()) -> None:  # noqa: B008  (it is frozen)
        self.path = path
        if path.suffix == ".csv":
            self.stage = "csv"
        self._columns = columns
        told = {"pixel_size_um": columns.pixel_size, "channels": tuple(columns.channels)}
        told |= {"stains": tuple(columns.stains)} if columns.stains else {}
        self._schema = pa.schema(list(columns.types().items()), metadata={"cellseg": json.dumps(told)})
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
        values = self._columns.values(cells)
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
