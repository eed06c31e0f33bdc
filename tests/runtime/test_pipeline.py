import gzip
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from cellseg.runtime import Result, segment
from cellseg.runtime.backends import open_backend
from cellseg.runtime.errors import ImageError, OutputError, UsageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.intensity.normalization import measure
from cellseg.runtime.intensity.stains import Stains
from cellseg.runtime.model.spec import ScoreRule, SplitSettings
from cellseg.runtime.readers import ArrayReader, Level, open_slide
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:150, :170]
    found = np.full((150, 170), 12.0)
    for _ in range(60):
        cy, cx, r = rng.uniform(0, 150), rng.uniform(0, 170), rng.uniform(3, 8)
        found = np.maximum(found, (np.hypot(y - cy, x - cx) < r) * rng.uniform(150, 250))
    return found.astype(np.uint8)


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine(local_spec(2).model_copy(update={"normalization": "percentile"}), 2)


def test_memory_and_folder_agree(image: np.ndarray, bright_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, image)
    inside = segment(image, bright_model, device="cpu")
    outside = segment(path, bright_model, device="cpu", output=tmp_path / "out", batch=3, tile=40)
    assert inside.count == outside.count == inside.labels.max() > 10
    assert inside.labels.dtype == outside.labels.dtype == np.int32
    assert (inside.labels == outside.labels).all()
    assert len(inside.cells) == inside.count
    assert (inside.folder, outside.folder) == (None, tmp_path / "out")
    for name, values in inside.cells.columns.items():
        np.testing.assert_array_equal(outside.cells.columns[name], values, name)


def test_what_is_given_stays_open(image: np.ndarray, bright_model: Path) -> None:
    reader = ArrayReader(image)
    with open_backend(bright_model, "cpu") as backend:
        first = segment(reader, backend)
        second = segment(reader, backend, tile=64)
        assert (first.labels == second.labels).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (7, 3, 3), (65, 64)])
def test_any_size(shape: tuple[int, ...], engine: LocalEngine) -> None:
    result = segment(np.full(shape, 200, np.uint8), engine)
    assert result.labels.shape == shape[:2]


def test_the_mapping_is_the_slides(image: np.ndarray, engine: LocalEngine) -> None:
    wanted = measure(image)
    settings = segment(image, engine).record.settings
    assert (settings.black, settings.white) == (wanted.low, wanted.high)
    settings = segment(image, engine, levels=(3, 99)).record.settings
    assert (settings.black, settings.white) == (3, 99)
    bright = segment(image.astype(np.uint16) * 200, engine)
    assert (bright.labels == segment(image, engine).labels).mean() > 0.99


def test_small_images_get_small_tiles_and_batches(image: np.ndarray, engine: LocalEngine) -> None:
    settings = segment(image[:20, :20], engine).record.settings
    assert (settings.tile, settings.batch) == (32, 1)
    assert segment(image, engine, tile=20, batch=5).record.settings.batch == 5


def test_channels(image: np.ndarray, engine: LocalEngine) -> None:
    stack = np.stack([image * 0, image], axis=2)
    with pytest.raises(ImageError, match="has 2 channels"):
        segment(stack, engine)
    assert (segment(stack, engine, channels=[1]).labels == segment(image, engine).labels).all()


@pytest.mark.parametrize(
    ("image", "options", "error", "message"),
    [
        (np.zeros((4, 4, 4, 4)), {}, ImageError, "not one picture"),
        (np.zeros((0, 4)), {}, ImageError, "no pixels"),
        (np.zeros((4, 4), np.complex64), {}, ImageError, "not grey levels"),
        ([[1, 2]], {}, UsageError, "not list"),
        (
            np.zeros((4, 4)),
            {"tyle": 3},
            UsageError,
            "no option 'tyle'; did you mean 'tile'. it has overwrite",
        ),
        (np.zeros((4, 4)), {"tile": 3}, UsageError, "leaves no core"),
        ("none.tif", {}, ImageError, "no such file"),
        (np.full((4, 4), np.nan), {}, ImageError, "^array: the image holds no finite pixel .* levels$"),
        (
            np.zeros((4, 4), np.uint8),
            {"levels": (5, 3)},
            UsageError,
            r"^array: levels=\(5\.0, 3\.0\): .* finite low < high",
        ),
        (np.zeros((4, 4), np.uint8), {"levels": (0, 300)}, UsageError, "whole numbers of 0…255"),
    ],
)
def test_mistakes(
    image: Any, options: dict[str, Any], error: type[Exception], message: str, engine: LocalEngine
) -> None:
    with pytest.raises(error, match=message):
        segment(image, engine, **options)


def test_nothing_is_left_after_an_error(image: np.ndarray, tmp_path: Path) -> None:
    spec = local_spec(2)
    with LocalEngine(spec, 2, fail_at=2) as broken, pytest.raises(Exception, match="told to fail"):
        segment(image, broken, output=tmp_path / "out", batch=1)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing(image: np.ndarray, engine: LocalEngine, tmp_path: Path) -> None:
    def interrupt(state: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment(image, engine, output=tmp_path / "out", progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_something_else_is_left_alone(
    image: np.ndarray, engine: LocalEngine, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="something else"):
        segment(image, engine, output=tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_overview_is_the_same_with_and_without_a_pyramid(tmp_path: Path) -> None:
    """Without one it is made of the rows as they are read, so that none is read twice."""
    rng = np.random.default_rng(0)
    flat = rng.integers(0, 256, (220, 2400, 3)).astype(np.uint8)

    class Pyramid(ArrayReader):
        def __init__(self) -> None:
            super().__init__(flat)
            self.levels = (*self.levels, Level(1, 1, 220.0))

    pictures, rgb = [], LocalEngine(local_spec(2, channels=3), 2)
    for name, reader in (("flat", ArrayReader(flat)), ("pyramid", Pyramid())):
        segment(reader, rgb, output=tmp_path / name)
        pictures.append(cv2.imread(str(tmp_path / name / "overview.png")).astype(int))
    assert pictures[0].shape == (183, 2000, 3)
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_blending_is_recorded_and_named_wrongly_refused(image: np.ndarray, engine: LocalEngine) -> None:
    plain = segment(image, engine)
    found = segment(image, engine, blend="gaussian")
    assert plain.record.settings.blend == "none"
    assert found.record.settings.blend == "gaussian"
    assert found.labels.shape == plain.labels.shape
    assert abs(found.count - plain.count) <= 2 + plain.count // 10
    with pytest.raises(UsageError, match="blend is 'mean'; wanted none, hann or gaussian"):
        segment(image, engine, blend="mean")


def test_floats_with_holes(image: np.ndarray, engine: LocalEngine, tmp_path: Path) -> None:
    holed = image.astype(np.float32)
    holed[::7] = np.nan
    holed[:, ::5] = np.inf
    found = segment(holed, engine, output=tmp_path / "out")
    assert found.count > 0
    overview = cv2.imread(str(tmp_path / "out" / "overview.png"))
    assert overview.std() > 10
    empty = np.full_like(holed, np.nan)
    assert segment(empty, engine, output=tmp_path / "empty", levels=(0, 1)).count == 0


def test_notes(image: np.ndarray, engine: LocalEngine) -> None:
    assert "pixel_size" in segment(image, engine).notes[0]
    assert segment(image, engine, pixel_size=0.5).notes == ()
    notes = segment(image, engine, pixel_size=0.5, blend="hann", resume=True).notes
    assert [note.split(":")[0] for note in notes] == ["bands of averaged tiles are not kept"]


def test_images_are_brought_to_the_models_scale(
    image: np.ndarray, engine: LocalEngine, tmp_path: Path
) -> None:
    """Cells keep their places when the same scene comes at twice the resolution."""
    trained = LocalEngine(engine.spec.model_copy(update={"pixel_size": 0.5}), 2)
    plain = segment(image, trained, pixel_size=0.5)
    assert plain.record.settings.scaled_to is None
    fine = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)
    scaled = segment(fine, trained, pixel_size=0.25, output=tmp_path / "out")
    assert scaled.record.settings.scaled_to == (150, 170)
    assert "brought to the model's 0.5" in scaled.notes[0]
    assert scaled.labels.shape == fine.shape == (scaled.height, scaled.width)
    agree = (scaled.labels > 0) == np.repeat(np.repeat(plain.labels > 0, 2, axis=0), 2, axis=1)
    assert agree.mean() > 0.99
    assert abs(scaled.count - plain.count) <= 1
    untouched = segment(fine, trained, pixel_size=0.25, rescale=False)
    assert untouched.record.settings.scaled_to is None


def test_regions_of_interest_are_in_pixels_of_the_slide(
    image: np.ndarray, engine: LocalEngine, tmp_path: Path
) -> None:
    ring = np.array([[20, 30], [120, 30], [120, 110], [20, 110]], float)
    found = segment(image, engine, roi=[ring], pixel_size=0.5)
    assert found.count > 3
    assert not found.labels[:30].any()
    assert not found.labels[:, 120:].any()
    assert found.labels[30:110, 20:120].any(axis=1).mean() > 0.5
    holed = segment(image, engine, roi=[[ring, ring * 0.5 + 30]], pixel_size=0.5)
    assert not holed.labels[50:80, 45:85].any()
    # At another scale, each pixel that the model sees counts or not.
    trained = LocalEngine(engine.spec.model_copy(update={"pixel_size": 0.5}), 2)
    fine = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)
    scaled = segment(
        fine, trained, roi=[2 * ring], pixel_size=0.25, output=tmp_path / "o", probabilities=True
    )
    assert not scaled.labels[:60].any()
    assert not scaled.labels[:, 240:].any()
    assert ((scaled.labels > 0) == np.repeat(np.repeat(found.labels > 0, 2, 0), 2, 1)).mean() > 0.99
    with open_slide(tmp_path / "o" / "planes.ome.zarr") as planes:
        assert (planes.height, planes.width, planes.pixel_size) == (150, 170, 0.5)
        assert not planes.read(Region(0, 0, 30, 170)).any()
    assert scaled.record.focus.looked_at_part == pytest.approx(80 * 100 / 150 / 170)
    for wrong, message in (
        ([[[1, 2], [3, 4]]], "wanted a path or polygons"),
        ([], "holds no polygon"),
        ([ring + 500], "none of its 1 areas lies inside the image of 150×170"),
    ):
        with pytest.raises(UsageError, match=message):
            segment(image, engine, roi=wrong)


def test_cells_of_low_score_are_dropped_on_request(image: np.ndarray, engine: LocalEngine) -> None:
    rule = ScoreRule(constant=-4, inside={"mask": 8}, area=0, minimum=0.3)
    split = SplitSettings(score=rule)
    with LocalEngine(engine.spec.model_copy(update={"split": split}), 2) as scoring:
        every = segment(image, scoring, min_score=0)
        scores = every.cells.columns["score"]
        chance = every.cells.columns["mean_probability"]
        assert scores == pytest.approx(1 / (1 + np.exp(4 - 8 * chance)), rel=1e-6)
        assert len(np.unique(scores > 0.75)) == 2
        some = segment(image, scoring, min_score=0.75)
        assert some.cells.columns["score"].tolist() == scores[scores >= 0.75].tolist()
        assert ((some.labels > 0) == np.append(False, scores >= 0.75)[every.labels]).all()
        assert segment(image, scoring).count == (scores >= 0.3).sum()
        with pytest.raises(UsageError, match="min_score is 2; wanted a number from 0 to 1"):
            segment(image, scoring, min_score=2)
    with pytest.raises(UsageError, match=r"'local' has not learned to score cells.*cellseg-tune teaches it"):
        segment(image, engine, min_score=0.5)


def test_glass_is_skipped_on_request(tmp_path: Path) -> None:
    slide = np.full((300, 2200, 3), 240, np.uint8)
    cv2.circle(slide, (1700, 150), 60, (200, 120, 190), -1)
    spec = local_spec(2, channels=3)
    with LocalEngine(spec, 2) as rgb:
        found = segment(slide, rgb, tissue="auto", output=tmp_path / "out")
        assert found.record.focus.skipped_part > 0.5
        assert 0.01 < found.record.focus.tissue_part < 0.2
        assert "tiles were skipped" in found.notes[-1]
        small = segment(slide[:, :300], rgb, tissue="auto")
        assert small.record.focus.skipped_part == 0
        assert any("glass is looked for on large" in note for note in small.notes)
        with pytest.raises(UsageError, match="wanted auto or none"):
            segment(slide, rgb, tissue="yes")


def test_the_result_prints_shortly(image: np.ndarray, engine: LocalEngine) -> None:
    result = segment(image, engine)
    assert isinstance(result, Result)
    assert len(repr(result)) < 1500


def test_stains(engine: LocalEngine, tmp_path: Path) -> None:
    """The same optical densities in memory and in a folder, whatever the tiles; nothing else changes."""
    from skimage.data import immunohistochemistry

    picture = immunohistochemistry()[:200, :230]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, photometric="rgb")
    known = Stains.known("hdab")
    amounts = known.amounts(picture)
    plain = segment(path, engine, output=tmp_path / "plain", tile=64)
    given = segment(picture, engine, stains="hdab", tile=48, workers=3)
    stored = segment(path, engine, output=tmp_path / "out", stains="auto", tile=90, batch=3)
    assert given.count > 20
    for name, values in Result.open(tmp_path / "out").cells.columns.items():
        np.testing.assert_array_equal(values, given.cells.columns[name], name)
    for at, name in enumerate(("hematoxylin", "dab")):
        for cell in range(given.count):
            inside = amounts[given.labels == cell + 1][:, at]
            assert given.table[f"mean_od_{name}"][cell] == pytest.approx(inside.mean(), abs=1e-5)
            assert given.table[f"max_od_{name}"][cell] == pytest.approx(inside.max(), abs=1e-5)
    record = stored.record.stains
    assert record is not None
    assert (record.kind, record.names, record.vectors) == ("hdab", known.names, known.vectors)
    assert any("optical densities are of" in note for note in stored.notes)
    assert plain.record.stains is None
    assert set(stored.table) - set(plain.table) == {
        f"{what}_od_{stain}" for what in ("mean", "max") for stain in ("hematoxylin", "dab")
    }
    for name, values in plain.table.items():
        np.testing.assert_array_equal(values, stored.table[name])
    features = json.loads(gzip.decompress((tmp_path / "out/cells.geojson.gz").read_bytes()))["features"]
    measurements = features[3]["properties"]["measurements"]
    assert measurements["DAB OD mean"] == pytest.approx(given.table["mean_od_dab"][3], abs=1e-4)
    assert measurements["Hematoxylin OD max"] == pytest.approx(given.table["max_od_hematoxylin"][3], abs=1e-4)


def test_another_file_of_stains_is_another_result(
    image: np.ndarray, engine: LocalEngine, tmp_path: Path
) -> None:
    path, stains = tmp_path / "a.tif", tmp_path / "s.json"
    colours = 255 - np.stack([image // 2, image, image // 3], axis=2)
    tifffile.imwrite(path, colours, photometric="rgb")
    given = {"output": tmp_path / "out", "stains": str(stains), "resume": True}
    stains.write_text('{"stains": {"H": [0.65, 0.7, 0.29], "D": [0.27, 0.57, 0.78]}}')
    first = segment(path, engine, **given)
    assert segment(path, engine, **given).record == first.record
    stains.write_text('{"stains": {"H": [0.65, 0.7, 0.29], "D": [0.2, 0.57, 0.78]}}')
    with pytest.raises(UsageError, match="stains was"):
        segment(path, engine, **given)
    with pytest.raises(UsageError, match="stains was"):
        segment(path, engine, **(given | {"stains": "none"}))
