"""Scale and channel names from the dialects of TIFF: OME, ImageJ, Aperio SVS, QPTIFF, plain tags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from .scale import MICRONS, Scale, read_scale
from .tiff_stack import Stack

#: Micrometres in the units of TIFF's resolution tags.
_TAG_UNITS = {2: MICRONS["inch"], 3: MICRONS["cm"]}
#: Height and width of a pixel of the full resolution, in millimetres, in a Philips TIFF.
_PHILIPS = re.compile(
    r'DICOM_PIXEL_SPACING"[^>]*>\s*(?:&quot;|")?([\d.,eE+-]+)(?:&quot;|")?\s+(?:&quot;|")?([\d.,eE+-]+)'
)


def pixel_size(tiff: Any, stack: Stack) -> Scale:
    """Return how large a pixel of an image is, by the most specific source that says so.

    Parameters
    ----------
    tiff
        The open ``tifffile.TiffFile``.
    stack
        The image.
    """
    notes: tuple[str, ...] = ()
    for scale in _scales(tiff, stack):
        if scale.size is not None:
            return scale
        notes = notes or scale.notes
    return Scale(notes=notes)


def _scales(tiff: Any, stack: Stack) -> Iterator[Scale]:
    frame = stack.frame
    if stack.ome is not None:
        said = stack.ome.attributes
        yield read_scale(
            said.get("PhysicalSizeX"),
            said.get("PhysicalSizeY"),
            said.get("PhysicalSizeXUnit", "µm"),
            said.get("PhysicalSizeYUnit", "µm"),
        )
    if tiff.is_svs:
        found = re.search(r"\bMPP\s*=\s*([^|\r\n]+)", str(frame.description or ""))
        yield read_scale(found[1] if found else None)
        return  # its resolution tags are a camera's
    if tiff.is_mmstack or tiff.is_ndtiff:
        yield read_scale(_summary(tiff).get("PixelSize_um") or None)
    if tiff.is_philips:
        found = _PHILIPS.search(str(frame.description or ""))
        yield read_scale(found[2], found[1], "mm") if found else Scale()
    if tiff.is_imagej:
        said = tiff.imagej_metadata or {}
        unit = str(said.get("unit", ""))
        x, y = (_edge(per_unit, 1.0) for per_unit in frame.resolution)
        yield read_scale(x, y, unit, str(said.get("yunit") or unit))
    elif microns := _TAG_UNITS.get(int(frame.resolutionunit)):
        x, y = (_edge(per_unit, microns) for per_unit in frame.resolution)
        yield read_scale(x, y, paper=True)


def _edge(per_unit: Any, unit: float) -> float | None:
    """Return the edge of a pixel from pixels a unit; none where that is no number."""
    try:
        return unit / float(per_unit)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def channel_names(tiff: Any, stack: Stack, frames: list[Any]) -> list[str]:
    """Return the names that the file gives its channels, in order; empty where it gives none.

    Parameters
    ----------
    tiff, stack
        As in :func:`pixel_size`.
    frames
        The first page of each channel.
    """
    if stack.ome is not None:
        names = [channel.name for channel in stack.ome.channels]
        return [name or f"channel {i}" for i, name in enumerate(names)] if any(names) else []
    if listed := _summary(tiff).get("ChNames"):
        return [str(name) for name in listed]
    if tiff.is_imagej:
        labels = (tiff.imagej_metadata or {}).get("Labels") or []
        return [str(label) for label in labels]
    if tiff.is_qpi:
        return [name for frame in frames if (name := _qptiff_name(frame))]
    return []


def _summary(tiff: Any) -> dict[str, Any]:
    """Return what Micro-Manager says of an acquisition, empty for other files."""
    found = tiff.micromanager_metadata if tiff.is_mmstack or tiff.is_ndtiff else None
    summary = (found or {}).get("Summary")
    return summary if isinstance(summary, dict) else {}


def _qptiff_name(frame: Any) -> str:
    """Return the Name (or Biomarker) in a QPTIFF page's description; empty where there is none."""
    try:
        root = ElementTree.fromstring(str(getattr(frame, "description", "") or ""))
    except (ElementTree.ParseError, ValueError):
        return ""
    return (root.findtext("Biomarker") or root.findtext("Name") or "").strip()
