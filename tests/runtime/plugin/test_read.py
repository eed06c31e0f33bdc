"""What napari reads of us, without napari: the manifest, and layers as tuples."""

import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import yaml

from cellseg.runtime import segment
from cellseg.runtime.plugin import read as reading
from cellseg.runtime.plugin.read import picture_layers, read, reader_of
from cellseg.runtime.readers import open_slide
from cellseg.runtime.results.original import LevelArray, Shared
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec

ROOT = Path(__file__).parents[3]
MANIFEST = yaml.safe_load((ROOT / "runtime/plugin/napari.yaml").read_text(encoding="utf-8"))


def test_the_manifest_is_found_and_names_what_there_is():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (place,) = project["project"]["entry-points"]["napari.manifest"].values()
    package, _, file = place.partition(":")
    assert Path(import_module(package).__path__[0], file).samefile(ROOT / "runtime/plugin/napari.yaml")
    assert "plugin/*.yaml" in project["tool"]["setuptools"]["package-data"]["cellseg.runtime"]
    assert "cellseg" in {entry.name for entry in entry_points(group="napari.manifest")}
    assert MANIFEST["name"] == project["project"]["name"]
    contributed = MANIFEST["contributions"]
    for command in contributed["commands"]:
        module, _, name = command["python_name"].partition(":")
        source = ROOT / (module.removeprefix("cellseg.").replace(".", "/") + ".py")
        text = source.read_text(encoding="utf-8")
        assert f"\ndef {name}(" in text or f"\nclass {name}(" in text
    ids = {command["id"] for command in contributed["commands"]}
    assert {each["command"] for each in [*contributed["readers"], *contributed["widgets"]]} == ids


@pytest.fixture
def folder(tmp_path):
    picture = np.zeros((200, 260), np.uint16)
    for number, centre in enumerate([(20, 20), (60, 30), (100, 60), (30, 70)]):
        cv2.circle(picture, centre, 6 + number, 60_000, -1)
    tifffile.imwrite(tmp_path / "a.tif", picture)
    with LocalEngine(local_spec(1), 1) as engine:
        segment(tmp_path / "a.tif", engine, pixel_size=0.5, output=tmp_path / "out")
    return tmp_path / "out"


def test_a_folder_of_results_becomes_layers(folder, monkeypatch):
    found = reader_of(str(folder))(str(folder))
    assert [kind for _, _, kind in found] == ["image", "labels", "points", "shapes"]
    pixels, given, _ = found[0]
    assert np.array_equal(np.asarray(pixels), tifffile.imread(folder.parent / "a.tif"))
    assert given["scale"] == found[1][1]["scale"] == (0.5, 0.5)
    assert given["contrast_limits"][0] < given["contrast_limits"][1]
    features = found[1][1]["features"]
    assert list(features["index"]) == [1, 2, 3, 4]
    assert len(features["score"]) == 4
    assert len(read([str(folder), str(folder)])) == 8
    monkeypatch.setattr(reading, "MOST_OUTLINES", 3)
    assert [kind for _, _, kind in read(str(folder))] == ["image", "labels", "points"]


def test_without_its_image_the_rest_is_there(folder):
    (folder.parent / "a.tif").unlink()
    assert [kind for _, _, kind in read(str(folder))] == ["labels", "points", "shapes"]


def test_other_folders_and_files_are_left_to_others(folder):
    assert reader_of(str(folder.parent)) is None
    assert reader_of(str(folder.parent / "a.tif")) is None
    assert reader_of([str(folder), str(folder.parent)]) is None


@pytest.mark.parametrize("channels", [None, 0, 2])
def test_a_level_is_an_array(tmp_path, channels):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(16, 16))
    truth = pixels if channels is None else pixels[..., channels]
    with open_slide(tmp_path / "a.tif") as slide:
        level = LevelArray(Shared(slide), 0, channels)
        assert (level.shape, level.ndim, level.size) == (truth.shape, truth.ndim, truth.size)
        for part in (
            np.s_[:], np.s_[3], np.s_[-1], np.s_[3:9, 4:50:3], np.s_[30:10:-2, 5], np.s_[..., 1], np.s_[5:5],
            np.s_[10:20, ..., :2], np.s_[::7, ::-1],
        ):  # fmt: skip
            assert np.array_equal(level[part], truth[part]), part
        with pytest.raises(IndexError):
            level[40]


def test_colours_are_one_layer_and_channels_are_several(tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((40, 50, 3), np.uint8), photometric="rgb")
    stack = np.zeros((2, 40, 50), np.uint16)
    tifffile.imwrite(
        tmp_path / "two.ome.tif", stack, metadata={"axes": "CYX", "Channel": {"Name": ["A", "B"]}}
    )
    with open_slide(tmp_path / "rgb.tif") as slide:
        ((_, given, _),) = picture_layers(slide, None)
    assert given["rgb"]
    assert given["scale"] == (1, 1)
    with open_slide(tmp_path / "two.ome.tif") as slide:
        layers = picture_layers(slide, 0.25)
    assert [given["name"] for _, given, _ in layers] == ["two.ome.tif A", "two.ome.tif B"]
    assert all(data.shape == (40, 50) and given["scale"] == (0.25, 0.25) for data, given, _ in layers)
