"""Close-ups in the report of a finished run."""

import base64
import re

import cv2
import numpy as np
import pytest
import tifffile

from cellseg.runtime import segment
from cellseg.runtime.errors import ImageError
from cellseg.runtime.readers import ArrayReader
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec


@pytest.fixture
def picture():
    """Return 1,300 × 1,100 pixels with 400 bright discs."""
    rng = np.random.default_rng(5)
    image = np.full((1300, 1100), 20, np.uint8)
    for _ in range(400):
        centre = int(rng.integers(1100)), int(rng.integers(1300))
        cv2.circle(image, centre, int(rng.integers(4, 12)), int(rng.integers(180, 250)), -1)
    return image


def pictures(folder):
    """Return what stands in a report: the text for each picture, with the picture."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    return re.findall(r'<img alt="([^"]*)" src="([^"]*)"', text)


def test_close_ups_are_the_same_however_the_image_is_cut(picture, tmp_path):
    tifffile.imwrite(tmp_path / "discs.tif", picture, tile=(256, 256))
    with LocalEngine(local_spec(1), 1) as engine:
        for name, options in {
            "whole": {},
            "tiles": {"tile": 64},
            "tiff": {"labels": "tiff"},
            "png": {"labels": "png"},
        }.items():
            segment(tmp_path / "discs.tif", engine, output=tmp_path / name, **options)
    found = pictures(tmp_path / "whole")[1:-1]
    assert len(found) == 6
    assert found[0][0].startswith("A typical place at x ")
    for name in ("tiles", "tiff", "png"):
        assert pictures(tmp_path / name)[1:-1] == found


def test_a_small_image_needs_none(picture, tmp_path):
    with LocalEngine(local_spec(1), 1) as engine:
        segment(picture[:900, :900], engine, output=tmp_path / "out")
    assert len(pictures(tmp_path / "out")) == 2  # the picture and its density


def test_an_image_that_has_gone_does_not_undo_the_results(picture, tmp_path):
    class Going(ArrayReader):
        finished = False

        def _read(self, region, level):
            if region.y1 == self.height:
                self.finished = True
            elif self.finished:
                raise ImageError("the disk was taken out")
            return super()._read(region, level)

    with LocalEngine(local_spec(1), 1) as engine:
        result = segment(Going(picture), engine, output=tmp_path / "out", tile=128)
    assert result.count > 100
    assert len(pictures(tmp_path / "out")) == 2


def test_close_ups_are_in_the_colours_of_classes(picture, tmp_path):
    tifffile.imwrite(tmp_path / "discs.tif", picture, tile=(256, 256))
    with LocalEngine(local_spec(1), 1) as engine:
        segment(tmp_path / "discs.tif", engine, output=tmp_path / "out", positive="0=215")
    found = pictures(tmp_path / "out")[1:-1]
    assert len(found) == 6
    seen = np.zeros(2, int)
    for _, source in found:
        data = base64.b64decode(source.partition(",")[2])
        drawn = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)
        coloured = drawn[np.ptp(drawn, axis=2) > 30]
        blue = coloured[:, 2] > coloured[:, 0]
        seen += [blue.sum(), (~blue).sum()]
        green = coloured[:, 1]  # in neither colour the strongest, as it is in the usual ones
        assert (green <= coloured[:, [0, 2]].max(1)).mean() > 0.98  # but for what JPEG makes of edges
    assert (seen > 200).all()
