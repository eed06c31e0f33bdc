"""Which stains a picture shows, and vectors found in it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import immunohistochemistry, retina

from cellseg.runtime.errors import UsageError
from cellseg.runtime.intensity.estimate import choose_stains, looks_like, macenko
from cellseg.runtime.intensity.stains import Stains

RGB = ("red", "green", "blue")
WHITE = np.full(3, 255.0)


def slide(stains, share=(0.5, 0.5), seed=0, light=255):
    """Paint discs of the first stain on patches of the second."""
    rng = np.random.default_rng(seed)
    amounts = np.zeros((300, 300, 2))
    for stain, (count, size) in enumerate(((60, 8), (9, 60))):
        mask = np.zeros((300, 300), np.uint8)
        for _ in range(int(count * 2 * share[stain])):
            cv2.circle(mask, tuple(int(v) for v in rng.integers(0, 300, 2)), size, 255, -1)
        amounts[..., stain] = cv2.GaussianBlur(mask, (0, 0), 2) / 255 * rng.uniform(0.4, 0.7, mask.shape)
    density = amounts @ stains.matrix[:2] + rng.normal(0, 0.01, (300, 300, 3))
    return np.clip(np.rint(light * 10**-density), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["he", "hdab"])
def test_painted_slides(kind):
    picture = slide(Stains.known(kind))
    assert looks_like(picture, WHITE) == kind
    found, told = choose_stains("auto", RGB, picture.dtype, Path("a"), lambda _: picture)
    assert found == Stains.known(kind)
    assert "by the picture's colours" in told


def test_other_pictures():
    assert looks_like(immunohistochemistry(), WHITE) == "hdab"
    assert looks_like(slide(Stains.known("hdab"), share=(0.5, 0)), WHITE) == "hdab"  # a negative control
    grey = np.repeat(slide(Stains.known("he"))[..., :1], 3, axis=2)
    assert looks_like(grey, WHITE) == "none"
    assert looks_like(255 - grey, WHITE) == "dark"
    assert looks_like(retina()[600:800, 600:800] // 4, WHITE) == "dark"
    assert looks_like(np.full((50, 50, 3), 240, np.uint8), WHITE) == "none"


@pytest.mark.parametrize("kind", ["he", "hdab"])
@pytest.mark.parametrize("turn", [0.0, 0.08, -0.08])
def test_macenko_finds_what_was_painted(kind, turn):
    known = Stains.known(kind)
    own = Stains(kind, known.names, tuple(map(tuple, known.matrix[:2] + turn * np.array([1, -1, 0]))))
    found = macenko(slide(own), known)
    assert found is not None
    assert found.estimated
    for vector, wanted in zip(found.matrix[:2], own.matrix[:2], strict=True):
        assert np.degrees(np.arccos(vector @ wanted)) < 5
    assert macenko(slide(own), known) == found  # without chance


def test_macenko_refuses_what_is_not_there():
    known = Stains.known("hdab")
    assert macenko(slide(known, share=(0.5, 0)), known) is None
    assert macenko(np.full((50, 50, 3), 250, np.uint8), known) is None
    alone = slide(known, share=(0.5, 0))
    found, told = choose_stains("macenko", RGB, alone.dtype, Path("a"), lambda _: alone)
    assert found == known
    assert "the published ones serve" in told


@pytest.mark.parametrize(
    ("asked", "names", "picture", "said"),
    [
        ("he", ("DAPI", "CD3"), np.zeros((9, 9, 2), np.uint8), "channels 0 'DAPI', 1 'CD3'"),
        ("hdab", RGB, np.zeros((9, 9, 3), np.float32), "values of float32"),
        ("he", RGB, np.full((90, 90, 3), 20, np.uint8), "dark, as fluorescence"),
        ("macenko", RGB, np.full((90, 90, 3), 250, np.uint8), "no stain was found"),
    ],
)
def test_refusals(asked, names, picture, said):
    with pytest.raises(UsageError, match=said) as caught:
        choose_stains(asked, names, picture.dtype, Path("a.tif"), lambda _: picture)
    assert "a.tif" in str(caught.value)
    found, told = choose_stains("auto", names, picture.dtype, Path("a.tif"), lambda _: picture)
    assert found is None
    assert said in told


def test_none_looks_at_nothing():
    assert choose_stains("none", RGB, np.dtype(np.uint8), Path("a"), lambda _: 1 / 0) == (None, None)


def test_real_pictures(shared_data):
    """All of one kind are told as that kind."""
    wanted = {
        "extra/train/image/ki67_*": "hdab",
        "extra/unlabelled/ROI_*": "hdab",
        "extra/train/image/cellbin_*HE*": "he",
        "extra/train/image/dapi_*": "dark",
        "slides/instanseg_HE_example.tif": "he",
    }
    for pattern, kind in wanted.items():
        paths = sorted(shared_data.glob(pattern))
        assert paths
        for path in paths:
            assert looks_like(cv2.imread(str(path))[:, :, ::-1], WHITE) == kind, path
