"""The record of an OME-Zarr image, versions 0.1 to 0.5: levels, axes, scale, channel names.

Everything but the levels may be missing, null or half filled in: programs differ, and the older versions have
no axes at all. What is there is used; what is not is not known. Nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..common.bounded import brief
from ..errors import ImageError, UsageError
from .scale import Scale, read_scale

#: The axes of versions 0.1 and 0.2, which do not name them.
OLD_AXES = ("t", "c", "z", "y", "x")
#: Reduced copies of a picture, each half as large as the one before or so.
MOST_LEVELS = 64
_BY_TYPE = {"channel": "c", "time": "t"}


@dataclass(frozen=True, slots=True)
class Multiscale:
    """One entry of ``multiscales`` with its ``omero`` record."""

    #: Paths of the arrays, as the record has them.
    levels: tuple[str, ...]
    #: Names of the axes in lower case, and their units; empty where the record has none.
    axes: tuple[str, ...]
    units: tuple[str, ...]
    #: Scale along each axis of the first level, where that is known.
    factors: tuple[float, ...]
    #: Labels of the channels; empty texts where there is none.
    labels: tuple[str, ...]

    def axes_of(self, path: str, dimensions: int) -> tuple[str, ...]:
        """Return the axes of an array with a number of dimensions.

        Raises
        ------
        ImageError
            They do not fit, or there is no picture in them.
        """
        axes = self.axes or (OLD_AXES[-dimensions:] if dimensions in (2, len(OLD_AXES)) else ())
        if len(axes) != dimensions:
            raise ImageError(
                f"{path}: its axes {brief(list(axes))} do not fit its arrays of {dimensions} dimensions"
            )
        if len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes):
            raise ImageError(f"{path}: its axes are {brief(list(axes))}; wanted one y and one x")
        return axes

    def channel_names(self, count: int) -> list[str]:
        """Return a name for each channel, or none where no label is there."""
        if len(self.labels) != count or not any(self.labels):
            return []
        return [label or f"channel {number}" for number, label in enumerate(self.labels)]

    def scale(self, y: int, x: int) -> Scale:
        """Return how large a pixel is; ``y`` and ``x`` are the numbers of these axes."""
        if max(y, x) >= len(self.factors):
            return Scale()
        wide, tall = self.factors[x], self.factors[y]
        units = [self.units[n] if n < len(self.units) else "" for n in (x, y)]
        if not any(units) and (wide, tall) != (1.0, 1.0):
            what = f"{wide:g}" if wide == tall else f"{wide:g} × {tall:g}"
            return read_scale(what, unit="(no unit)")
        return read_scale(wide, tall, *units)


def read_multiscale(path: str, attributes: Mapping[str, Any]) -> Multiscale:
    """Read the first image of a group's record.

    Raises
    ------
    ImageError
        It names no level.
    """
    entries = _items(attributes.get("multiscales"))
    entry = _record(entries[0]) if entries else {}
    datasets = [_record(each) for each in _items(entry.get("datasets"))]
    levels = tuple(str(each["path"]) for each in datasets if each.get("path") is not None)
    if not levels:
        raise ImageError(f"{path}: not a readable OME-Zarr image: its record names no array")
    if len(levels) > MOST_LEVELS:
        raise ImageError(f"{path}: its record names {len(levels):,} levels; at most {MOST_LEVELS} are read")
    axes = [axis if isinstance(axis, str) else _record(axis) for axis in _items(entry.get("axes"))]
    names = tuple(
        axis if isinstance(axis, str) else _BY_TYPE.get(str(axis.get("type")), str(axis.get("name")))
        for axis in axes
    )
    units = tuple("" if isinstance(axis, str) else str(axis.get("unit") or "") for axis in axes)
    omero = _record(attributes.get("omero"))
    labels = tuple(str(_record(each).get("label") or "").strip() for each in _items(omero.get("channels")))
    return Multiscale(levels, tuple(map(str.lower, names)), units, _factors(datasets[0], entry), labels)


def fields_of(attributes: Mapping[str, Any]) -> list[str]:
    """Return the paths of a plate's wells, or of a well's fields; empty for anything else."""
    plate, well = _record(attributes.get("plate")), _record(attributes.get("well"))
    listed = _items(plate.get("wells")) or _items(well.get("images"))
    return [str(_record(each)["path"]) for each in listed if _record(each).get("path")]


def choose_number(path: str, found: Sequence[int], series: int | None) -> int:
    """Return the number of the image to read of a folder that holds several.

    Raises
    ------
    ImageError, UsageError
        There is none, or none of that number.
    """
    number = series or 0
    if number not in found:
        if series is not None and found:
            raise UsageError(f"{path}: there is no series {series}; it has {found[0]} to {found[-1]}")
        raise ImageError(f"{path}: this Zarr folder holds no OME-Zarr image (no multiscales record)")
    return number


def _factors(first: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the scale along each axis: that of the first level, times that of all levels."""
    factors: list[float] = []
    for holder in (first, entry):
        for transform in _items(holder.get("coordinateTransformations")):
            scale = _record(transform).get("scale")
            if isinstance(scale, list) and all(isinstance(value, int | float) for value in scale):
                factors = [a * b for a, b in zip(factors or [1.0] * len(scale), scale, strict=False)]
    return tuple(factors)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _record(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
