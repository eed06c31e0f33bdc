"""Areas from a GeoJSON file, as QuPath and other programs export them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.bounded import brief, parse_json, read_bytes
from ..errors import UsageError

#: No pixel lies further from the image's corner than this.
FURTHEST = 1e9


def read_areas(path: Path) -> list[list[npt.NDArray[np.float64]]]:
    """Read the polygons of a file; also ``.gz``.

    Parameters
    ----------
    path
        A FeatureCollection, a Feature, a geometry, or a list of them.

    Returns
    -------
    list of list of ndarray, float64, shape (n, 2)
        The rings of every polygon, x and y in the file's units; no ring for a polygon that is empty.
        Points, lines and features without a geometry are passed over.

    Raises
    ------
    UsageError
        The file cannot be read, is no GeoJSON, or would take more memory than one file may.
    """
    try:
        return list(_polygons(parse_json(read_bytes(path))))
    except (OSError, EOFError, ValueError, RecursionError) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UsageError(f"{path}: cannot be read as GeoJSON: {text}") from None


def _polygons(record: Any) -> Iterator[list[npt.NDArray[np.float64]]]:
    """Yield the polygons of any GeoJSON object as lists of rings."""
    if isinstance(record, list):
        for item in record:
            yield from _polygons(item)
        return
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        raise ValueError(f"found {brief(record)}, wanted an object with a 'type'")
    kind = record["type"]
    if kind == "FeatureCollection":
        yield from _polygons(_list(record, "features"))
    elif kind == "Feature":
        if record.get("geometry"):
            yield from _polygons(record["geometry"])
    elif kind == "GeometryCollection":
        yield from _polygons(_list(record, "geometries"))
    elif kind in ("Polygon", "MultiPolygon"):
        parts = _list(record, "coordinates")
        for rings in [parts] if kind == "Polygon" else parts or [[]]:
            yield _rings(rings)


def _list(record: dict[str, Any], name: str) -> list[Any]:
    found = record.get(name)
    if not isinstance(found, list):
        raise ValueError(f"'{name}' of a {record['type']} is {brief(found)}, wanted a list")
    return found


def _rings(rings: Any) -> list[npt.NDArray[np.float64]]:
    """Return the rings of a polygon; none where its outer one is empty, as in WKT's POLYGON EMPTY."""
    if not isinstance(rings, list):
        raise ValueError(f"a polygon is {brief(rings)}, wanted a list of rings")
    made = [_ring(ring) for ring in rings]
    return [ring for ring in made if len(ring)] if made and len(made[0]) else []


def _ring(points: Any) -> npt.NDArray[np.float64]:
    if not isinstance(points, list):
        raise ValueError(f"a ring is {brief(points)}, wanted a list of points")
    if not points:
        return np.empty((0, 2))
    try:
        ring = np.array([point[:2] for point in points], np.float64)
    except (TypeError, ValueError, KeyError, OverflowError):
        raise ValueError(f"a ring holds {brief(points)}, wanted points of two numbers") from None
    if ring.ndim != 2 or ring.shape[1] != 2:
        raise ValueError(f"a ring holds {brief(points)}, wanted points of two numbers")
    if len(ring) < 3:
        raise ValueError(f"a polygon has fewer than three corners: {brief(points)}")
    if not np.isfinite(ring).all():
        raise ValueError("a polygon has a corner that is no number")
    if np.abs(ring).max() > FURTHEST:
        raise ValueError(f"a polygon has a corner at {np.abs(ring).max():g}, which is no pixel of any image")
    return ring
