from pathlib import Path

import numpy as np
import pytest

from cellseg.runtime.errors import ImageError
from cellseg.runtime.intensity.channels import ChannelChoice, choose

PATH = Path("slide.tif")
RGB = ("red", "green", "blue")


@pytest.mark.parametrize(
    ("names", "wanted", "choice"),
    [
        (("intensity",), 1, ChannelChoice((0,))),
        (("intensity",), 3, ChannelChoice((0,))),
        (RGB, 3, ChannelChoice((0, 1, 2))),
        (("DAPI", "GFP", "Cy5"), 3, ChannelChoice((0, 1, 2))),
        (RGB, 1, ChannelChoice((0, 1, 2), grey=True)),
    ],
)
def test_what_fits_by_itself(names: tuple[str, ...], wanted: int, choice: ChannelChoice) -> None:
    assert choose(names, wanted, PATH) == choice


@pytest.mark.parametrize(("count", "wanted"), [(2, 1), (3, 1), (2, 3), (4, 3)])
def test_what_the_user_must_choose(count: int, wanted: int) -> None:
    names = ["DAPI", "GFP", "Cy5", "Cy7"][:count]
    with pytest.raises(ImageError, match=rf"slide\.tif: has {count} channels \(0 'DAPI', .*--channels 0"):
        choose(names, wanted, PATH)


def test_apply_gives_the_pixels_for_statistics() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert ChannelChoice((0, 1, 2)).apply(pixels) is pixels
    assert (ChannelChoice((1,)).apply(pixels) == pixels[:, :, 1:2]).all()
    assert ChannelChoice((0, 1, 2), grey=True).apply(pixels).shape == (2, 4, 1)
