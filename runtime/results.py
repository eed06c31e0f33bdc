"""Where results go, memory or a folder, and the record of how they came about."""

from __future__ import annotations

import contextlib
import datetime
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .instances import Cells, Stats, Strip
from .readers import SlideReader
from .stages import Progress, Setup, Sink

#: Packages whose versions stand in the record, where they are installed.
PACKAGES = (
    "cellseg", "numpy", "openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx",
    "tifffile", "imagecodecs", "zarr", "pyarrow", "openslide-python",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """How a run went."""

    setup: Setup
    #: The last state of the stages.
    progress: Progress
    #: Counts of the instance stage.
    stats: Stats
    #: Seconds to open image and model, to run, and to finish the files.
    seconds: dict[str, float]
    #: What the user should know.
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Return all of it as plain values, as in ``run.json``."""
        setup, stats = self.setup, self.stats
        reader, backend, grid = setup.reader, setup.backend, setup.grid
        return {
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "image": {
                "path": str(reader.path),
                "height": reader.height,
                "width": reader.width,
                "channels": list(reader.channel_names),
                "dtype": reader.dtype.name,
                "pixel_size_um": setup.pixel_size,
                "bad_blocks": list(reader.bad_blocks),
            },
            "model": {
                "name": backend.spec.name,
                "architecture": backend.spec.architecture,
                "heads": list(backend.spec.head_names),
                "precision": backend.spec.precision,
                "weights_sha256": backend.spec.weights_sha256,
            },
            "engine": {"name": backend.name, "device": backend.device, "description": backend.description},
            "settings": {
                "tile": grid.tile,
                "halo": grid.halo,
                "batch": backend.batch,
                "useful_fraction": grid.useful_fraction,
                "black": setup.mapping.low,
                "white": setup.mapping.high,
                "input_channels": list(setup.choice.pick),
                "workers": setup.workers,
                "split": setup.split.model_dump(),
            },
            "counts": {
                "cells": stats.cells,
                "components": stats.components,
                "dropped": stats.dropped,
                "holes_filled": stats.holes,
                "cut_components": stats.giant,
                "tiles": len(grid),
            },
            "seconds": self.seconds | {"total": sum(self.seconds.values())},
            "stages": {
                name: {"busy": busy, "wait": wait} for name, (busy, wait) in self.progress.stages.items()
            },
            "mpx_s": self.progress.mpx_s,
            "bottleneck": self.progress.bottleneck,
            "notes": list(self.notes),
            "versions": versions(),
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an image."""

    #: The image, or ``array``.
    image: Path
    #: Size of the image in pixels.
    height: int
    width: int
    #: Number of cells.
    count: int
    #: Folder of results, where one was asked for.
    folder: Path | None
    #: Throughput, and time of each stage.
    progress: Progress
    #: What the user should know: choices made for them, damaged tiles.
    notes: tuple[str, ...]
    #: All of ``run.json``.
    record: dict[str, Any] = field(repr=False)
    _labels: NDArray[np.int32] | None = field(default=None, repr=False)
    _cells: Cells | None = field(default=None, repr=False)

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (height, width): 0 is background, then one number a cell; read from the folder if need be."""
        if self._labels is not None:
            return self._labels
        import zarr

        assert self.folder is not None
        array: Any = zarr.open_array(self.folder / "labels.ome.zarr" / "0", mode="r")
        return np.asarray(array[:], np.int32)

    @property
    def cells(self) -> Cells:
        """Table and outlines of the cells, in the order of their numbers.

        Raises
        ------
        UsageError
            They were written to a folder and are not in memory.
        """
        if self._cells is None:
            raise UsageError(
                f"the cells were written to {self.folder}/cells.parquet; read that, or call segment() "
                "without output to have them in memory"
            )
        return self._cells


class Target(ABC):
    """Where strips go: a context manager that leaves nothing behind unless committed."""

    #: Wants to see the raw rows as they are read, or ``None``.
    watch: Callable[[NDArray[Any]], None] | None = None

    @abstractmethod
    def open(self, setup: Setup) -> Sequence[Sink]:
        """Get ready for a slide; return what takes its strips."""

    def finish(self) -> None:
        """All strips have been written: finish the files."""
        return

    @abstractmethod
    def commit(self, report: Report) -> Result:
        """Make the results final."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Memory(Target):
    """Collects strips into one label image and one table."""

    def open(self, setup: Setup) -> Sequence[Sink]:
        """Make the label image."""
        reader = setup.reader
        self._labels = np.empty((reader.height, reader.width), np.int32)
        self._tables = [Cells.empty(reader.channels)]
        return (self,)

    def write(self, strip: Strip) -> None:
        """Take the next strip."""
        self._labels[strip.y : strip.y + len(strip.labels)] = strip.labels
        self._tables.append(strip.cells)

    def commit(self, report: Report) -> Result:
        """Return the arrays."""
        return make_result(report, None, self._labels, Cells.concatenate(self._tables))


class ResultFolder(Target):
    """Writes labels, table, outlines, overview and record into a folder that appears when complete.

    Parameters
    ----------
    path
        The folder to make.
    overwrite
        Replace earlier results there.
    csv
        Write ``cells.csv`` too.

    Raises
    ------
    OutputError
        The folder exists or cannot be made.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, csv: bool = False) -> None:
        from .writers import OutputFolder, Writer

        self._stack = contextlib.ExitStack()
        self._folder = self._stack.enter_context(OutputFolder(path, overwrite=overwrite))
        self._csv = csv
        self._writers: list[Writer] = []

    def open(self, setup: Setup) -> Sequence[Sink]:
        """Start every file."""
        from .writers import CellTable, GeoJson, LabelsZarr, Overview

        reader, path, scale = setup.reader, self._folder.path, setup.pixel_size
        names = reader.channel_names
        space = f"{reader.path.name} {setup.backend.spec.weights_sha256 or setup.backend.spec.name}"
        size = reader.height, reader.width
        writers = [
            LabelsZarr(path / "labels.ome.zarr", *size, pixel_size=scale, name=reader.path.name),
            CellTable(path / "cells.parquet", channel_names=names, pixel_size=scale),
            GeoJson(path / "cells.geojson.gz", channel_names=names, pixel_size=scale, space=space),
            Overview(path / "overview.png", self._picture(reader), *size),
        ]
        if self._csv:
            writers.append(CellTable(path / "cells.csv", channel_names=names, pixel_size=scale))
        self._writers = [self._stack.enter_context(writer) for writer in writers]
        return self._writers

    def _picture(self, reader: SlideReader) -> NDArray[Any] | Callable[[], NDArray[Any]]:
        """Return the reduced picture, or how to get it from the rows of a slide without a pyramid."""
        from .readers.area import Shrinker
        from .writers.overview import MAX_EDGE, reduced_size

        if len(reader.levels) > 1:
            return reader.overview(MAX_EDGE)
        size = reader.height, reader.width
        shrinker = Shrinker(*size, *reduced_size(*size), reader.dtype)
        self.watch = shrinker.push
        return shrinker.result

    def finish(self) -> None:
        """Finish every file."""
        for writer in self._writers:
            writer.commit()

    def commit(self, report: Report) -> Result:
        """Write the record and give the folder its name."""
        from .writers import write_record
        from .writers.folder import RECORD

        result = make_result(report, self._folder.final, None, None)
        write_record(self._folder.path / RECORD, result.record)
        self._folder.commit()
        return result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def make_result(
    report: Report, folder: Path | None, labels: NDArray[np.int32] | None, cells: Cells | None
) -> Result:
    """Return what :func:`~cellseg.runtime.segment` returns."""
    reader = report.setup.reader
    return Result(
        reader.path,
        reader.height,
        reader.width,
        report.stats.cells,
        folder,
        report.progress,
        report.notes,
        report.record(),
        labels,
        cells,
    )


def versions() -> dict[str, str]:
    """Return the versions of Python, the system and every installed package that had a part."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
