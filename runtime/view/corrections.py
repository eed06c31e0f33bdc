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
        The field lies outside of the image, or is empty or too large.
    """
    x0, y0, x1, y1 = corrections.field
    if not (0 <= x0 < x1 <= scene.width and 0 <= y0 < y1 <= scene.height):
        raise UsageError(
            f"the field {corrections.field} does not lie in a picture of {scene.width}×{scene.height}"
        )
    if max(x1 - x0, y1 - y0) > LARGEST_FIELD:
        raise UsageError(f"the field is {x1 - x0}×{y1 - y0} pixels; mark one of {LARGEST_FIELD} at most")
    labels = corrected(scene.labels_at(y0, x0, y1 - y0, x1 - x0), corrections)
    rings = outlines(labels)
    corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    features = [_feature("annotation", corners, {"name": "field"})]
    features += [_feature("detection", np.add(ring, (x0, y0)).tolist(), {}) for ring in rings]
    return json.dumps({"type": "FeatureCollection", "features": features})


def corrected(labels: NDArray[np.int32], corrections: Corrections) -> NDArray[np.int32]:
    """Return the labels of the field after all corrections, numbered from 1 without gaps."""
    x0, y0, _, _ = corrections.field
    # On the table of cells, not on all pixels: groups may be thousands.
    before, inverse = np.unique(labels, return_inverse=True)
    after = np.where(np.isin(before, corrections.deleted), 0, before)
    for group in corrections.merged:
        after[np.isin(after, group)] = min(group, default=0)
    out = after.astype(np.int32)[inverse].reshape(labels.shape)
    number = int(out.max(initial=0))
    for ring in corrections.drawn:
        if len(ring) < 3:
            continue
        # Pixels whose centre lies inside count; OpenCV counts from centres, outlines from corners.
        far = np.clip(np.array(ring) - (x0, y0), -LARGEST_FIELD, 2 * LARGEST_FIELD)  # OpenCV's limits
        points = np.rint((far - 0.5) * 16).astype(np.int32)
        number += 1
        cv2.fillPoly(out, [points], number, shift=4)
    return renumbered(out)


def _feature(kind: str, ring: list[list[int]], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "id": str(uuid.uuid4()),
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {"objectType": kind, **properties},
    }
