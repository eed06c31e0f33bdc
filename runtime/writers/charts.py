"""Histograms: counted as cells come, drawn as SVG."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .density import round_up

#: Bins of each histogram while cells are counted, and bars when it is drawn.
BINS, BARS = 2000, 32
#: Width of a bar and height of a full one, in units of the drawing.
BAR, FULL = 10, 100


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


def chart(
    title: str,
    histogram: Histogram,
    unit: str = "",
    factor: float = 1.0,
    *,
    limit: float | None = None,
    limited: str = "",
) -> str:
    """Return a histogram as SVG: bars, three numbers below, a line at the median.

    Parameters
    ----------
    title
        What is counted, as text.
    histogram
        The counts.
    unit, factor
        What values are shown in, and what they are multiplied with for it.
    limit
        Values below were dropped: a second line, and the chart begins where the histogram does.
    limited
        What is said of the limit.
    """
    title = html.escape(title)
    if not histogram.counts.any():
        return f"<figure><figcaption>{title}</figcaption><p class=none>no cells</p></figure>"
    low, high = (histogram.low, histogram.high) if limit is not None else span(histogram, factor)
    width = (histogram.high - histogram.low) * factor / BINS
    centres = histogram.low * factor + (np.arange(BINS) + 0.5) * width
    place = np.clip((centres - low) / (high - low) * BARS, 0, BARS - 1).astype(int)
    bars = np.bincount(place, histogram.counts, BARS)
    heights = bars / bars.max() * FULL
    drawn = "".join(
        f'<rect x="{i * BAR + 0.5}" y="{110 - tall:.1f}" width="{BAR - 1}" height="{tall:.1f}"/>'
        for i, tall in enumerate(heights)
        if tall > 0
    )
    median = histogram.quantile(0.5) * factor
    lines = _line((median - low) / (high - low), "median")
    said = f"{title}: median {median:.3g}{f' {html.escape(unit)}' if unit else ''}"
    note = ""
    if limit is not None:
        lines += _line((limit - low) / (high - low), "limit")
        said += f", limit {limit:.3g}"
        note = f"<p class=hint>{html.escape(limited)}</p>"
    marks = "".join(
        f'<text x="{x}" y="128" text-anchor="{anchor}">{low + (high - low) * x / (BARS * BAR):.4g}</text>'
        for x, anchor in ((0, "start"), (BARS * BAR // 2, "middle"), (BARS * BAR, "end"))
    )
    caption = f"{title}{f' ({html.escape(unit)})' if unit else ''} <i>median {median:.3g}</i>"
    return (
        f'<figure><figcaption>{caption}</figcaption><svg viewBox="0 0 {BARS * BAR} 132" role="img" '
        f'aria-label="{said}">{drawn}{lines}{marks}</svg>{note}</figure>'
    )


def _line(share: float, kind: str) -> str:
    """Return a vertical line at a share of the chart's width."""
    at = min(max(share, 0), 1) * BARS * BAR
    return f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="110"/>'


def span(histogram: Histogram, factor: float) -> tuple[float, float]:
    """Return the bounds to draw between: all but half a percent at either end, at round numbers."""
    if histogram.high == 1:
        return (0.0, 1.0) if histogram.quantile(0.01) < 0.5 else (0.5, 1.0)
    return 0.0, round_up(histogram.quantile(0.995) * factor)
