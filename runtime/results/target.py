"""Where results go, memory or a folder, and the record of how they came about."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..instances import Cells, Strip
from ..options import SegmentOptions
from ..streaming.journal import Journal
from ..streaming.stages import Progress, Setup, Sink
from .identity import Source
from .record import RunRecord
from .report import Report

if TYPE_CHECKING:
    from ..writers.planes import PlanesZarr
    from .layers import Layer


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
    record: RunRecord = field(repr=False)
    _labels: NDArray[np.int32] | None = field(default=None, repr=False)
    _cells: Cells | None = field(default=None, repr=False)

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (height, width): 0 is background, then one number a cell; read from the folder if need be."""
        if self._labels is not None:
            return self._labels
        from ..writers.formats import read_labels

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

    def to_napari(self, *, outlines: bool = True) -> list[Layer]:
        """Return layers for napari: labels, centres of cells with their table, outlines.

        Parameters
        ----------
        outlines
            Whether to make the layer of outlines; napari draws tens of thousands of them slowly.

        Returns
        -------
        list of (data, keyword arguments, kind)
            LayerData tuples with kinds ``labels``, ``points`` and ``shapes``, as a reader plugin returns
            them. The labels of a folder with ``labels.ome.zarr`` are its levels, read as they are looked
            at. napari itself is not needed.

        Examples
        --------
        >>> import numpy as np
        >>> from cellseg.runtime import segment
        >>> layers = segment(np.zeros((64, 64), np.uint8)).to_napari()
        >>> [kind for _, _, kind in layers]
        ['labels', 'points', 'shapes']

        With napari: ``for layer in layers: viewer.add_layer(napari.layers.Layer.create(*layer))``.
        """
        from .layers import layers

        return layers(self, outlines=outlines)


class Target(ABC):
    """Where strips go: a context manager that leaves nothing behind unless committed."""

    #: Wants to see the raw rows as they are read, or ``None``.
    watch: Callable[[NDArray[Any]], None] | None = None
    #: Keeps finished bands, or ``None``.
    journal: Journal | None = None
    #: Wants to see the planes of each band, or ``None``.
    show: Callable[[NDArray[np.uint8]], None] | None = None

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
    options
        Which files, and whether to replace or to go on from earlier ones.
    source
        The state of the image, to which kept bands belong.

    Raises
    ------
    OutputError
        The folder exists or cannot be made.
    """

    def __init__(self, path: Path, options: SegmentOptions, source: Source) -> None:
        from ..writers import OutputFolder, Writer
        from ..writers.report import Summary

        self._stack = contextlib.ExitStack()
        self._folder = self._stack.enter_context(
            OutputFolder(path, overwrite=options.overwrite, resume=options.resume)
        )
        self._options, self._source = options, source
        self._summary = Summary()
        self._writers: list[Writer] = []
        self._planes: PlanesZarr | None = None

    def open(self, setup: Setup) -> Sequence[Sink]:
        """Start every file."""
        from ..writers import CellTable, DensityMap, GeoJson, LabelsZarr, Overview, Writer
        from ..writers.folder import JOURNAL

        slide, path, scale = setup.slide, self._folder.path, setup.pixel_size
        names = slide.channel_names
        space = f"{slide.path.name} {setup.backend.spec.weights_sha256 or setup.backend.spec.name}"
        size = slide.height, slide.width
        self._scale = scale
        # With one band there is nothing to go on from; blended, a band needs the tiles of its neighbours.
        if setup.grid.rows > 1 and setup.blend == "none":
            self.journal = Journal(path / JOURNAL, planes_identity(setup, self._source))
        self._overview = Overview(path / "overview.png", self._picture(setup), *size, regions=setup.regions)
        self._density = DensityMap(path / "density.png", *size, pixel_size=scale)
        writers: list[Writer] = [
            LabelsZarr(path / "labels.ome.zarr", *size, pixel_size=scale, name=slide.path.name),
            CellTable(path / "cells.parquet", channel_names=names, pixel_size=scale),
            GeoJson(path / "cells.geojson.gz", channel_names=names, pixel_size=scale, space=space),
            self._overview,
            self._density,
            self._summary,
        ]
        if self._options.csv:
            writers.append(CellTable(path / "cells.csv", channel_names=names, pixel_size=scale))
        self._writers = [self._stack.enter_context(writer) for writer in writers]
        if self._options.probabilities:
            self._planes = self._stack.enter_context(self._open_planes(setup))
            self.show = self._planes.push
        return self._writers

    def _open_planes(self, setup: Setup) -> PlanesZarr:
        """Start the network's planes; their pixels are the model's."""
        from ..writers.planes import PlanesZarr

        seen, slide, scale = setup.reader, setup.slide, setup.pixel_size
        return PlanesZarr(
            self._folder.path / "planes.ome.zarr",
            setup.backend.spec.head_names,
            seen.height,
            seen.width,
            pixel_size=scale,
            full_size=(slide.height, slide.width),
        )

    def _picture(self, setup: Setup) -> NDArray[Any] | Callable[[], NDArray[Any]]:
        """Return the reduced picture, or how to get it from the rows of a slide without a pyramid."""
        from ..readers.area import Shrinker, Thinner
        from ..writers.overview import MAX_EDGE, reduced_size

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
        from ..writers.formats import convert_labels

        # Pictures, tables and outlines are finished side by side: nothing else is running any more.
        commits = [writer.commit for writer in self._writers]
        if self._planes is not None:
            commits.append(self._planes.commit)
        with ThreadPoolExecutor(len(commits), "cellseg-finish") as pool:
            for done in [pool.submit(commit) for commit in commits]:
                done.result()
        convert_labels(self._folder.path, self._options.labels, pixel_size=self._scale)

    def commit(self, report: Report) -> Result:
        """Write the record and give the folder its name."""
        from ..writers import write_record
        from ..writers.folder import RECORD
        from ..writers.report import write_report

        result = make_result(report, self._folder.final, None, None)
        write_record(self._folder.path / RECORD, result.record.to_dict())
        write_report(
            self._folder.path / "report.html",
            result.record.to_dict(),
            self._summary,
            overview=self._overview.jpeg,
            density=self._density.png,
        )
        self._folder.commit()
        return result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def planes_identity(setup: Setup, source: Source) -> dict[str, Any]:
    """Return all that the network's planes of a slide depend on, as plain values."""
    slide, backend, grid = setup.slide, setup.backend, setup.grid
    spec = backend.spec
    return {
        "version": metadata.version("cellseg"),
        "image": source.model_dump(exclude_none=True),
        "size": [slide.height, slide.width],
        "model": spec.weights_sha256 or spec.name,
        "heads": list(spec.head_names),
        "engine": [backend.name, backend.device, backend.description, spec.precision],
        "scaled to": [grid.height, grid.width],
        "tile": grid.tile,
        "halo": grid.halo,
        "batch": backend.batch,
        "channels": list(setup.choice.pick),
        "black and white": [setup.mapping.low, setup.mapping.high],
        "regions": None if setup.regions is None else setup.regions.digest,
        "tissue": None if setup.tissue is None else setup.tissue.digest,
    }


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
