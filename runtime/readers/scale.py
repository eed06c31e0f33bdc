"""How large a pixel is: one rule for every source, be it OME, ImageJ, a TIFF tag, a scanner or OME-Zarr.

What files say is a number with a decimal comma, nothing, ``NaN``, a number with its unit behind it, the
resolution of a screen. A scale that cannot be true is worse than none: cells are looked for at the wrong
size, and every area is wrong.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from ..common.spelling import option

#: Micrometres in a unit, by its common spellings.
MICRONS = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "nm": 1e-3, "å": 1e-4, "pm": 1e-6, "inch": 25400.0, "in": 25400.0,
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "\\u00b5m": 1.0, "micrometers": 1.0, "micrometres": 1.0, "mikron": 1.0, "mu": 1.0, "µ": 1.0,
    "meter": 1e6, "metre": 1e6, "millimeter": 1e3, "millimetre": 1e3, "nanometer": 1e-3, "nanometre": 1e-3,
    "nanometers": 1e-3, "centimeter": 1e4, "centimetre": 1e4, "angstrom": 1e-4, "ångström": 1e-4,
    "picometer": 1e-6, "picometre": 1e-6, "inches": 25400.0, "mil": 25.4, "thou": 25.4,
}  # fmt: skip
#: What stands for a unit where nothing was calibrated.
UNCALIBRATED = {"", "pixel", "pixels", "px", "none", "null", "unitless", "reference frame", "-"}
#: Outside this range a scale speaks of paper, screens or maps, or is a slip (µm a pixel; 10 µm is 2540 dpi,
#: 1 nm is an electron microscope's).
PLAUSIBLE = (0.001, 10.0)
#: Width and height of a pixel that differ by less count as equal.
SQUARE = 0.01
_NUMBER = re.compile(r"[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a pixel is, and what the user should know of that."""

    #: Edge in micrometres of a square pixel of the same area; ``None`` where that is not known.
    size: float | None = None
    #: Height of a pixel by its width.
    aspect: float = 1.0
    notes: tuple[str, ...] = ()


def to_microns(value: Any, unit: str | None) -> float | None:
    """Convert a length to micrometres; ``None`` for what is no length.

    Parameters
    ----------
    value
        A number, or text as files have it: with a decimal comma, or its unit behind it.
    unit
        The unit, where the text does not say.
    """
    if isinstance(value, str):
        found = _NUMBER.match(value.strip())
        if found is None:
            return None
        unit = value.strip()[found.end() :].strip() or unit
        value = found[0].replace(",", ".")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    factor = MICRONS.get((unit or "").strip().lower())
    if factor is None or not math.isfinite(number) or number <= 0:
        return None
    return number * factor


def read_scale(
    x: Any, y: Any = None, unit: str | None = "µm", unit_y: str | None = None, *, paper: bool = False
) -> Scale:
    """Return the scale that a source states.

    Parameters
    ----------
    x, y
        Width and height of a pixel, as for :func:`to_microns`; either may be missing.
    unit, unit_y
        Their units; by default both have the first.
    paper
        The source is a tag that most programs fill with the resolution of a screen: what cannot be a
        microscope's is left out without a word.
    """
    units = unit, unit if unit_y is None else unit_y
    given = [(value, of) for value, of in zip((x, y), units, strict=True) if value not in (None, "")]
    if not given or all(
        str(of or "").strip().lower() in UNCALIBRATED and _plain(value) for value, of in given
    ):
        return Scale()
    sizes = [size for value, of in given if (size := to_microns(value, of)) is not None]
    said = " × ".join(f"{value} {of or ''}".strip() for value, of in given[: 1 if _alike(given) else 2])
    if not sizes:
        return Scale(notes=() if paper else (_unused(f"its scale '{said}' is not understood"),))
    if not all(PLAUSIBLE[0] <= size <= PLAUSIBLE[1] for size in sizes):
        what = f"its scale of {' × '.join(f'{size:.4g}' for size in dict.fromkeys(sizes))} µm a pixel"
        return Scale(notes=() if paper else (_unused(f"{what} is not a microscope's"),))
    wide, tall = sizes[0], sizes[-1]
    if abs(tall / wide - 1) <= SQUARE:
        return Scale(wide)
    note = (
        f"its pixels are not square ({wide:.4g} µm wide, {tall:.4g} µm high): areas are right, lengths are "
        "in its pixels"
    )
    return Scale(math.sqrt(wide * tall), tall / wide, (note,))


def _plain(value: Any) -> bool:
    """Return whether a value brings no unit of its own."""
    return not isinstance(value, str) or to_microns(value, None) is None


def _alike(given: list[tuple[Any, str | None]]) -> bool:
    return len({str(pair) for pair in given}) == 1


def _unused(what: str) -> str:
    return f"{what}: not used; give it with {option('pixel_size')}"
