"""Scale and channel names from the dialects of TIFF: OME, ImageJ, Aperio SVS, QPTIFF, plain tags."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

from .tiff_stack import Stack

#: Micrometres in a unit, by its common spellings.
MICRONS = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "nm": 1e-3, "å": 1e-4, "pm": 1e-6, "inch": 25400.0, "in": 25400.0,
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "\\u00b5m": 1.0, "meter": 1e6, "millimeter": 1e3, "millimetre": 1e3, "nanometer": 1e-3,
    "nanometre": 1e-3, "centimeter": 1e4, "centimetre": 1e4, "angstrom": 1e-4,
}  # fmt: skip
#: Outside this range a resolution tag speaks of paper or screens (µm per pixel; 10 µm is 2540 dpi).
PLAUSIBLE = (0.005, 10.0)


def to_microns(value: float, unit: str) -> float | None:
    """Convert a length to micrometres; ``None`` for an unknown unit or a senseless value."""
    factor = MICRONS.get(unit.strip().lower())
    if factor is None or not math.isfinite(value) or value <= 0:
        return None
    return value * factor


def pixel_size(tiff: Any, stack: Stack) -> float | None:
    """Return micrometres a pixel of an image, or ``None`` where the file does not say.

    Parameters
    ----------
    tiff
        The open ``tifffile.TiffFile``.
    stack
        The image.
    """
    frame = stack.frame
    if stack.ome is not None and (size := stack.ome.attributes.get("PhysicalSizeX")) is not None:
        return to_microns(float(size), stack.ome.attributes.get("PhysicalSizeXUnit", "µm"))
    description = str(frame.description or "")
    if tiff.is_svs:
        found = re.search(r"\bMPP\s*=\s*([0-9.]+(?:[eE][-+]?\d+)?)", description)
        return to_microns(float(found[1]), "µm") if found else None
    if (written := _summary(tiff).get("PixelSize_um")) and (known := to_microns(float(written), "µm")):
        return known
    per_unit = float(frame.resolution[0])
    if not math.isfinite(per_unit) or per_unit <= 0:
        return None
    if tiff.is_imagej:
        unit = (tiff.imagej_metadata or {}).get("unit", "")
        return to_microns(1 / per_unit, str(unit))
    factor = {2: MICRONS["inch"], 3: MICRONS["cm"]}.get(int(frame.resolutionunit))
    if factor is None or not PLAUSIBLE[0] <= factor / per_unit <= PLAUSIBLE[1]:
        return None
    return factor / per_unit


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
        return names if all(names) else []
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
