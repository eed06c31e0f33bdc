"""The two tasks that find cells: of a span, and around a seam."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import Backend
from ..common.disk import sync_folder
from ..common.files import writing
from ..errors import BackendError, OutputError
from ..instances import Stats
from ..instances.fragments import Fragment, FragmentStream, Reach, place_keys
from ..results.picture import needs_rows, thinned_picture
from ..streaming.progress import Progress
from ..streaming.setup import Setup
from ..streaming.stages import SlideRun
from .blocks import BlockReader, BlockWriter
from .plan import Plan
from .rows import KeepingStream, kept_rows

#: Files of a part: its cells; rows for the seams; rows for the overview; the network's planes.
CELLS, ROWS, THIN, PLANES = "cells", "rows", "thin", "planes"
#: Arrays of a block of cells that are no columns of theirs.
OTHERS = ("outline", "outline_start", "first_x", "runs", "keys")


@dataclass(frozen=True, slots=True)
class Part:
    """What became of a span or a seam, in a few numbers."""

    #: Name of its folder.
    name: str
    #: Rows whose cells it may hold, half-open.
    y: int
    y1: int
    stats: Stats
    #: Sums over its cells of their scores and pixels.
    scores: float
    areas: int
    #: What a span leaves to its seams.
    reach: Reach | None = None
    #: Stage → seconds busy and waiting.
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)
    bad_blocks: tuple[str, ...] = ()
    seconds: float = 0.0
    #: What computed it, and in which run.
    engine: str = ""
    run: str = ""

    @classmethod
    def of(cls, about: dict[str, Any]) -> Part:
        """Read it back."""
        plain = dict(about)
        plain["stats"] = Stats(**plain["stats"])
        plain["reach"] = plain["reach"] and Reach(**plain["reach"])
        plain["stages"] = {name: tuple(clock) for name, clock in plain["stages"].items()}
        plain["bad_blocks"] = tuple(plain["bad_blocks"])
        return cls(**plain)


def compute_span(
    plan: Plan, number: int, backend: Backend, progress: Callable[[Progress], None] | None = None
) -> Part:
    """Read, infer, label and split one span; leave its cells, and the rows that its seams need.

    Parameters
    ----------
    plan
        Of the slide.
    number
        Of the span.
    backend
        The open model.
    progress
        Told how far the span is.

    Raises
    ------
    ImageError, BackendError, OutputError
        As from :func:`~cellseg.runtime.segment`.
    """
    started = time.perf_counter()
    name = f"span-{number:06d}"
    if (found := _done(plan.parts / name)) is not None:
        return found
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_making(plan.parts / name))
        setup = stack.enter_context(plan.opened(backend, prepared=True))
        span = plan.span(number)
        rows = stack.enter_context(BlockWriter(folder / ROWS))
        cells = stack.enter_context(_CellsSink(folder / CELLS))
        split = FragmentStream(
            **plan.stream_options(backend),
            rows=(span.y, span.y1),
            seams=[span.y] if span.y else [],
            part="inner",
        )
        watch, thin = _watching(setup, span.y, folder, stack)
        show, planes = _showing(plan, span.y, folder, stack)
        run = SlideRun(
            # Fragments are in the reader's pixels, in no region, of no class and not grown yet.
            replace(
                setup,
                unscaled=None,
                named=None,
                distance=None,
                measures=replace(setup.measures, classes=None),
            ),
            (cells,),
            watch,
            show,
            span=replace(span, split=KeepingStream(split, span.y, rows)),
        )
        last = run.run(progress)
        for file in (rows, thin, planes):
            if file is not None:
                file.commit()
        part = Part(
            name,
            span.y,
            span.y1,
            run.stats,
            run.scores,
            run.areas,
            split.reach,
            last.stages,
            setup.slide.bad_blocks,
            time.perf_counter() - started,
            f"{backend.name} {backend.precision}",
            plan.run,
        )
        cells.commit(part)
    return part


def compute_seam(plan: Plan, number: int, group: tuple[tuple[int, ...], int, int], backend: Backend) -> Part:
    """Go over the rows around seams once more, and leave the cells that depend on these.

    Parameters
    ----------
    plan, backend
        As for :func:`compute_span`.
    number
        Of the seam, or of several that go together.
    group
        The seams and the rows, as from :func:`~cellseg.runtime.instances.fragments.seam_groups`.
    """
    started = time.perf_counter()
    seams, y, y1 = group
    name = f"seam-{number:06d}"
    if (found := _done(plan.parts / name)) is not None:
        return found
    scores, areas = 0.0, 0
    with _making(plan.parts / name) as folder, _CellsSink(folder / CELLS) as cells:
        stream = FragmentStream(**plan.stream_options(backend), rows=(y, y1), seams=seams, part="seam")
        with stream:
            for planes, image in _rows_of(plan, y, y1):
                for fragment in stream.push(planes, image):
                    cells.write(fragment)
                    scores += float(fragment.cells.columns["score"].sum())
                    areas += int(fragment.cells.columns["area"].sum())
            stream.finish()
        if stream.open:
            raise BackendError(f"{plan.image}: rows {y} to {y1} do not hold all that reaches row {seams[0]}")
        seconds = time.perf_counter() - started
        part = Part(
            name, y, y1, stream.stats, scores, areas, stages={"seam": (seconds, 0.0)}, seconds=seconds
        )
        cells.commit(part)
    return part


def _rows_of(plan: Plan, y: int, y1: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[Any]]]:
    """Yield rows that spans have kept."""
    for number in range(plan.spans):
        begin, end = max(y, plan.rows[number]), min(y1, plan.rows[number + 1])
        if begin < end:
            with BlockReader(plan.parts / f"span-{number:06d}" / ROWS) as file:
                yield from kept_rows(file, begin, end)


class _CellsSink:
    """Writes fragments: of each its columns, outlines, runs, and what its cells are ordered by."""

    stage = "part"

    def __init__(self, path: Path) -> None:
        self._file = BlockWriter(path)

    def write(self, fragment: Any) -> None:
        """Take the next one."""
        assert isinstance(fragment, Fragment)
        cells = fragment.cells
        self._file.add(
            {"y": fragment.y, "y1": fragment.y1, "cells": len(cells)},
            {
                **cells.columns,
                "outline": cells.outline,
                "outline_start": cells.outline_start,
                "first_x": fragment.first_x,
                "runs": fragment.runs,
                "keys": place_keys(fragment),
            },
        )

    def commit(self, part: Part) -> None:
        """Finish the file; with it the part is whole."""
        self._file.commit(asdict(part))

    def __enter__(self) -> _CellsSink:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _watching(
    setup: Setup, y: int, folder: Path, stack: contextlib.ExitStack
) -> tuple[Callable[[NDArray[Any]], None] | None, BlockWriter | None]:
    """Return what is shown the raw rows for the overview, where that must be made of them."""
    if not needs_rows(setup.slide, setup.reader):
        return None, None
    thinner, _ = thinned_picture(setup.slide, setup.reader, row=y)
    file = stack.enter_context(BlockWriter(folder / THIN))

    def watch(rows: NDArray[Any]) -> None:
        if len(fewer := thinner(rows)):
            file.add({}, {"rows": fewer})

    return watch, file


def _showing(
    plan: Plan, y: int, folder: Path, stack: contextlib.ExitStack
) -> tuple[Callable[[NDArray[np.uint8]], None] | None, BlockWriter | None]:
    """Return what is shown the network's planes, where they are wanted."""
    if not plan.options.probabilities:
        return None, None
    file = stack.enter_context(BlockWriter(folder / PLANES))
    return lambda planes: file.add({}, {"planes": planes}), file


def _done(folder: Path) -> Part | None:
    """Return what a part is that is there and whole."""
    try:
        with BlockReader(folder / CELLS) as file:
            part = Part.of(file.about)
            file.verify()
        for name in (ROWS, THIN, PLANES):
            if (folder / name).exists():
                with BlockReader(folder / name) as file:
                    file.verify()
    except (OutputError, TypeError, KeyError):
        return None
    return part


@contextlib.contextmanager
def _making(folder: Path) -> Iterator[Path]:
    """Give a folder of one's own that gets its name when the block ends well, unless another one has it."""
    own = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.part")
    try:
        with writing(folder):
            own.mkdir()
        yield own
        with writing(folder):
            if folder.exists() and _done(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(FileExistsError, OSError):
                own.rename(folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(own, ignore_errors=True)
    if _done(folder) is None:
        raise OutputError(f"{folder}: is not whole, or was removed meanwhile; run it again")
