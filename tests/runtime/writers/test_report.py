"""The page and the density map."""

import html.parser
import re

import cv2
import numpy as np
import pytest

from cellseg.runtime.errors import OutputError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.testing.writers import WriterSuite, cut, scene, smallest_files
from cellseg.runtime.writers import DensityMap
from cellseg.runtime.writers.closeups import Closeup
from cellseg.runtime.writers.density import palette, round_up
from cellseg.runtime.writers.places import Place
from cellseg.runtime.writers.report import page, write_report
from cellseg.runtime.writers.summary import Summary


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
    summary = Summary(700, 530)
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


def parsed(text):
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    return checker


def test_doubts_come_before_notes_and_both_before_all_else(tmp_path):
    given = record(scene(50, 50, discs=1)) | {"notes": ["a note", "<unsure>"], "doubts": ["<unsure>"]}
    text = page(tmp_path, given, Summary(50, 50))
    assert text.index("&lt;unsure&gt;") < text.index("a note") < text.index("class=fact")
    assert "Doubt: <unsure>" in "".join(parsed(text).text)


def test_time_and_engine_are_in_the_fold(tmp_path):
    given = record(scene(50, 50, discs=1)) | {"engine": {"name": "openvino"}}
    text = page(tmp_path, given, Summary(50, 50))
    fold = text.index("<details>")
    assert fold < text.index("openvino")
    assert fold < text.index("12.5 s in all")
    assert "seconds" not in text[text.index("<body>") : fold]


@pytest.mark.parametrize(
    ("focus", "wanted"),
    [
        ({"tissue_part": 0.25, "regions": 0}, "of tissue"),
        ({"tissue_part": None, "regions": 2}, "of the regions"),
        ({"tissue_part": 0.3, "regions": 2}, "of tissue in the regions"),
    ],
)
def test_density_where_was_looked_beside_that_of_the_picture(tmp_path, focus, wanted):
    given = record(scene(100, 200, discs=1)) | {"counts": {"cells": 20}}
    seen = page(tmp_path, given | {"focus": focus | {"looked_at_part": 0.25}}, Summary(100, 200))
    # 20 cells on 20,000 pixels of a quarter of a square micrometre each.
    assert f"<b>16,000</b><span>cells per mm² {wanted}</span>" in seen
    assert "<b>4,000</b><span>cells per mm² of the picture</span>" in seen
    whole = page(tmp_path, given, Summary(100, 200))
    assert "<b>4,000</b><span>cells per mm²</span>" in whole


def test_thousands_of_regions_do_not_fill_the_page(tmp_path):
    region = {"polygons": 1, "pixels": 100, "cells": 3, "cells_per_mm2": 4.0, "cells_per_megapixel": 1.0}
    focus = {"regions": 1500, "by_name": [region | {"name": f"region {n}"} for n in range(1500)]}
    text = page(tmp_path, record(scene(100, 200, discs=1)) | {"focus": focus}, Summary(100, 200))
    parsed(text)
    assert "region 199<" in text
    assert "region 200<" not in text
    assert "1,300 more are in run.json" in text


def test_the_threshold_stands_in_the_histogram_of_scores(tmp_path):
    drawn = scene(discs=20)
    summary = Summary(drawn.height, drawn.width)
    for strip in cut(drawn, []):
        summary.write(strip)
    given = record(drawn)
    assert "class=limit" not in page(tmp_path, given, summary).replace('"', "")
    given["settings"] = given["settings"] | {"split": {"score": {"minimum": 0.25}}}
    text = page(tmp_path, given, summary)
    assert '<line class="limit" x1="80.0"' in text
    assert "below 0.25 were dropped" in text


def test_close_ups_say_what_they_are_of(tmp_path):
    given = record(scene(50, 50, discs=1))
    each = Closeup(Place("least certain", Region(1000, 20, 128, 256), 7, 0.314), b"jpeg")
    text = page(tmp_path, given, Summary(50, 50), closeups=[each])
    picture = next(attributes for tag, attributes in parsed(text).seen if tag == "img")
    assert picture["alt"] == (
        "A least certain place at x 20, y 1,000, with the outlines of 7 cells, mean score 0.31"
    )
    assert picture["src"].startswith("data:image/jpeg;base64,")
    assert "128 µm across" in text


def test_report_that_cannot_be_written(tmp_path):
    given = scene(100, 100, discs=2)
    with smallest_files(100), pytest.raises(OutputError, match="cannot be written"):
        write_report(tmp_path / "report.html", record(given), Summary(700, 530))
    assert not list(tmp_path.iterdir())


def test_page_needs_neither_files_nor_pictures(tmp_path):
    assert "<img" not in page(tmp_path, record(scene(50, 50, discs=1)), Summary(700, 530))
