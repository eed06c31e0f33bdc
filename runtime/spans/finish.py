"""The last task of a slide in spans: tables, outlines, pictures and the record, from all parts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import Backend
from ..common.files import writing
from ..common.threads import Flow
from ..geometry.tiling import Region
from ..instances import Cells, Stats, Strip
from ..instances.full_resolution import FullResolution
from ..results.doubts import doubts
from ..results.files import ResultFiles
from ..results.notes import notes_of
from ..results.picture import needs_rows, thinned_picture
from ..results.report import Report
from ..results.result import Result
from ..streaming.classes import ClassCounter
from ..streaming.delivery import Delivery
from ..streaming.progress import Progress
from ..streaming.regions import RegionCounter
from ..streaming.setup import Setup
from ..streaming.span import expansion_of
from ..writers.contents import check
from ..writers.folder import unfinished
from ..writers.formats import check_png, labels_to_png, labels_to_tiff
from ..writers.outputs import OUTPUTS
from ..writers.overview import MAX_EDGE
from .blocks import BlockReader
from .compute import PLANES, THIN, Part
from .labels import LABELS, reduce_labels
from .merge import ROWS, MergedParts
from .plan import Plan

#: File of the label image by format, where it is not the one that is written first.
CONVERTED = {"tiff": "labels.ome.tif", "png": "labels.png"}


@dataclass(frozen=True, slots=True)
class Course:
    """How the tasks went."""

    #: Seconds from the first span until all labels were written, and those that the tasks took.
    seconds: float
    #: Files of the label image and their sizes in bytes.
    labels: Mapping[str, int]
    #: Lines about the spans and who computed them.
    notes: tuple[str, ...]


def finish_slide(plan: Plan, parts: Sequence[Part], course: Course, backend: Backend) -> Result:
    """Write all that is left, and the record that lists every file; the folder has still to be named.

    Parameters
    ----------
    plan, backend
        As for the other tasks.
    parts
        All of them.
    course
        How they went.
    """
    started = time.perf_counter()
    path = unfinished(plan.folder)
    _remove_files(path)
    spans = [part for part in parts if part.reach is not None]
    with (
        plan.opened(backend, prepared=True) as setup,
        ResultFiles(path, plan.options, (LABELS, *CONVERTED.values())) as files,
    ):
        damaged = [*(plan.settled.damaged or ()), *(bad for part in spans for bad in part.bad_blocks)]
        setup = replace(setup, damaged=tuple(dict.fromkeys(damaged)))
        files.open(setup, _picture(plan, setup, spans))
        _show_planes(plan, files, spans)
        regions, classes = _write_cells(plan, parts, setup, files)
        stats = total_stats(parts)
        files.written |= _label_image(plan, course.labels, stats.cells)
        files.finish()
        last = _progress(plan, parts, stats, course)
        unsure = doubts(
            stats.cells,
            stats.dropped,
            sum(part.scores for part in parts),
            areas=sum(part.areas for part in parts),
            known=backend.spec.diameter,
        )
        seconds = {"open": plan.seconds, "run": course.seconds, "finish": time.perf_counter() - started}
        notes = (*notes_of(setup, last, stats, plan.options, regions), *course.notes)
        report = Report(
            setup, plan.source, plan.options, last, stats, seconds, notes, unsure, regions, classes
        )
        return files.record(report, plan.folder)


def total_stats(parts: Sequence[Part]) -> Stats:
    """Return the counts of all parts."""
    total = Stats()
    for name in (each.name for each in fields(Stats)):
        counts = [getattr(part.stats, name) for part in parts]
        setattr(total, name, max(counts, default=0) if name == "max_rows" else sum(counts))
    return total


def _remove_files(path: Path) -> None:
    """Remove what a worker that did not come to the end left."""
    with writing(path):
        for file in (row.file for row in OUTPUTS if row.file != LABELS):
            if (path / file).is_dir():
                shutil.rmtree(path / file)
            else:
                (path / file).unlink(missing_ok=True)


def _progress(plan: Plan, parts: Sequence[Part], stats: Stats, course: Course) -> Progress:
    """Return the last state, as of one run: busy seconds are those of all workers together."""
    stages: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (busy, wait) in part.stages.items():
            before = stages.get(name, (0.0, 0.0))
            stages[name] = before[0] + busy, before[1] + wait
    width = plan.settled.grid.width
    earlier = sum(part.y1 - part.y for part in parts if part.reach is not None and part.run != plan.run)
    pixels = plan.rows[-1] * width
    return Progress(pixels, pixels, stats.cells, course.seconds, stages, earlier * width)


def _picture(plan: Plan, setup: Setup, spans: Sequence[Part]) -> NDArray[Any]:
    """Return the reduced picture, from the slide's own levels or what spans have kept of it."""
    if not needs_rows(setup.slide, setup.reader):
        return setup.slide.overview(MAX_EDGE)
    _, shrinker = thinned_picture(setup.slide, setup.reader)
    for rows in _kept(plan, spans, THIN, "rows"):
        shrinker.push(rows)
    return shrinker.result()


def _show_planes(plan: Plan, files: ResultFiles, spans: Sequence[Part]) -> None:
    """Write the network's planes, where they are wanted."""
    if (push := files.planes) is not None:
        for planes in _kept(plan, spans, PLANES, "planes"):
            push(planes)


def _kept(plan: Plan, spans: Sequence[Part], file: str, name: str) -> Iterator[NDArray[Any]]:
    for part in spans:
        with BlockReader(plan.parts / part.name / file) as reader:
            for block in range(len(reader)):
                yield reader.load(block, name)[name]


def _write_cells(
    plan: Plan, parts: Sequence[Part], setup: Setup, files: ResultFiles
) -> tuple[RegionCounter | None, ClassCounter | None]:
    """Pass all cells to the writers, side by side; return what counted them by region and by class."""
    flow = Flow()
    back: FullResolution | None = setup.to_full_resolution
    nothing = np.empty((0, setup.slide.width), np.int32)
    classes = setup.measures.counter()
    regions = None if setup.named is None else RegionCounter(setup.named, setup.measures.classes)
    marks = [mark for mark in (classes, regions) if mark is not None]
    delivery = Delivery(flow, files.sinks, None, *marks)

    def merge() -> None:
        with MergedParts(plan, parts) as merged:
            if setup.distance is not None:
                for strip in _grown(merged, setup):
                    delivery.put(strip if back is None else back.strip(strip))
            else:
                for cells in merged.cells():
                    delivery.put(Strip(0, nothing, cells if back is None else back.cells(cells)))
        delivery.close()

    flow.stage("merge", merge)
    flow.run()
    return regions, classes


def _grown(merged: MergedParts, setup: Setup) -> Iterator[Strip]:
    """Yield strips of nuclei grown into cells: the slide is read once more for what lies in these."""
    expansion, grid = expansion_of(setup), setup.grid
    assert expansion is not None
    none = Cells.empty(setup.reader.channels, len(setup.measures.stains or ()))
    with expansion:
        for y in range(0, grid.height, ROWS):
            rows = min(ROWS, grid.height - y)
            expansion.see(y, setup.reader.read(Region(y, 0, rows, grid.width)))
            cells = merged.cells_of(y, y + rows)
            yield from expansion.push(Strip(y, merged.labels(y, y + rows), none if cells is None else cells))


def _label_image(plan: Plan, labels: Mapping[str, int], cells: int) -> dict[Path, int]:
    """Finish the label image in the format that is wanted; return its files and their sizes in bytes."""
    root = unfinished(plan.folder)
    written = {root / name: size for name, size in {**labels, **reduce_labels(plan)}.items()}
    check(written)
    wanted = plan.options.labels
    if wanted == "zarr":
        return written
    path = root / CONVERTED[wanted]
    if wanted == "tiff":
        labels_to_tiff(root / LABELS, path, pixel_size=plan.settled.pixel_size)
    else:
        check_png(path, 0, 0, cells)
        labels_to_png(root / LABELS, path)
    with writing(path):
        return {path: path.stat().st_size}
