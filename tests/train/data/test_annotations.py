"""From QuPath's GeoJSON to a data set that the trainer reads."""

import gzip
import json

import cv2
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from cellseg.runtime.errors import DataError, UsageError
from cellseg.runtime.evaluation.folders import LabelFolder
from cellseg.runtime.geometry.tiling import Region
from cellseg.train.cli import main
from cellseg.train.data.annotations import import_annotations
from cellseg.train.data.drawing import IGNORED, draw


def box(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def circle(x, y, radius):
    turn = np.linspace(0, 2 * np.pi, 33)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1).tolist()


def feature(ring, kind="detection", **more):
    properties = {"objectType": kind, **{k: v for k, v in more.items() if k != "nucleusGeometry"}}
    made = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }
    if "nucleusGeometry" in more:
        made["nucleusGeometry"] = {"type": "Polygon", "coordinates": [more["nucleusGeometry"]]}
    return made


def write(path, features, packed=False):
    text = json.dumps({"type": "FeatureCollection", "features": features}).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    return path


@pytest.fixture
def slide(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)
    path = tmp_path / "my slide.ome.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64))
    return path


CELLS = [(30 + 20 * i, 30 + 20 * j) for i in range(5) for j in range(4)]


def cells():
    return [feature(circle(x, y, 6)) for x, y in CELLS]


def test_regions_become_pictures(slide, tmp_path):
    fields = [
        feature(box(20, 20, 120, 120), "annotation"),
        feature(box(200, 150, 300, 290), "annotation", name="empty"),
    ]
    path = write(tmp_path / "a.geojson.gz", [*fields, *cells()], packed=True)
    done = import_annotations(slide, path, tmp_path / "set")
    assert [p.name for p in done.train] == ["my_slide_20_20.tif"]
    assert [p.name for p in done.val] == ["my_slide_150_200.tif"]
    assert np.array_equal(tifffile.imread(done.train[0]), tifffile.imread(slide)[20:120, 20:120])
    labels = cv2.imread(str(tmp_path / "set/train/label/my_slide_20_20.png"), cv2.IMREAD_UNCHANGED)
    assert labels.dtype == np.uint16
    assert labels.max() == len(CELLS) == done.cells
    for x, y in CELLS:
        assert labels[y - 20, x - 20] > 0
        assert abs((labels == labels[y - 20, x - 20]).sum() - np.pi * 36) < 6
    assert "region empty holds no cell" in done.notes[0]


def test_what_comes_out_is_what_training_reads(slide, tmp_path):
    from cellseg.train.config import load
    from cellseg.train.data.samples import read_dataset

    fields = [
        feature(circle(70, 60, 50), "annotation", name="Field"),
        feature(box(20, 20, 120, 120), "annotation", name="field"),
    ]
    import_annotations(
        slide, write(tmp_path / "a.geojson", [*fields, *cells()]), tmp_path / "set", regions="FIELD"
    )
    config = tmp_path / "c.yml"
    config.write_text(f"dataset_path: {tmp_path / 'set'}\nignore_label: {IGNORED}\n")
    train, val = read_dataset(load(config))
    assert len(train) == len(val) == 1
    ignored = next(sample.ignored for sample in (*train, *val) if sample.ignored is not None)
    assert ignored[0, 0]
    assert not ignored[50, 50]
    assert all(sample.labels.max() < 100 for sample in (*train, *val))


def test_nuclei_or_whole_cells(slide, tmp_path):
    field = feature(box(0, 0, 300, 200), "annotation")
    some = [feature(circle(x, 50, 15), "cell", nucleusGeometry=circle(x, 50, 5)) for x in range(30, 280, 35)]
    path = write(tmp_path / "a.geojson", [field, *some])
    sizes = []
    for nuclei in (True, False):
        import_annotations(slide, path, tmp_path / f"set{nuclei}", nuclei=nuclei, val=0)
        labels = LabelFolder.open(tmp_path / f"set{nuclei}" / "train" / "label").read("my_slide_0_0")
        assert labels.max() == len(some)
        sizes.append((labels > 0).sum() / len(some))
    assert sizes == pytest.approx([np.pi * 25, np.pi * 225], rel=0.05)


def test_one_region_is_cut_in_two(slide, tmp_path):
    done = import_annotations(
        slide,
        write(tmp_path / "a.geojson", [feature(box(0, 0, 200, 100), "annotation"), *cells()]),
        tmp_path / "set",
    )
    assert [tifffile.imread(p).shape for p in (*done.train, *done.val)] == [(100, 160, 3), (100, 40, 3)]


def test_without_regions_the_rectangle_around_the_cells_is_one(slide, tmp_path):
    done = import_annotations(slide, write(tmp_path / "a.geojson", cells()), tmp_path / "set", val=0)
    assert tifffile.imread(done.train[0]).shape == (72, 92, 3)
    assert "no region was annotated" in done.notes[0]


def test_16_bit_channels_stay_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 60000, (2, 120, 130)).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "two.ome.tif", pixels, metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3"]}}
    )
    path = write(tmp_path / "a.geojson", [feature(box(0, 0, 100, 100), "annotation"), *cells()])
    reading = {"channels": ["DAPI"]}
    done = import_annotations(tmp_path / "two.ome.tif", path, tmp_path / "set", val=0, reading=reading)
    assert np.array_equal(tifffile.imread(done.train[0]), pixels[0, :100, :100])


def test_the_smaller_keeps_what_two_claim():
    large, small = np.array(box(0, 0, 20, 20)[:4], float), np.array(box(5, 5, 9, 9)[:4], float)
    labels, count, overlap = draw([[small], [large]], Region(0, 0, 30, 30))
    assert (count, overlap) == (2, 16)
    assert len(np.unique(labels[5:9, 5:9])) == 1
    assert labels[6, 6] != labels[15, 15]


def test_holes_are_no_cell():
    ring = [np.array(box(2, 2, 22, 22)[:4], float), np.array(box(8, 8, 14, 14)[:4], float)]
    labels, _, _ = draw([ring], Region(0, 0, 30, 30))
    assert (labels > 0).sum() == 400 - 36


@pytest.mark.parametrize(
    ("features", "options", "said"),
    [
        ([], {}, "holds no polygon"),
        ([feature(box(0, 0, 90, 90), "annotation")], {}, "holds 1 regions and no cell"),
        (cells(), {"regions": "field"}, "no annotation is named 'field'; names there: none"),
        ([feature(box(350, 0, 450, 90), "annotation"), *cells()], {}, "does not lie in my slide.ome.tif"),
        ([feature(circle(900, 900, 9)), *cells()], {}, "another slide"),
        ([feature(box(200, 200, 290, 290), "annotation"), *cells()], {}, "the only region holds no cell"),
        (cells() * 2, {}, "of the cells' pixels belong to several of them"),
        (cells(), {"val": 1}, "--val 1: wanted a share"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(slide, tmp_path, features, options, said):
    path = write(tmp_path / "a.geojson", features)
    with pytest.raises((DataError, UsageError), match=said):
        import_annotations(slide, path, tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_pictures_that_exist_are_kept(slide, tmp_path):
    path = write(tmp_path / "a.geojson", cells())
    import_annotations(slide, path, tmp_path / "set")
    with pytest.raises(UsageError, match="exists already; replace it with --overwrite"):
        import_annotations(slide, path, tmp_path / "set")
    import_annotations(slide, path, tmp_path / "set", overwrite=True)


def test_the_command(slide, tmp_path):
    path = write(tmp_path / "a.geojson", [feature(box(0, 0, 200, 100), "annotation"), *cells()])
    done = CliRunner().invoke(main, ["import", str(slide), str(path), "-o", str(tmp_path / "set")])
    assert done.exit_code == 0, done.output
    assert "1 pictures to train on, 1 to validate" in done.output
    assert f"cellseg-train finetune --set dataset_path={tmp_path / 'set'}" in done.output
    again = CliRunner().invoke(main, ["import", str(slide), str(path), "-o", str(tmp_path / "set")])
    assert again.exit_code == 2
    assert again.stderr.count("\n") == 1


def test_thousands_of_cells_as_large_as_their_region(slide, tmp_path):
    """They would be drawn one over the other for hours."""
    many = [feature(box(0, 0, 95 - n % 7, 95 - n % 5)) for n in range(6000)]
    path = write(tmp_path / "a.geojson", [*many, feature(box(0, 0, 96, 96), "annotation")])
    with pytest.raises(DataError, match=r"the 6,000 cells of region .* cover it 5,\d\d\d times; are regions"):
        import_annotations(slide, path, tmp_path / "set", val=0)
    assert not (tmp_path / "set").exists()


def test_more_regions_than_anybody_draws(slide, tmp_path):
    path = write(tmp_path / "a.geojson", [*cells(), *[feature(box(0, 0, 40, 40), "annotation")] * 10_001])
    with pytest.raises(DataError, match="holds 10,001 regions; at most 10,000"):
        import_annotations(slide, path, tmp_path / "set")


def saved(image="my slide.ome.tif", size="400×300", count=20):
    """Return a field as cellseg-view saves it."""
    made = feature(box(20, 20, 120, 120), "annotation", name="field")
    made["properties"]["metadata"] = {"image": image, "size": size, "cells": str(count)}
    return made


def test_a_field_of_the_viewer_knows_its_slide(slide, tmp_path):
    path = write(tmp_path / "a.geojson", [saved(), *cells()])
    assert not import_annotations(slide, path, tmp_path / "set").notes[1:]
    path = write(tmp_path / "b.geojson", [saved(size="900×300"), *cells()])
    with pytest.raises(DataError, match=r"saved from my slide.ome.tif of 900×300 pixels, and .* has 400×300"):
        import_annotations(slide, path, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    path = write(tmp_path / "c.geojson", [saved(image="b.tif"), *cells()])
    done = import_annotations(slide, path, tmp_path / "third")
    assert any("say that they are of b.tif" in note for note in done.notes)


def test_a_corrected_field_may_be_empty(slide, tmp_path):
    path = write(tmp_path / "a.geojson", [saved(count=0)])
    done = import_annotations(slide, path, tmp_path / "set", val=0)
    assert done.cells == 0
    assert "holds no cell" in done.notes[0]
    path = write(tmp_path / "b.geojson", [feature(box(20, 20, 120, 120), "annotation")])
    with pytest.raises(UsageError, match="and no cell; export the cells"):
        import_annotations(slide, path, tmp_path / "other")


def test_regions_that_overlap_are_told(slide, tmp_path):
    fields = [feature(box(20, 20, 120, 120), "annotation"), feature(box(80, 20, 200, 120), "annotation")]
    done = import_annotations(slide, write(tmp_path / "a.geojson", [*fields, *cells()]), tmp_path / "set")
    assert any("overlap: what they share counts twice" in note for note in done.notes)
