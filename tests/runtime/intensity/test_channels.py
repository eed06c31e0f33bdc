"""Which channels a model sees: colours only where the file says so, else the user is asked."""

from pathlib import Path

import numpy as np
import pytest

from cellseg.runtime.common.spelling import written_as
from cellseg.runtime.errors import ImageError
from cellseg.runtime.intensity.channels import ChannelChoice, advised, are_colours, are_unnamed, choose
from cellseg.runtime.intensity.normalization import Normalization

PATH = Path("slide.tif")
RGB = ("red", "green", "blue")


@pytest.mark.parametrize(
    ("names", "wanted", "choice"),
    [
        (("intensity",), 1, ChannelChoice((0,))),
        (("DAPI",), 3, ChannelChoice((0,))),
        (RGB, 3, ChannelChoice((0, 1, 2))),
        (("Red", "Green", "Blue"), 3, ChannelChoice((0, 1, 2))),
        (("R", "G", "B"), 3, ChannelChoice((0, 1, 2))),
        (RGB, 1, ChannelChoice((0, 1, 2), grey=True)),
    ],
)
def test_what_fits_by_itself(names: tuple[str, ...], wanted: int, choice: ChannelChoice) -> None:
    assert choose(names, wanted, PATH) == choice


@pytest.mark.parametrize(("count", "wanted"), [(2, 1), (3, 1), (2, 3), (3, 3), (4, 3)])
def test_what_the_user_must_choose(count: int, wanted: int) -> None:
    names = ["GFP", "DAPI", "Cy5", "Cy7"][:count]
    with pytest.raises(ImageError) as caught:
        choose(names, wanted, PATH)
    for number, name in enumerate(names):
        assert f"{number} {name!r}" in str(caught.value)
    assert str(caught.value).endswith("choose, for example, channels=['DAPI']")
    with written_as("command"), pytest.raises(ImageError, match=r"for example, --channels DAPI$"):
        choose(names, wanted, PATH)
    with written_as("configuration"), pytest.raises(ImageError, match=r"for example, channels: \[DAPI\]$"):
        choose(names, wanted, PATH)


def test_channels_without_names_may_be_colours() -> None:
    with written_as("command"), pytest.raises(ImageError) as caught:
        choose(["channel 0", "channel 1", "channel 2"], 3, PATH)
    assert "--channels 0, or --channels 0,1,2 where these are red, green and blue" in str(caught.value)


def test_a_great_many_channels_are_one_line() -> None:
    with pytest.raises(ImageError, match="and 936 more") as caught:
        choose([f"marker {i}" for i in range(1000)], 3, PATH)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    ("names", "best"),
    [
        (("CD45", "DAPI", "Cy5"), "DAPI"),
        (("CD45", "Hoechst 33342"), "Hoechst 33342"),
        (("PanCK", "nucleus", "CD8"), "nucleus"),
        (("Histone H3", "DNA1", "CD8"), "Histone H3"),
        (("Iridium_191", "CD8", "DAPI"), "DAPI"),
        (("DNA1, cycle 1", "CD8"), "0"),
        (("CD8", "DAPI", "DAPI"), "1"),
        (("CD8", "CD4"), "CD8"),
        (("channel 0", "channel 1"), "0"),
    ],
)
def test_the_advice_prefers_nuclei(names: tuple[str, ...], best: str) -> None:
    assert advised(names) == best


def test_names_of_colours_and_names_that_say_nothing() -> None:
    assert are_colours(["Red", "green", "BLUE"])
    assert not are_colours(["blue", "green", "red"])
    assert not are_colours(["red", "green"])
    assert are_unnamed(["Channel 0", "C:1", "ch2", "3", "Channel:0:1".replace(":1", ""), "channel_4"])
    assert not are_unnamed(["Channel 0", "DAPI"])


def test_apply_gives_the_pixels_for_statistics() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert ChannelChoice((0, 1, 2)).apply(pixels) is pixels
    assert (ChannelChoice((1,)).apply(pixels) == pixels[:, :, 1:2]).all()
    assert ChannelChoice((0, 1, 2), grey=True).apply(pixels).shape == (2, 4, 1)


def test_bytes_as_the_model_sees_them() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    whole = Normalization.full_scale(np.dtype(np.uint8))
    assert (ChannelChoice((0, 1, 2)).to_bytes(pixels, whole, 3) == pixels).all()
    assert (ChannelChoice((1,)).to_bytes(pixels, whole, 3) == pixels[:, :, [1, 1, 1]]).all()
    assert ChannelChoice((0, 1, 2), grey=True).to_bytes(pixels, whole, 1).shape == (2, 4, 1)
