"""Slides at another scale: sharp where they should be, free of aliasing, and in their place."""

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.runtime.errors import UsageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import ArrayReader, open_slide
from cellseg.runtime.readers.scaled import ScaledReader, at_scale
from cellseg.runtime.testing.readers import ReaderSuite, picture


def whole(reader):
    return reader.read(Region(0, 0, reader.height, reader.width))


class TestSameSize(ReaderSuite):
    """At its own size a slide is unchanged."""

    cases = (*ReaderSuite.cases, ((60, 70, 2), "float32"))

    def open(self, folder, pixels):
        return ScaledReader(ArrayReader(pixels), *pixels.shape[:2])


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    out=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_regions_equal_the_whole(size, out, data):
    pixels = np.random.default_rng(0).integers(0, 65535, (*size, 2)).astype(np.uint16)
    reader = ScaledReader(ArrayReader(pixels), *out)
    picture = whole(reader)
    assert picture.shape == (*out, 2)
    assert pixels.min() <= picture.min()
    assert picture.max() <= pixels.max()
    y = data.draw(st.integers(0, out[0] - 1))
    x = data.draw(st.integers(0, out[1] - 1))
    at = Region(y, x, data.draw(st.integers(1, out[0] - y)), data.draw(st.integers(1, out[1] - x)))
    assert np.array_equal(reader.read(at), picture[at.y : at.y1, at.x : at.x1])


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.3, 2.0, 3.7])
def test_places_are_kept(factor):
    """A ramp stays the same ramp: each pixel shows the value of its centre."""
    y, x = np.mgrid[:120, :150].astype(np.float32)
    reader = ScaledReader(ArrayReader(np.dstack([y, x])), round(120 / factor), round(150 / factor))
    found = whole(reader)[4:-4, 4:-4]
    rows = (np.arange(reader.height) + 0.5) * 120 / reader.height - 0.5
    columns = (np.arange(reader.width) + 0.5) * 150 / reader.width - 0.5
    assert np.allclose(found[:, :, 0], rows[4:-4, None], atol=0.1)
    assert np.allclose(found[:, :, 1], columns[None, 4:-4], atol=0.1)


def test_fine_stripes_do_not_alias():
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 200
    found = whole(ScaledReader(ArrayReader(stripes), 90, 90))[5:-5, 5:-5]
    assert abs(float(found.mean()) - 100) < 2
    assert np.ptp(found) < 24


def test_agrees_with_another_implementation():
    pixels = picture((96, 128, 3), "uint8")
    found = whole(ScaledReader(ArrayReader(pixels), 192, 256))[4:-4, 4:-4].astype(int)
    wanted = cv2.resize(pixels, (256, 192), interpolation=cv2.INTER_LINEAR)[4:-4, 4:-4]
    assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize(("size", "level"), [(700, 0), (512, 1), (400, 1), (256, 2), (100, 2), (2000, 0)])
def test_takes_the_nearest_level(tmp_path, monkeypatch, size, level):
    pixels = cv2.GaussianBlur(picture((1024, 1024, 1), "uint8"), (0, 0), 6)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels, subifds=2, tile=(256, 256))
        for step in (2, 4):
            smaller = cv2.resize(pixels, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
            file.write(smaller, subfiletype=1, tile=(256, 256))
    with open_slide(tmp_path / "a.tif") as slide:
        reader = ScaledReader(slide, size, size)
        asked = []
        original = slide.read
        monkeypatch.setattr(slide, "read", lambda at, number=0: asked.append(number) or original(at, number))
        found = reader.read(Region(20, 20, 60, 60)).astype(float)
        assert asked == [level]
    exact = whole(ScaledReader(ArrayReader(pixels), size, size))[20:80, 20:80]
    assert np.abs(found - exact).mean() < 1.5


def test_at_scale():
    slide = ArrayReader(np.zeros((400, 600), np.uint8), pixel_size=0.25)
    reader = at_scale(slide, 0.5)
    assert (reader.height, reader.width, reader.pixel_size) == (200, 300, 0.5)
    assert at_scale(slide, 0.26) is slide
    assert at_scale(slide, 0.26, tolerance=0).height == 385
    assert at_scale(slide, 0.5, pixel_size=0.5) is slide
    assert at_scale(slide, 0.125).height == 800
    with pytest.raises(UsageError, match="give it with pixel_size"):
        at_scale(ArrayReader(np.zeros((4, 4), np.uint8)), 0.5)
    with pytest.raises(UsageError, match="250 µm a pixel is too far from the model"):
        at_scale(slide, 0.5, pixel_size=250)


def test_overview_comes_from_the_slide():
    pixels = picture((400, 300, 3), "uint8")
    reader = ScaledReader(ArrayReader(pixels), 200, 150)
    assert np.array_equal(reader.overview(100), ArrayReader(pixels).overview(100))
    assert reader.overview(1000).shape == (200, 150, 3)
