"""What a person changed about the cells of a field, as GeoJSON that QuPath and ``cellseg-train import`` take.

A field is a rectangle whose cells are right after the corrections: some deleted, some merged, some drawn.
"""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..errors import UsageError
from ..instances.outlines import outlines, renumbered
from .scene import Scene

#: Edge of a field in pixels at most: larger ones are many fields.
LARGEST_FIELD = 4096
#: The number of a cell.
Label = Annotated[int, Field(ge=0, lt=1 << 31)]
#: And at least: the smallest picture that can be learned from, and larger than any cell.
SMALLEST_FIELD = 32
#: Pixels that are left over of a cell, when another was drawn upon it, count from this many on.
CRUMB = 10
#: Edge of the box around pieces that are merged, pixels, at most.
LARGEST_CELL = 1024


class Corrections(BaseModel):
    """What is sent by the page; places are pixels of the image, x before y."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    #: First column and row, and those behind the last.
    field: tuple[int, int, int, int]
    deleted: list[Label] = Field(default=[], max_length=100_000)
    #: Numbers of cells that are one.
    merged: list[list[Label]] = Field(default=[], max_length=2_000)
    #: Outlines of cells that were missing.
    drawn: list[list[tuple[float, float]]] = Field(default=[], max_length=2_000)


def to_geojson(scene: Scene, corrections: Corrections) -> str:
    """Return the field and its cells.

    Returns
    -------
    str
        A FeatureCollection: one annotation named ``field``, then a detection for each cell whose pixels lie
        in it, cut at its edge, in full-resolution pixels. Cells that were drawn come before what they cover.

    Raises
    ------
    UsageError
        The field lies outside of the image, or is too small or too large.
    """
    x0, y0, x1, y1 = corrections.field
    if not (0 <= x0 < x1 <= scene.width and 0 <= y0 < y1 <= scene.height):
        raise UsageError(
            f"the field {corrections.field} does not lie in a picture of {scene.width}×{scene.height}"
        )
    if max(x1 - x0, y1 - y0) > LARGEST_FIELD:
        raise UsageError(f"the field is {x1 - x0}×{y1 - y0} pixels; mark one of {LARGEST_FIELD} at most")
    if min(x1 - x0, y1 - y0) < SMALLEST_FIELD:
        raise UsageError(f"the field is {x1 - x0}×{y1 - y0} pixels; mark one of {SMALLEST_FIELD} at least")
    labels = corrected(scene.labels_at(y0, x0, y1 - y0, x1 - x0), corrections)
    rings = outlines(labels)
    corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    # By this cellseg-train import tells another slide, and a field without cells from cells left out.
    said = {"image": scene.name, "size": f"{scene.width}×{scene.height}", "cells": str(len(rings))}
    features = [_feature("annotation", corners, {"name": "field", "metadata": said})]
    features += [_feature("detection", np.add(ring, (x0, y0)).tolist(), {}) for ring in rings]
    return json.dumps({"type": "FeatureCollection", "features": features})


def corrected(labels: NDArray[np.int32], corrections: Corrections) -> NDArray[np.int32]:
    """Return the labels of the field after all corrections, numbered from 1 without gaps.

    Each cell is in one piece: pieces that were merged and do not touch are joined by their hull, as far as no
    other cell lies in it; what else is in pieces, as a cell that another was drawn across, is several cells.
    """
    x0, y0, _, _ = corrections.field
    # On the table of cells, not on all pixels: groups may be thousands.
    before, inverse = np.unique(labels, return_inverse=True)
    after = np.where(np.isin(before, corrections.deleted), 0, before)
    for group in corrections.merged:
        after[np.isin(after, group)] = min(group, default=0)
    out = after.astype(np.int32)[inverse].reshape(labels.shape)
    _bridge(out, {min(group, default=0) for group in corrections.merged})
    sizes = np.bincount(out.ravel())
    number = int(out.max(initial=0))
    for ring in corrections.drawn:
        if len(ring) < 3:
            continue
        # Pixels whose centre lies inside count; OpenCV counts from centres, outlines from corners.
        far = np.clip(np.array(ring) - (x0, y0), -LARGEST_FIELD, 2 * LARGEST_FIELD)  # OpenCV's limits
        points = np.rint((far - 0.5) * 16).astype(np.int32)
        number += 1
        cv2.fillPoly(out, [points], number, shift=4)
    left = np.bincount(out.ravel(), minlength=len(sizes))
    left[len(sizes) :] = CRUMB
    out[(left < CRUMB)[out] & (left[: len(sizes)] < sizes)[np.minimum(out, len(sizes) - 1)]] = 0
    _separate(out)
    return renumbered(out)


def _bridge(labels: NDArray[np.int32], merged: set[int]) -> None:
    """Join the pieces of cells that were merged across a gap by their hull, where nothing else lies.

    Raises
    ------
    UsageError
        Pieces lie further from each other than one cell reaches.
    """
    for number, box in _boxes(labels):
        if number not in merged:
            continue
        part = labels[box]
        if max(part.shape) > LARGEST_CELL:
            raise UsageError(
                f"cells that were merged into cell {number} lie on {part.shape[1]}×{part.shape[0]} pixels; "
                f"one cell has {LARGEST_CELL} at most"
            )
        mask = part == number
        if cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] > 2:
            hull = cv2.convexHull(np.argwhere(mask)[:, ::-1].astype(np.int32))
            within = cv2.fillConvexPoly(np.zeros(part.shape, np.uint8), hull, 1).astype(np.bool_)
            part[within & (part == 0)] = number


def _separate(labels: NDArray[np.int32]) -> None:
    """Give each piece of a cell beside its largest a number of its own; crumbs become background."""
    following = int(labels.max(initial=0)) + 1
    for number, box in _boxes(labels):
        count, pieces = cv2.connectedComponents((labels[box] == number).astype(np.uint8), connectivity=4)
        if count < 3:
            continue
        sizes = np.bincount(pieces.ravel(), minlength=count)
        sizes[0] = 0
        for piece in np.argsort(-sizes, kind="stable")[1 : count - 1]:
            kept = sizes[piece] >= CRUMB
            labels[box][pieces == piece] = following if kept else 0
            following += int(kept)


def _boxes(labels: NDArray[np.int32]) -> list[tuple[int, tuple[slice, slice]]]:
    """Return the number of each cell and the rows and columns that it lies in."""
    y, x = np.nonzero(labels)
    if not len(y):
        return []
    order = np.argsort(labels[y, x], kind="stable")
    y, x = y[order], x[order]
    numbers, starts = np.unique(labels[y, x], return_index=True)
    ends = [(np.minimum.reduceat(each, starts), np.maximum.reduceat(each, starts) + 1) for each in (y, x)]
    return [
        (int(number), (slice(*map(int, rows)), slice(*map(int, columns))))
        for number, rows, columns in zip(
            numbers, zip(*ends[0], strict=True), zip(*ends[1], strict=True), strict=True
        )
    ]


def _feature(kind: str, ring: list[list[int]], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "id": str(uuid.uuid4()),
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {"objectType": kind, **properties},
    }
