"""Where results go, memory or a folder, and the record of how they came about."""

from __future__ import annotations

import contextlib
import datetime
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .instances import Cells, Stats, Strip
from .stages import Progress, Setup, Sink

LabelFormat = Literal["zarr", "tiff", "png"]
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
        slide, backend, grid = setup.slide, setup.backend, setup.grid
        return {
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "image": {
                "path": str(slide.path),
                "height": slide.height,
                "width": slide.width,
                "channels": list(slide.channel_names),
                "dtype": slide.dtype.name,
                "pixel_size_um": setup.pixel_size,
                "bad_blocks": list(slide.bad_blocks),
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
                "blend": setup.blend,
                "scaled_to": [grid.height, grid.width] if setup.unscaled else None,
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
        from .writers.formats import read_labels

        assert self.folder is not None
        return read_labels(self.folder)

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
        slide = setup.slide
        self._labels = np.empty((slide.height, slide.width), np.int32)
        self._tables = [Cells.empty(slide.channels)]
        return (self,)

    def write(self, strip: Strip) -> None:
        """Take the next strip."""
        self._labels[strip.y : strip.y + len(strip.labels)] = strip.labels
        self._tables.append(strip.cells)

    def commit(self, report: Report) -> Result:
        """Return the arrays."""
        return make_result(report, None, self._labels, Cells.concatenate(self._tables))


class ResultFolder(Target):
    """Writes labels, table, outlines, pictures and record into a folder that appears when complete.

    Parameters
    ----------
    path
        The folder to make.
    overwrite
        Replace earlier results there.
    csv
        Write ``cells.csv`` too.
    labels
        Format of the label image.

    Raises
    ------
    OutputError
        The folder exists or cannot be made.
    """

    def __init__(
        self, path: Path, *, overwrite: bool = False, csv: bool = False, labels: LabelFormat = "zarr"
    ) -> None:
        from .writers import OutputFolder, Writer
        from .writers.report import Summary

        self._stack = contextlib.ExitStack()
        self._folder = self._stack.enter_context(OutputFolder(path, overwrite=overwrite))
        self._csv, self._format = csv, labels
        self._summary = Summary()
        self._writers: list[Writer] = []

    def open(self, setup: Setup) -> Sequence[Sink]:
        """Start every file."""
        from .writers import CellTable, DensityMap, GeoJson, LabelsZarr, Overview, Writer

        slide, path, scale = setup.slide, self._folder.path, setup.pixel_size
        names = slide.channel_names
        space = f"{slide.path.name} {setup.backend.spec.weights_sha256 or setup.backend.spec.name}"
        size = slide.height, slide.width
        self._scale = scale
        writers: list[Writer] = [
            LabelsZarr(path / "labels.ome.zarr", *size, pixel_size=scale, name=slide.path.name),
            CellTable(path / "cells.parquet", channel_names=names, pixel_size=scale),
            GeoJson(path / "cells.geojson.gz", channel_names=names, pixel_size=scale, space=space),
            Overview(path / "overview.png", self._picture(setup), *size),
            DensityMap(path / "density.png", *size, pixel_size=scale),
            self._summary,
        ]
        if self._csv:
            writers.append(CellTable(path / "cells.csv", channel_names=names, pixel_size=scale))
        self._writers = [self._stack.enter_context(writer) for writer in writers]
        return self._writers

    def _picture(self, setup: Setup) -> NDArray[Any] | Callable[[], NDArray[Any]]:
        """Return the reduced picture, or how to get it from the rows of a slide without a pyramid."""
        from .readers.area import Shrinker, Thinner
        from .writers.overview import MAX_EDGE, reduced_size

        slide, seen = setup.slide, setup.reader
        rows, columns = reduced_size(slide.height, slide.width)
        if len(slide.levels) > 1 or seen.height < rows or seen.width < columns:
            return slide.overview(MAX_EDGE)
        thinned = Thinner(seen.height, seen.width, rows, columns)
        shrinker = Shrinker(*thinned.size, rows, columns, seen.dtype)

        def watch(band: NDArray[Any]) -> None:
            if len(fewer := thinned(band)):
                shrinker.push(fewer)

        self.watch = watch
        return shrinker.result

    def finish(self) -> None:
        """Finish every file."""
        from .writers.formats import convert_labels

        # Pictures, tables and outlines are finished side by side: nothing else is running any more.
        with ThreadPoolExecutor(len(self._writers), "cellseg-finish") as pool:
            for done in [pool.submit(writer.commit) for writer in self._writers]:
                done.result()
        convert_labels(self._folder.path, self._format, pixel_size=self._scale)

    def commit(self, report: Report) -> Result:
        """Write the record and give the folder its name."""
        from .writers import write_record
        from .writers.folder import RECORD
        from .writers.report import write_report

        result = make_result(report, self._folder.final, None, None)
        write_record(self._folder.path / RECORD, result.record)
        write_report(self._folder.path / "report.html", result.record, self._summary)
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
    slide = report.setup.slide
    return Result(
        slide.path,
        slide.height,
        slide.width,
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
