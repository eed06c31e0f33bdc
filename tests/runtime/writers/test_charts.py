"""Histograms."""

import numpy as np
import pytest

from cellseg.runtime.writers.charts import Histogram, chart


def test_histogram_quantiles():
    values = np.random.default_rng(0).normal(20, 4, 10_000)
    histogram = Histogram.empty(0, 400)
    for part in np.array_split(values, 7):
        histogram.add(part)
    histogram.add(np.array([np.nan]))
    assert histogram.counts.sum() == 10_000
    for part in (0.01, 0.5, 0.99):
        assert histogram.quantile(part) == pytest.approx(np.quantile(values, part), abs=0.4)
    assert np.isnan(Histogram.empty(0, 1).quantile(0.5))


def test_what_is_written_beside_a_chart_is_text():
    histogram = Histogram.empty(0, 1)
    assert "no cells" in chart("a <b>", histogram)
    histogram.add(np.array([0.2, 0.4, 0.4]))
    drawn = chart("a <b>", histogram, "<µm>", limit=0.1, limited="less & less")
    assert "a &lt;b&gt; (&lt;µm&gt;)" in drawn
    assert "less &amp; less" in drawn
    assert 'aria-label="a &lt;b&gt;: median 0.4 &lt;µm&gt;, limit 0.1"' in drawn
