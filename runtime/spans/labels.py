"""The label image of a slide in spans: rows of it that workers write apart, and what is above them."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..common.files import writing
from ..instances import Cells, Strip
from ..instances.full_resolution import FullResolution, sources
from ..writers.base import compressors
from ..writers.folder import unfinished
from ..writers.labels import create_group
from ..writers.pyramid import CHUNK, PyramidWriter, pyramid_shapes
from ..writers.store import DiscardableStore
from .compute import Part
from .merge import ROWS, MergedParts
from .plan import Plan

#: The folder that is written, whatever format is made of it in the end.
LABELS = "labels.ome.zarr"


def begin_labels(plan: Plan, name: str) -> dict[str, int]:
    """Make the label image without any pixel; return its files, and their sizes in bytes.

    Paths are those in the folder of results.
    """
    path = unfinished(plan.folder) / LABELS
    with writing(path):
        if path.exists():
            shutil.rmtree(path)
        path.mkdir()
        store = DiscardableStore(path)
        create_group(store, pyramid_shapes(*plan.size), plan.settled.pixel_size, name)
    return _named(plan, store.written())


def write_labels(plan: Plan, parts: Sequence[Part], number: int) -> dict[str, int]:
    """Write some rows of the label image, and of its reduced copies as far as they are these rows' alone.

    Parameters
    ----------
    plan
        Of the slide.
    parts
        All of them.
    number
        Which of ``plan.label_rows``.

    Returns
    -------
    dict
        Files in the folder of results, and their sizes in bytes.

    Raises
    ------
    OutputError
        They cannot be written.
    """
    y, y1 = plan.label_rows[number : number + 2]
    final = unfinished(plan.folder) / LABELS
    # Another worker may be at the same rows, where one was taken for dead.
    own = plan.parts / f"labels-{number:06d}.{uuid.uuid4().hex}.part"
    shapes = pyramid_shapes(*plan.size)[: plan.label_levels]
    pool, threads = compressors("cellseg-labels")
    try:
        with writing(final), pool, MergedParts(plan, parts) as merged:
            own.mkdir()
            pyramid = PyramidWriter(own, shapes, pool, threads, rows=(y, y1))
            for rows in _label_rows(plan, merged, y, y1):
                pyramid.push(rows)
            pyramid.finish()
            return _moved(plan, own, final, pyramid.written)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def reduce_labels(plan: Plan) -> dict[str, int]:
    """Write the reduced copies that lie above those that were written with the rows."""
    shapes = pyramid_shapes(*plan.size)
    if len(shapes) == plan.label_levels:
        return {}
    final = unfinished(plan.folder) / LABELS
    pool, threads = compressors("cellseg-labels")
    with writing(final), pool:
        pyramid = PyramidWriter(final, shapes[plan.label_levels :], pool, threads, first=plan.label_levels)
        below: Any = zarr.open_array(final / str(plan.label_levels - 1), mode="r")
        for y in range(0, below.shape[0], 4 * CHUNK):
            pyramid.push(np.ascontiguousarray(below[y : y + 4 * CHUNK][::2, ::2]))
        pyramid.finish()
    return _named(plan, pyramid.written)


def _label_rows(plan: Plan, merged: MergedParts, y: int, y1: int) -> Any:
    """Yield rows of the label image, in the pixels of the slide."""
    grid = plan.settled.grid
    if plan.scaled is None:
        for start in range(y, y1, ROWS):
            yield merged.labels(start, min(start + ROWS, y1))
        return
    back = FullResolution(grid.height, grid.width, *plan.size)
    ends = sources(np.array([y, y1 - 1]), grid.height, plan.size[0])
    for start in range(int(ends[0]), int(ends[1]) + 1, ROWS):
        stop = min(start + ROWS, int(ends[1]) + 1)
        strip = back.strip(Strip(start, merged.labels(start, stop), Cells.empty()))
        first, last = max(y - strip.y, 0), min(y1 - strip.y, len(strip.labels))
        if first < last:
            yield np.ascontiguousarray(strip.labels[first:last])


def _moved(plan: Plan, own: Path, final: Path, written: dict[Path, int]) -> dict[str, int]:
    """Move files from a folder of one's own to their place."""
    moved = {}
    for path, size in written.items():
        target = final / path.relative_to(own)
        with contextlib.suppress(FileExistsError):
            target.parent.mkdir(parents=True)
        path.replace(target)
        moved[target] = size
    return _named(plan, moved)


def _named(plan: Plan, written: dict[Path, int]) -> dict[str, int]:
    root = unfinished(plan.folder)
    return {path.relative_to(root).as_posix(): size for path, size in written.items()}
