"""A finished folder of results, read back; knows the files, not what they are for."""

from __future__ import annotations

import gzip
import json
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import tifffile
import zarr
from numpy.typing import NDArray

from ..common.memory import machine_memory
from ..errors import OutputError
from ..instances import Cells
from ..instances.cells import Rings, column_types
from ..intensity.classes import Classes
from ..options.positive import PositiveRule
from ..readers.chunks import bounded
from ..readers.stores import store_of
from ..writers.columns import Columns
from ..writers.contents import RECORD, TABLE
from .record import RunRecord


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what libraries raise about a file of results into one line that names it."""
    try:
        yield
    except OutputError:
        raise
    except FileNotFoundError:
        raise OutputError(f"{path}: is missing from these results; make them again") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, pa.ArrowException) as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise OutputError(f"{path}: cannot be read: {text}; make these results again") from None


def read_record(folder: Path) -> RunRecord:
    """Return the record of a folder of results.

    Raises
    ------
    OutputError
        It is no such folder, or of a newer release.
    """
    path = folder / RECORD
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise OutputError(f"{folder}: {what}; name a folder of results, which holds {RECORD}")
    if not path.is_file():
        inside = sorted(item.parent.name for item in folder.glob(f"[!.]*/{RECORD}"))
        advice = f"did you mean {folder / inside[0]}?" if inside else "name one that cellseg-infer made"
        raise OutputError(f"{folder}: holds no results (no {RECORD}); {advice}")
    with _reading(path):
        text = path.read_text(encoding="utf-8")
    return RunRecord.from_json(text, path)


def open_levels(folder: Path, what: str = "labels") -> list[Any]:
    """Open a label image, of nuclei or of whole ``cells``, whatever its format, with its reduced copies."""
    tiff, png, pyramid = (folder / f"{what}.{suffix}" for suffix in ("ome.tif", "png", "ome.zarr"))
    if tiff.is_file():
        with _reading(tiff), tifffile.TiffFile(tiff) as file:
            count = len(file.series[0].levels)
        with _reading(tiff):
            return [_tiff_level(tiff, number) for number in range(count)]
    if png.is_file():
        with _reading(png):
            found = cv2.imdecode(np.fromfile(png, np.uint8), cv2.IMREAD_UNCHANGED)
            if found is None:
                raise ValueError("it is damaged")
            return [np.asarray(found, np.int32)]
    return _levels(pyramid)


def _tiff_level(path: Path, number: int) -> Any:
    """Open one level as an array that closes its file when nobody looks at it any more."""
    store: Any = tifffile.imread(path, aszarr=True, level=number)
    level = zarr.open_array(store, mode="r")
    weakref.finalize(level, store.close)
    return level


def open_planes(folder: Path) -> list[Any] | None:
    """Open the network's planes with their reduced copies, if they were kept."""
    path = folder / "planes.ome.zarr"
    return _levels(path) if path.is_dir() else None


def _levels(path: Path) -> list[Any]:
    with _reading(path):
        group: Any = zarr.open_group(store_of(path), mode="r")
        return [bounded(group[name]) for name in sorted(group.array_keys(), key=int)]


def read_table(folder: Path) -> dict[str, NDArray[Any]]:
    """Return the columns of ``cells.parquet``."""
    path = folder / TABLE
    with _reading(path):
        with path.open("rb") as file:  # Arrow opens no path with a name that is no UTF-8
            check_table(path, pyarrow.parquet.read_metadata(file))
            file.seek(0)
            table = pyarrow.parquet.read_table(file)
        return {name: table[name].to_numpy() for name in table.column_names}


def check_table(path: Path, footer: Any) -> None:
    """Refuse a table that unpacks to more than this machine has: a few bytes may stand for a billion rows.

    Parameters
    ----------
    path
        For the message.
    footer
        ``pyarrow.parquet.FileMetaData``.

    Raises
    ------
    OutputError
        It would.
    """
    size, memory = footer.num_rows * footer.num_columns * 8, machine_memory()
    if memory is not None and size > memory / 2:
        raise OutputError(
            f"{path}: {footer.num_rows:,} rows of {footer.num_columns} columns take {size / 1e9:,.1f} GB, "
            "more than half of this machine's memory; is the file damaged?"
        )


def columns_of(record: RunRecord) -> Columns:
    """Return what is known of the cells of a run."""
    image, told = record.image, record.positive
    classes = None
    if told is not None:
        part: Any = told.part
        classes = Classes(PositiveRule(told.marker, told.thresholds, part), "", told.marker)
    return Columns(
        image.channels,
        image.pixel_size_um,
        () if record.stains is None else record.stains.names,
        record.expand_um is not None,
        classes=classes,
        regions=[region.name for region in record.focus.by_name],
    )


def read_cells(folder: Path, table: Mapping[str, NDArray[Any]], written: Columns) -> Cells:
    """Return measures and outlines of all cells, as they were before they were written.

    Parameters
    ----------
    folder
        The folder, for its outlines.
    table
        Its columns.
    written
        What they are.
    """
    path = folder / "cells.geojson.gz"
    called = {kept: name for name, kept in written.kept().items()}
    types = column_types(len(written.channels), len(written.stains), expanded=written.expanded)
    with _reading(path):
        columns: dict[str, NDArray[np.generic]] = {name: table[called.get(name, name)] for name in types}
        classes = () if written.classes is None else written.classes.names
        for name, words in (("class", classes), ("roi", written.regions)):
            if words:
                number = {word: at for at, word in enumerate(words)}
                columns[name] = np.array([number.get(word, -1) for word in table[name]], np.int32)
        features = json.loads(gzip.decompress(path.read_bytes()))["features"]
        if len(features) != len(columns["label"]):
            raise ValueError(f"it has {len(features):,} cells, the table {len(columns['label']):,}")
        nuclei = _rings(features, "nucleusGeometry" if written.expanded else "geometry")
        whole = _rings(features, "geometry") if written.expanded else None
    return Cells(columns, nuclei.points, nuclei.start, whole)


def _rings(features: Sequence[Any], name: str) -> Rings:
    """Return the outlines of features."""
    # GeoJSON closes its rings by repeating the first corner.
    rings = [np.array(feature[name]["coordinates"][0][:-1]) for feature in features]
    points: Any = np.concatenate(rings) if rings else np.empty((0, 2), np.int32)
    return Rings(
        points.astype(np.int32) if points.dtype.kind in "iu" else points,
        np.cumsum([0, *map(len, rings)], dtype=np.int64),
    )
