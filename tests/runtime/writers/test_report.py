"""The page and the density map."""

import html.parser
import re

import cv2
import numpy as np
import pytest

from cellseg.runtime.errors import OutputError
from cellseg.runtime.testing.writers import WriterSuite, cut, scene, smallest_files
from cellseg.runtime.writers import DensityMap
from cellseg.runtime.writers.density import palette, round_up
from cellseg.runtime.writers.report import Histogram, Summary, page, write_report


class TestDensityMap(WriterSuite):
    def create(self, folder, given):
        return DensityMap(folder / "density.png", given.height, given.width, pixel_size=0.5)

    def check(self, folder, given):
        found = cv2.imread(str(folder / "density.png"))
        assert found.shape[0] == 900 + 56
        inside = found[28:-28, 28 : 28 + 600]
        assert (np.ptp(inside.reshape(-1, 3), axis=0).max() > 50) == bool(len(given.cells))


def test_density_counts_cells_by_area():
    given = scene(640, 640, discs=200)
    writer = DensityMap("unused", 640, 640, pixel_size=0.5)
    for strip in cut(given, [100] * 6):
        writer.write(strip)
    assert writer.square == 64
    assert writer._counts.sum() == len(given.cells)
    assert writer.density.mean() == pytest.approx(len(given.cells) / (640**2 * 0.25 / 1e6), rel=0.1)
    plain = DensityMap("unused", 640, 640)
    for strip in cut(given, []):
        plain.write(strip)
    assert np.allclose(plain.density, writer.density / 4)


def test_palette_rises_in_brightness():
    colours = palette().astype(float)
    assert colours.shape == (256, 3)
    luma = colours @ (0.299, 0.587, 0.114)
    assert (np.diff(luma) >= -0.5).all()


@pytest.mark.parametrize(
    ("value", "wanted"), [(0, 1), (1, 1), (1.2, 2), (3, 4), (4.5, 5), (5.1, 8), (9, 10), (730, 800)]
)
def test_round_up(value, wanted):
    assert round_up(value) == pytest.approx(wanted)


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


def record(given, **image):
    return {
        "image": {
            "path": "/data/<script>alert(1)<b>.tif",
            "height": given.height,
            "width": given.width,
            "channels": ["DAPI", "a&b"],
            "dtype": "uint16",
            "pixel_size_um": 0.5,
            **image,
        },
        "counts": {"cells": len(given.cells)},
        "model": {"name": "nuclei", "split": {"mask_threshold": 128}},
        "settings": {"tile": 512, "list": [1, 2], "nested": {"a": 0.123456789}},
        "seconds": {"run": 10.0, "total": 12.5},
        "stages": {"read": {"busy": 1.0, "wait": 2.0}, "infer": {"busy": 9.5, "wait": 0.1}},
        "notes": ["mind the <gap>"],
        "versions": {"python": "3"},
    }


class Checker(html.parser.HTMLParser):
    """Collects text, and sees that tags are balanced."""

    VOID = frozenset(("meta", "img", "rect", "line", "link", "br"))
    OPTIONAL = frozenset(("tr", "td", "th", "li"))

    def __init__(self):
        super().__init__()
        self.open, self.text, self.seen = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in self.VOID | self.OPTIONAL:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID | self.OPTIONAL:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize(("discs", "image"), [(150, {}), (0, {}), (150, {"pixel_size_um": None})])
def test_report(tmp_path, discs, image):
    given = scene(discs=discs)
    summary = Summary()
    for strip in cut(given, [200] * 3):
        summary.write(strip)
    assert summary.area == given.cells.columns["area"].sum()
    picture = cv2.imencode(".jpg", np.zeros((30, 40, 3), np.uint8))[1].tobytes()
    (tmp_path / "cells.parquet").write_bytes(b"")
    write_report(tmp_path / "report.html", record(given, **image), summary, overview=picture)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    seen = "".join(checker.text)
    assert "<script>alert(1)<b>.tif" in seen
    assert "mind the <gap>" in seen
    assert "a&b" in seen
    assert f"{len(given.cells):,}" in seen
    assert ("µm" in seen) == (image == {})
    assert "cells.parquet" in seen
    assert "cells.csv" not in seen
    assert "split.mask_threshold" in seen
    tags = [tag for tag, _ in checker.seen]
    assert "script" not in tags
    assert tags.count("img") == 1
    # Complete in itself: nothing is loaded.
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "nan" not in seen


def test_report_that_cannot_be_written(tmp_path):
    given = scene(100, 100, discs=2)
    with smallest_files(100), pytest.raises(OutputError, match="cannot be written"):
        write_report(tmp_path / "report.html", record(given), Summary())
    assert not list(tmp_path.iterdir())


def test_page_needs_neither_files_nor_pictures(tmp_path):
    assert "<img" not in page(tmp_path, record(scene(50, 50, discs=1)), Summary())
