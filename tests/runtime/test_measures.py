"""Stains, rings and classes from end to end: in memory and in a folder, in all that is written."""

import csv
import gzip
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import zarr
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry
from skimage.segmentation import expand_labels

from cellseg.runtime import Result, segment
from cellseg.runtime.errors import UsageError
from cellseg.runtime.intensity.classes import CLASSES
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec

SCALE = 0.5


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return immunohistochemistry()[:230, :260]


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine(local_spec(2).model_copy(update={"normalization": "percentile"}), 2)


def features(folder: Path) -> list[dict]:
    return json.loads(gzip.decompress((folder / "cells.geojson.gz").read_bytes()))["features"]


def test_everything_at_once(picture: np.ndarray, engine: LocalEngine, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, photometric="rgb")
    (tmp_path / "roi.geojson").write_text(
        json.dumps(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [130, 0], [130, 230], [0, 230]]]},
                "properties": {"name": "left"},
            }
        )
    )
    asked = {"stains": "hdab", "expand": 4.0, "pixel_size": SCALE, "positive": "ring:dab=0.2,0.4,0.6"}
    asked["roi"] = str(tmp_path / "roi.geojson")
    inside = segment(picture, engine, tile=48, workers=3, **asked)
    out = tmp_path / "out"
    stored = segment(path, engine, output=out, tile=100, batch=3, csv=True, **asked)
    again = Result.open(out)
    assert inside.count > 15
    assert inside.cell_labels is not None
    np.testing.assert_array_equal(inside.cell_labels, again.cell_labels)
    theirs = expand_labels(inside.labels, 4 / SCALE)
    assert (theirs == inside.cell_labels).mean() > 0.99
    for name, values in inside.cells.columns.items():
        np.testing.assert_array_equal(again.cells.columns[name], values, name)
    for own, read in ((inside.cells.rings, again.cells.rings), (inside.cells.whole, again.cells.whole)):
        np.testing.assert_array_equal(own.points, read.points)
    table = again.table
    assert list(table) == list(inside.table)
    np.testing.assert_allclose(table["cell_area_um2"], table["cell_area"] * SCALE**2)
    wanted = np.searchsorted([0.2, 0.4, 0.6], table["ring_mean_od_dab"], side="right")
    names = np.array(["Negative", "1+", "2+", "3+"])
    there = table["ring_area"] > 0
    assert table["class"][there].tolist() == names[wanted][there].tolist()
    told = stored.record.positive
    assert told is not None
    counts = [int((table["class"] == name).sum()) for name in names]
    assert list(told.counts.values()) == counts
    assert told.positive_share == pytest.approx(1 - counts[0] / sum(counts))
    assert told.h_score == pytest.approx(100 * np.dot(counts, range(4)) / sum(counts))
    (left,) = stored.record.focus.by_name
    own = [int(((table["class"] == name) & (table["roi"] == "left")).sum()) for name in names]
    assert left.positive is not None
    assert list(left.positive.counts.values()) == own
    for row, feature in enumerate(features(out)):
        properties = feature["properties"]
        assert properties["objectType"] == "cell"
        assert properties["classification"]["name"] == table["class"][row]
        assert len(properties["classification"]["color"]) == 3
        measurements = properties["measurements"]
        assert measurements["Cytoplasm: DAB OD mean"] == pytest.approx(
            table["ring_mean_od_dab"][row], abs=1e-4
        )
        assert measurements["Cell: Area px^2"] == table["cell_area"][row]
        for name, ring in (
            ("geometry", inside.cells.whole[row]),
            ("nucleusGeometry", inside.cells.ring(row)),
        ):
            np.testing.assert_array_equal(feature[name]["coordinates"][0][:-1], ring)
    level = zarr.open_group(out / "cells.ome.zarr", mode="r")["0"]
    np.testing.assert_array_equal(level[:], inside.cell_labels)
    page = (out / "report.html").read_text()
    assert "Positive cells" in page
    drawn = cv2.imread(str(out / "overview.png")).reshape(-1, 3)[:, ::-1]
    for (name, colour), count in zip(CLASSES[3].items(), counts, strict=True):
        assert f'<i style="background:rgb{colour}"></i>{name} {count:,}</span>' in page
        assert ((drawn == colour).all(axis=1).sum() > 20) == bool(count)
    assert f"{100 * told.positive_share:.1f} %" in page
    with (out / "cells.csv").open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == table["class"].tolist()


def test_against_rgb2hed(picture: np.ndarray, engine: LocalEngine, tmp_path: Path) -> None:
    """With the three vectors of scikit-image the same cells are positive as by the means of its DAB."""
    from skimage.color import rgb_from_hed

    path = tmp_path / "hed.json"
    path.write_text(json.dumps({"stains": dict(zip(("H", "E", "DAB"), rgb_from_hed.tolist(), strict=True))}))
    result = segment(picture, engine, stains=str(path), positive="DAB=0.2")
    unit = -np.log10(1e-6) * np.linalg.norm(rgb_from_hed[2])
    dab = rgb2hed(picture)[..., 2] * unit
    means = np.array([dab[result.labels == label].mean() for label in range(1, result.count + 1)])
    # It takes what is less than nothing for nothing.
    assert np.abs(means - result.table["mean_od_DAB".lower()]).max() < 0.03
    clear = np.abs(means - 0.2) > 0.03
    assert clear.mean() > 0.8
    assert ((means >= 0.2) == (result.table["class"] == "Positive"))[clear].all()


def test_fluorescence(engine: LocalEngine) -> None:
    rng = np.random.default_rng(0)
    nuclei = np.zeros((90, 110), np.uint16)
    for y, x in rng.integers(8, 82, (12, 2)):
        nuclei[y - 4 : y + 4, x - 4 : x + 4] = 3000
    marker = rng.integers(0, 900, (90, 110)).astype(np.uint16)
    result = segment(
        np.stack([nuclei, marker], axis=2)[:, :, :1], engine, expand=3, pixel_size=1, positive="cell:0=500"
    )
    assert result.count > 5
    for at in range(result.count):
        ring = (result.cell_labels == at + 1) & (result.labels != at + 1)
        assert result.table["ring_mean_intensity_intensity"][at] == pytest.approx(nuclei[ring].mean())


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_at_another_scale(picture: np.ndarray, factor: float) -> None:
    """Cells are in pixels of the slide: labels, outlines and areas agree there."""
    spec = local_spec(2).model_copy(update={"normalization": "percentile", "pixel_size": SCALE / factor})
    result = segment(picture, LocalEngine(spec, 2), expand=3, pixel_size=SCALE)
    assert result.record.settings.scaled_to is not None
    cells, whole = result.cells, result.cell_labels
    assert whole.shape == result.labels.shape == picture.shape[:2]
    assert (whole[result.labels > 0] == result.labels[result.labels > 0]).all()
    areas = np.bincount(whole.ravel(), minlength=result.count + 1)[1:]
    assert np.abs(cells.columns["cell_area"] - areas).max() <= max(0.2 * areas.max(), 4)
    near = expand_labels(result.labels, 3 / SCALE)
    assert (near == whole).mean() > 0.95


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"expand": 3}, r"does not say how large a pixel is; give it with pixel_size"),
        ({"expand": 3, "pixel_size": 10}, r"is 0\.3 pixels of 10 µm; wanted 1 to 1000 pixels"),
        ({"expand": 100, "pixel_size": 0.01}, r"is 1e\+04 pixels"),
        ({"expand": 0}, "expand is 0; wanted a number of micrometres"),
        ({"expand": -3}, "expand is -3; wanted"),
        ({"positive": "ring:red=3"}, "only when they are grown into cells"),
        ({"positive": "dab=3"}, "stains are measured with"),
        ({"stains": "he", "positive": "dab=3"}, "no stain or channel called 'dab'"),
    ],
)
def test_what_cannot_be(
    options: dict, said: str, picture: np.ndarray, engine: LocalEngine, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        segment(picture, engine, output=tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("labels", ["tiff", "png"])
def test_formats_of_labels(labels: str, picture: np.ndarray, engine: LocalEngine, tmp_path: Path) -> None:
    given = segment(picture, engine, expand=2, pixel_size=SCALE)
    segment(picture, engine, output=tmp_path / "o", labels=labels, expand=2, pixel_size=SCALE)
    again = Result.open(tmp_path / "o")
    np.testing.assert_array_equal(again.labels, given.labels)
    np.testing.assert_array_equal(again.cell_labels, given.cell_labels)


def test_no_cells(engine: LocalEngine, tmp_path: Path) -> None:
    white = np.full((60, 60, 3), 250, np.uint8)
    asked = {"expand": 2, "pixel_size": 1, "positive": "dab=0.2", "stains": "hdab"}
    result = segment(
        white[:, :20], LocalEngine(local_spec(2), 2), output=tmp_path / "o", levels=(251, 255), **asked
    )
    assert result.count == 0
    assert result.record.positive.positive_share is result.record.positive.h_score is None
    again = Result.open(tmp_path / "o")
    assert len(again.cells) == len(again.cells.whole) == len(again.table["class"]) == 0
    assert not again.cell_labels.any()


@pytest.mark.slow
def test_real_immunostaining_against_rgb2hed(shared_data: Path, tmp_path: Path) -> None:
    """Ki67 in bladder and lung: the nuclei's means follow those of scikit-image, and as many are positive."""
    from skimage.color import rgb_from_hed

    path = tmp_path / "hed.json"
    path.write_text(json.dumps({"stains": dict(zip(("H", "E", "DAB"), rgb_from_hed.tolist(), strict=True))}))
    pictures = sorted((shared_data / "extra" / "train" / "image").glob("ki67_*.png"))
    assert pictures
    for image in pictures:
        result = segment(image, stains=str(path), positive="DAB=0.2")
        pixels = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
        unit = -np.log10(1e-6) * np.linalg.norm(rgb_from_hed[2])
        sums = np.bincount(result.labels.ravel(), (rgb2hed(pixels)[..., 2] * unit).ravel())[1:]
        means = sums / np.bincount(result.labels.ravel())[1:]
        own = result.table["mean_od_dab"]
        assert result.count > 40
        assert np.corrcoef(means, own)[0, 1] > 0.99
        assert abs((means >= 0.2).mean() - (own >= 0.2).mean()) < 0.02
