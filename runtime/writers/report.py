"""``report.html``: one page, complete in itself, that a person would rather look at than JSON.

Pictures are embedded, charts are drawn as SVG, nothing is loaded from elsewhere and no script runs.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..instances import Strip
from .base import Writer, write_whole
from .contents import RECORD
from .density import round_up
from .outputs import titles
from .page import PAGE, STYLE

#: Bins of each histogram while cells are counted, and bars when it is drawn.
BINS, BARS = 2000, 32


@dataclass(slots=True)
class Histogram:
    """Counts of a value between two bounds; what lies beyond counts at the end."""

    low: float
    high: float
    counts: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, low: float, high: float) -> Histogram:
        """Return a histogram of nothing."""
        return cls(low, high, np.zeros(BINS, np.int64))

    def add(self, values: npt.NDArray[Any]) -> None:
        """Count some values; NaN is left out."""
        values = np.asarray(values, np.float64)
        values = values[np.isfinite(values)]
        place = (values - self.low) / (self.high - self.low) * BINS
        self.counts += np.bincount(np.clip(place, 0, BINS - 1).astype(np.int64), minlength=BINS)

    def quantile(self, part: float) -> float:
        """Return the value that ``part`` of all lie below, to a bin's width; NaN of nothing."""
        total = int(self.counts.sum())
        if not total:
            return float("nan")
        bin_ = int(np.searchsorted(np.cumsum(self.counts), max(1, part * total)))
        return self.low + (bin_ + 0.5) / BINS * (self.high - self.low)


class Summary(Writer):
    """Counts what the report shows; writes nothing and holds a few histograms only."""

    stage = "summary"

    def __init__(self) -> None:
        #: Diameter of the circle of equal area, in pixels.
        self.diameter = Histogram.empty(0, 400)
        self.eccentricity = Histogram.empty(0, 1)
        self.solidity = Histogram.empty(0, 1)
        self.probability = Histogram.empty(0, 1)
        #: Sum of the cells' areas in pixels, and number of cells on the image's border.
        self.area = 0
        self.border = 0

    def write(self, strip: Strip) -> None:
        """Count the cells of the next strip."""
        columns = strip.cells.columns
        area = columns["area"].astype(np.float64)
        self.diameter.add(np.sqrt(area * 4 / np.pi))
        self.eccentricity.add(columns["eccentricity"])
        self.solidity.add(columns["solidity"])
        self.probability.add(columns["mean_probability"])
        self.area += int(area.sum())
        self.border += int(np.count_nonzero(columns["touches_border"]))

    def commit(self) -> None:
        """Nothing is written."""


def write_report(
    path: Path, record: Mapping[str, Any], summary: Summary, *, overview: bytes = b"", density: bytes = b""
) -> int:
    """Write the page of one image; return its size in bytes.

    Parameters
    ----------
    path
        The file to make; files of results beside it are listed.
    record
        What goes into ``run.json``.
    summary
        Took all strips of the image.
    overview, density
        The pictures to embed, as JPEG and as PNG; left out where empty.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    data = page(path.parent, record, summary, overview=overview, density=density).encode()
    write_whole(path, data)
    return len(data)


def page(
    folder: Path,
    record: Mapping[str, Any],
    summary: Summary,
    *,
    overview: bytes = b"",
    density: bytes = b"",
) -> str:
    """Return the page as HTML."""
    image, counts = record["image"], record["counts"]
    scale = image.get("pixel_size_um")
    part = record.get("focus", {}).get("looked_at_part", 1.0)
    pixels = image["height"] * image["width"] * part
    looked_at = " looked at" if part < 1 else ""
    unit, factor = ("µm", scale) if scale else ("px", 1.0)
    crowding = (
        (f"cells per mm²{looked_at}", counts["cells"] / max(pixels * scale**2 / 1e6, 1e-12))
        if scale
        else (f"cells per megapixel{looked_at}", counts["cells"] / max(pixels / 1e6, 1e-12))
    )
    median = summary.diameter.quantile(0.5)
    facts = [
        ("cells", f"{counts['cells']:,}"),
        (crowding[0], f"{crowding[1]:,.0f}"),
        (
            "median diameter",
            f"{median * factor:.1f} {unit}" if counts["cells"] else "–",
        ),
        (f"of the area{looked_at} is cells", f"{100 * summary.area / max(pixels, 1):.1f} %"),
        ("seconds", f"{record['seconds']['total']:,.1f}"),
    ]
    charts = [
        chart("Diameter", summary.diameter, unit, factor),
        chart("Eccentricity", summary.eccentricity),
        chart("Solidity", summary.solidity),
        chart("Probability", summary.probability),
    ]
    name = Path(str(image["path"])).name
    return PAGE.format(
        style=STYLE,
        title=html.escape(name),
        subtitle=html.escape(
            f"{image['width']:,} × {image['height']:,} pixels"
            + (f" of {scale:.4g} µm" if scale else ", scale unknown")
            + f" · {', '.join(image['channels'])} · {image['dtype']}"
        ),
        facts="".join(
            f"<div class=fact><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>"
            for label, value in facts
        ),
        notes="".join(
            f"<li{' class=doubt' if note in record.get('doubts', []) else ''}>{html.escape(str(note))}</li>"
            for note in record.get("notes", [])
        ),
        overview=embed(overview, "jpeg", "The picture with the outlines of the cells"),
        density=embed(density, "png", "Map of cell density"),
        charts="".join(charts),
        stages=stages(record),
        files="".join(
            f"<tr><th>{item}<td>{text}"
            for item, text in titles().items()
            if item == RECORD or (folder / item).exists()  # the record comes last
        ),
        settings="".join(details(record)),
    )


def embed(data: bytes, kind: str, text: str) -> str:
    """Return an ``img`` that holds a picture, or nothing where there is none."""
    if not data:
        return ""
    source = base64.b64encode(data).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/{kind};base64,{source}">'


def chart(title: str, histogram: Histogram, unit: str = "", factor: float = 1.0) -> str:
    """Return a histogram as SVG: bars, three numbers below, a line at the median."""
    if not histogram.counts.any():
        return f"<figure><figcaption>{html.escape(title)}</figcaption><p class=none>no cells</p></figure>"
    low, high = span(histogram, factor)
    width = (histogram.high - histogram.low) * factor / BINS
    centres = histogram.low * factor + (np.arange(BINS) + 0.5) * width
    place = np.clip((centres - low) / (high - low) * BARS, 0, BARS - 1).astype(int)
    bars = np.bincount(place, histogram.counts, BARS)
    heights = bars / bars.max() * 100
    drawn = "".join(
        f'<rect x="{i * 10 + 0.5}" y="{110 - tall:.1f}" width="9" height="{tall:.1f}"/>'
        for i, tall in enumerate(heights)
        if tall > 0
    )
    median = histogram.quantile(0.5) * factor
    at = min(max((median - low) / (high - low), 0), 1) * BARS * 10
    marks = "".join(
        f'<text x="{x}" y="128" text-anchor="{anchor}">{low + (high - low) * x / (BARS * 10):.4g}</text>'
        for x, anchor in ((0, "start"), (BARS * 5, "middle"), (BARS * 10, "end"))
    )
    caption = f"{title}{f' ({unit})' if unit else ''} <i>median {median:.3g}</i>"
    return (
        f'<figure><figcaption>{caption}</figcaption><svg viewBox="0 0 {BARS * 10} 132" role="img">{drawn}'
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="110"/>{marks}</svg></figure>'
    )


def span(histogram: Histogram, factor: float) -> tuple[float, float]:
    """Return the bounds to draw between: all but half a percent at either end, at round numbers."""
    if histogram.high == 1:
        return (0.0, 1.0) if histogram.quantile(0.01) < 0.5 else (0.5, 1.0)
    return 0.0, round_up(histogram.quantile(0.995) * factor)


def stages(record: Mapping[str, Any]) -> str:
    """Return one bar for each stage: how much of the run it was busy."""
    run = max(float(record["seconds"].get("run", 0)), 1e-9)
    rows = []
    for name, times in record.get("stages", {}).items():
        part = min(float(times["busy"]) / run, 1)
        rows.append(
            f"<tr><th>{html.escape(name)}<td class=bar><span style='width:{100 * part:.1f}%'></span>"
            f"<td class=number>{times['busy']:.1f} s"
        )
    return "".join(rows)


def details(record: Mapping[str, Any]) -> Iterable[str]:
    """Yield the rows of model, engine, settings, counts and versions, nested names joined by dots."""
    for part in ("model", "engine", "settings", "sizing", "focus", "counts", "seconds", "versions"):
        for name, value in _flat(record.get(part, {})):
            yield f"<tr><th>{part}<td>{html.escape(name)}<td>{html.escape(value)}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            yield prefix + name, f"{value:.5g}"
        elif isinstance(value, list | tuple):
            yield prefix + name, ", ".join(map(str, value))
        else:
            yield prefix + name, str(value)
