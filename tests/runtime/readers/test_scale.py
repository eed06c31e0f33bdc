"""One rule for every source of a scale: what is understood, what is plausible, what is said."""

import numpy as np
import pytest
import tifffile

from cellseg.runtime.common.spelling import written_as
from cellseg.runtime.errors import UsageError
from cellseg.runtime.readers import open_slide
from cellseg.runtime.readers.base import Level, SlideReader
from cellseg.runtime.readers.scale import Scale, read_scale, to_microns
from cellseg.runtime.readers.scaled import at_scale


@pytest.mark.parametrize(
    ("value", "unit", "wanted"),
    [
        (0.325, "µm", 0.325),
        ("0,325", "µm", 0.325),
        (" .5 ", "um", 0.5),
        ("325", "nm", 0.325),
        ("0.325 µm", "mm", 0.325),
        ("3.25e-4", "mm", 0.325),
        ("2,2689E-4", "millimeter", 0.22689),
        (0.5, "micron", 0.5),
        (1, "inch", 25400.0),
        ("", "µm", None),
        ("UNKNOWN", "µm", None),
        ("NaN", "µm", None),
        ("inf", "µm", None),
        (float("nan"), "µm", None),
        (0, "µm", None),
        (-1.0, "µm", None),
        (0.5, "pixel", None),
        (0.5, None, None),
        ("1.234,5", "µm", None),
        ([0.5], "µm", None),
    ],
)
def test_lengths(value, unit, wanted):
    found = to_microns(value, unit)
    assert found is None if wanted is None else found == pytest.approx(wanted, rel=1e-12)


def test_what_is_no_scale_is_named_and_not_used():
    for value in ("UNKNOWN", "0.5 furlong"):
        scale = read_scale(value)
        assert scale.size is None
        assert f"its scale '{value} µm' is not understood: not used; give it with pixel_size" in scale.notes
    with written_as("command"):
        scale = read_scale(352.77)
    assert scale == Scale(
        notes=("its scale of 352.8 µm a pixel is not a microscope's: not used; give it with --mpp",)
    )
    assert read_scale(0.0004, unit="µm").size is None


def test_what_says_nothing_needs_no_note():
    for scale in (
        read_scale(None),
        read_scale(""),
        read_scale(None, ""),
        read_scale(1.0, 1.0, "pixel"),
        read_scale(1.0, 1.0, ""),
        read_scale(352.8, 352.8, paper=True),
    ):
        assert scale == Scale()


def test_one_of_two_is_enough():
    assert read_scale(None, 0.5).size == 0.5
    assert read_scale(0.5, "").size == 0.5


def test_pixels_that_are_not_square():
    scale = read_scale(0.5, 0.8)
    assert scale.size == pytest.approx(np.sqrt(0.4))
    assert scale.aspect == pytest.approx(1.6)
    assert "not square (0.5 µm wide, 0.8 µm high)" in scale.notes[0]
    assert read_scale(0.5, 0.5004) == Scale(0.5)
    assert read_scale(0.5, 800, "µm", "nm").aspect == pytest.approx(1.6)


class _Plain(SlideReader):
    def _read(self, region, level):
        raise NotImplementedError


def test_the_model_sees_square_pixels():
    reader = _Plain(
        "a",
        dtype="uint8",
        channel_names=["intensity"],
        levels=[Level(100, 200, 1.0)],
        scale=read_scale(0.5, 1.0),
    )
    seen = at_scale(reader, 0.5)
    assert (seen.height, seen.width) == (200, 200)
    # What the user gives is the edge of a square one.
    assert at_scale(reader, 0.5, 0.5) is reader
    assert at_scale(_Plain("a", dtype="uint8", channel_names=["x"], levels=[Level(9, 9, 1.0)]), 0.5, 0.5)
    with pytest.raises(UsageError, match="give it with pixel_size"):
        at_scale(_Plain("a", dtype="uint8", channel_names=["x"], levels=[Level(9, 9, 1.0)]), 0.5)


def size_of(path):
    with open_slide(path) as reader:
        return reader.pixel_size, reader.notes


IMAGE = np.zeros((16, 16), np.uint8)


@pytest.mark.parametrize(
    ("resolution", "unit", "wanted"),
    [(72, "inch", None), (300, "inch", None), (28.346, "cm", None), (4, "micron", 0.25), (4, "um", 0.25)],
)
def test_imagej(tmp_path, resolution, unit, wanted):
    tifffile.imwrite(
        tmp_path / "a.tif", IMAGE, imagej=True, resolution=(resolution, resolution), metadata={"unit": unit}
    )
    size, notes = size_of(tmp_path / "a.tif")
    assert size == wanted
    assert (wanted is None) == any("not a microscope's" in note for note in notes)


def test_imagej_pixels_that_are_not_square(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, imagej=True, resolution=(4, 2), metadata={"unit": "micron"})
    size, notes = size_of(tmp_path / "a.tif")
    assert size == pytest.approx(np.sqrt(0.125))
    assert any("not square" in note for note in notes)


OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="I:0">'
    '<Pixels ID="P:0" DimensionOrder="XYZCT" Type="uint8" SizeX="16" SizeY="16" SizeC="1" SizeZ="1" '
    'SizeT="1" SIZES><Channel ID="C:0"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
)


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ('PhysicalSizeX="0,325" PhysicalSizeY="0,325"', 0.325),
        ('PhysicalSizeX="325" PhysicalSizeXUnit="nm" PhysicalSizeY="0.325"', 0.325),
        ('PhysicalSizeX="" PhysicalSizeY=""', None),
        ('PhysicalSizeX="NaN"', None),
        ('PhysicalSizeX="UNKNOWN"', None),
        ('PhysicalSizeX="352.77" PhysicalSizeY="352.77"', None),
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="pixel"', None),
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="wombat"', None),
        ("", None),
    ],
)
def test_ome(tmp_path, sizes, wanted):
    record = OME.replace("SIZES", sizes).encode()
    tifffile.imwrite(tmp_path / "a.ome.tif", IMAGE, metadata=None, description=record)
    assert size_of(tmp_path / "a.ome.tif")[0] == wanted


@pytest.mark.parametrize(("text", "wanted"), [("0.499", 0.499), ("0,4990", 0.499), ("none", None)])
def test_svs(tmp_path, text, wanted):
    tifffile.imwrite(
        tmp_path / "a.svs",
        np.zeros((64, 64, 3), np.uint8),
        photometric="rgb",
        tile=(32, 32),
        metadata=None,
        description=f"Aperio Image Library v12\r\n64x64 |AppMag = 20|MPP = {text}|Left = 1",
    )
    assert size_of(tmp_path / "a.svs")[0] == wanted
