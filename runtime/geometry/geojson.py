"""Areas from a GeoJSON file, as QuPath and other programs export them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.bounded import brief, parse_json, read_bytes
from ..errors import UsageError

#: No pixel lies further from the image's corner than this.
FURTHEST = 1e9


#: The rings of a polygon, each float64 of shape (n, 2): x and y, the outer one first.
Rings = list[npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Feature:
    """What a person or a program drew, with what QuPath says about it."""

    #: Polygons, x and y in the file's units; no ring for a polygon that is empty.
    polygons: list[Rings]
    #: The nucleus of a QuPath cell, likewise.
    nucleus: list[Rings]
    #: ``annotation``, ``detection``, ``cell``, ``tile`` or what else the file says; empty where it does not.
    kind: str = ""
    name: str = ""
    #: Name of the class; of a derived class as QuPath writes it, ``Tumor: Positive``.
    classification: str = ""
    #: What else is said of it, as QuPath keeps it: texts by name.
    metadata: dict[str, str] = field(default_factory=dict)


def read_features(path: Path) -> list[Feature]:
    """Read the features of a file; also ``.gz``.

    Parameters
    ----------
    path
        A FeatureCollection, a Feature, a geometry, or a list of them.

    Returns
    -------
    list of Feature
        Those without a polygon are passed over: points, lines, features without a geometry.

    Raises
    ------
    UsageError
        The file cannot be read, is no GeoJSON, or would take more memory than one file may.
    """
    try:
        return [each for each in _features(parse_json(read_bytes(path))) if each.polygons]
    except (OSError, EOFError, ValueError, RecursionError) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UsageError(f"{path}: cannot be read as GeoJSON: {text}") from None


def _features(record: Any) -> Iterator[Feature]:
    """Yield the features of any GeoJSON object; a bare geometry is one of which nothing is said."""
    if isinstance(record, list):
        for item in record:
            yield from _features(item)
        return
    kind = _kind(record)
    if kind == "FeatureCollection":
        yield from _features(_list(record, "features"))
    elif kind == "Feature":
        given = record.get("properties")
        said = given if isinstance(given, dict) else {}
        nucleus = record.get("nucleusGeometry") or said.get("nucleusGeometry")
        yield Feature(
            list(_polygons(record["geometry"])) if record.get("geometry") else [],
            list(_polygons(nucleus)) if nucleus else [],
            _text(said.get("objectType")),
            _text(said.get("name")),
            _class(said.get("classification")),
            _texts(said.get("metadata")),
        )
    else:
        yield Feature(list(_polygons(record)), [])


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _texts(value: Any) -> dict[str, str]:
    found = value if isinstance(value, dict) else {}
    return {name: _text(each) for name, each in found.items() if _text(each)}


def _class(value: Any) -> str:
    """Return the name of a class: QuPath writes ``name``, or ``names`` from the outermost on."""
    if not isinstance(value, dict):
        return _text(value)
    names = value.get("names")
    if isinstance(names, list):
        return ": ".join(filter(None, map(_text, names)))
    return _text(value.get("name"))


def _kind(record: Any) -> str:
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        raise ValueError(f"found {brief(record)}, wanted an object with a 'type'")
    kind: str = record["type"]
    return kind


def _polygons(record: Any) -> Iterator[Rings]:
    """Yield the polygons of a geometry."""
    kind = _kind(record)
    if kind == "GeometryCollection":
        for part in _list(record, "geometries"):
            yield from _polygons(part)
    elif kind in ("Polygon", "MultiPolygon"):
        parts = _list(record, "coordinates")
        for rings in [parts] if kind == "Polygon" else parts or [[]]:
            yield _rings(rings)


def _list(record: dict[str, Any], name: str) -> list[Any]:
    found = record.get(name)
    if not isinstance(found, list):
        raise ValueError(f"'{name}' of a {record['type']} is {brief(found)}, wanted a list")
    return found


def _rings(rings: Any) -> Rings:
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
