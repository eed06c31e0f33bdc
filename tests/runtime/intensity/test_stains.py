"""Optical densities: against scikit-image's deconvolution, and what a file of stains may hold."""

import json

import numpy as np
import pytest
from skimage.color import combine_stains, rgb2hed, rgb_from_hed
from skimage.data import immunohistochemistry

from cellseg.runtime.errors import UsageError
from cellseg.runtime.intensity.stains import UNIT, Stains, read_stains

#: One decimal optical density of a stain is this much of what scikit-image calls one.
SCIKIT = -np.log(1e-6) / np.log(10)
HED = Stains("hed", ("H", "E", "D"), tuple(tuple(row) for row in rgb_from_hed.tolist()))


def test_equals_scikit_image():
    """With the vectors of ``rgb2hed`` the amounts are its own, but for unit and length of the vectors."""
    pixels = np.maximum(immunohistochemistry()[::3, ::3], 1)
    length = np.linalg.norm(rgb_from_hed, axis=1)
    amounts = HED.amounts(pixels) / length / SCIKIT
    np.testing.assert_allclose(np.maximum(amounts, 0), rgb2hed(pixels), atol=1e-12)


def test_amounts_come_back():
    """What is painted with stains is measured: amounts through Beer–Lambert's law and back."""
    rng = np.random.default_rng(0)
    for stains in (Stains.known("he"), Stains.known("hdab")):
        painted = rng.uniform(0, 0.5, (40, 30, 2))
        pixels = np.rint(65535 * 10 ** -(painted @ stains.matrix[:2])).astype(np.uint16)
        np.testing.assert_allclose(stains.amounts(pixels), painted, atol=2e-4)
        light = combine_stains(np.pad(painted, ((0, 0), (0, 0), (0, 1))) / SCIKIT, stains.matrix)
        np.testing.assert_allclose(light * 65535, pixels, atol=0.51)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("background", [None, (240.0, 250.0, 231.0)])
def test_the_table_is_the_formula(dtype, background):
    stains = Stains("x", ("a", "b"), ((0.65, 0.7, 0.29), (0.3, 0.6, 0.8)), background)
    table = stains.table(np.dtype(dtype))
    pixels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, (500, 3)).astype(dtype)
    pixels[0], pixels[1] = 0, np.iinfo(dtype).max
    found = sum(table[colour, pixels[:, colour]].astype(np.int64) for colour in range(3)) / UNIT
    np.testing.assert_allclose(found[:, :2], stains.amounts(pixels), atol=2 / UNIT)
    assert not found[:, 2:].any()
    white = np.full((1, 3), np.iinfo(dtype).max, dtype)
    assert np.array_equal(stains.amounts(white), [[0, 0]])


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


OURS = {"stains": {"Hematoxylin": [0.65, 0.7, 0.29], "DAB": [0.27, 0.57, 0.78]}}
QUPATH = {
    "Name": "H-DAB default",
    "Stain 1": "Hematoxylin",
    "Values 1": "0.65 0.7 0.29 ",
    "Stain 2": "DAB",
    "Values 2": "0.27 0.57 0.78 ",
    "Background": " 240 241 242 ",
}


def test_files(tmp_path):
    known = Stains.known("hdab")
    ours = read_stains(write(tmp_path / "a.json", OURS | {"background": [240, 241, 242]}))
    theirs = read_stains(write(tmp_path / "b.json", QUPATH))
    assert (ours.names, ours.vectors) == (theirs.names, theirs.vectors) == (known.names, known.vectors)
    assert ours.background == theirs.background == (240, 241, 242)
    assert (ours.kind, theirs.kind) == ("a.json", "b.json")
    residual = QUPATH | {"Stain 3": "Residual", "Values 3": "0.1 -0.2 0.3"}
    assert read_stains(write(tmp_path / "c.json", residual)).vectors == theirs.vectors


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "a.json"),
        ("[]", "no object"),
        ({}, "there is no 'stains'"),
        ({"stains": [1, 2]}, "vectors by name"),
        ({"stains": {"H": [1, 0, 0]}}, "1 stains"),
        ({"stains": {str(i): [1, i, 0] for i in range(4)}}, "4 stains"),
        ({"stains": {"H": [1, 0, 0], "h": [0, 1, 0]}}, "two stains of one name"),
        ({"stains": {"H": [1, 0, 0], " ": [0, 1, 0]}}, "without a name"),
        ({"stains": {"H": [1, 0], "E": [0, 1, 0]}}, "values to unpack"),
        ({"stains": {"H": [1, 0, "red"], "E": [0, 1, 0]}}, "red"),
        ('{"stains": {"H": [1, 0, NaN], "E": [0, 1, 0]}}', "a.json"),
        ({"stains": {"H": [0, 0, 0], "E": [0, 1, 0]}}, "zero"),
        ({"stains": {"H": [1, 0, 0], "E": [1, 0.001, 0]}}, None),
        ({"stains": {"H": [1, 0, 0], "E": [0, 1, 0], "D": [1, 1, 0.001]}}, "nearly the same"),
        ({**OURS, "background": [0, 255, 255]}, "background"),
        ({k: v for k, v in QUPATH.items() if k != "Values 2"}, "there is no 'Values 2'"),
    ],
)
def test_wrong_files(content, said, tmp_path):
    path = write(tmp_path / "a.json", content)
    if said is None:  # the third vector is made of two that are nearly one
        said = "nearly the same"
    with pytest.raises(UsageError) as caught:
        read_stains(path)
    text = str(caught.value)
    assert said in text
    assert "a.json" in text
    assert "\n" not in text


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_stains(tmp_path / "none.json")
