"""At what scale a slide is read, through segment() and a model that finds what is bright."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellseg.runtime import segment
from cellseg.runtime.backends import Backend, open_backend
from cellseg.runtime.errors import UsageError
from cellseg.runtime.evaluation.metrics import score
from cellseg.runtime.model.onnx_metadata import load_spec, respecify
from cellseg.runtime.model.spec import CellDiameter
from cellseg.runtime.results.target import Result

KNOWN = CellDiameter(median=16, low=10, high=30)


@pytest.fixture(scope="module")
def model(bright_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "sized.onnx"
    respecify(bright_model, path, load_spec(bright_model).model_copy(update={"diameter": KNOWN}))
    return path


@pytest.fixture(scope="module")
def backend(model: Path) -> Backend:
    with open_backend(model, "cpu") as opened:
        yield opened


def disks(diameter: int, edge: int = 0) -> np.ndarray:
    """Return the labels of about 8 × 8 disks that do not touch."""
    step = 2 * diameter
    edge = edge or 8 * step
    labels = np.zeros((edge, edge), np.int32)
    number = 0
    for y in range(diameter, edge - diameter // 2, step):
        for x in range(diameter, edge - diameter // 2, step):
            number += 1
            cv2.circle(labels, (x, y), diameter // 2, number, -1)
    return labels


def picture(labels: np.ndarray) -> np.ndarray:
    return np.where(labels > 0, 220, 10).astype(np.uint8)


def f1(truth: np.ndarray, result: Result) -> float:
    found = score(truth, result.labels)
    return 2 * found.matched[0] / (found.cells_true + found.cells_pred)


@pytest.mark.parametrize(
    ("diameter", "reason"), [(5, "found"), (16, "served"), (26, "served"), (60, "found")]
)
def test_the_scale_is_found(diameter: int, reason: str, backend: Backend) -> None:
    truth = disks(diameter)
    result = segment(picture(truth), backend)
    sizing = result.record.sizing
    assert sizing.reason == reason
    assert sizing.diameter == pytest.approx(diameter, rel=0.2)
    assert sizing.model == KNOWN
    assert sizing.votes > 8
    assert sizing.agreement > 0.5
    assert len(sizing.scales) > 1
    assert {look.scale for look in sizing.looks} >= set(sizing.scales)
    assert sizing.pixels > 0
    assert result.labels.shape == truth.shape
    assert f1(truth, result) > 0.95
    height = truth.shape[0]
    if reason == "served":
        assert result.record.settings.scaled_to is None
        assert sizing.factor == 1
        assert not any("read at" in note for note in result.notes)
    else:
        assert sizing.factor == pytest.approx(16 / sizing.diameter)
        assert result.record.settings.scaled_to[0] == round(height * sizing.factor)
        assert any("pixels were found" in note and "diameter" in note for note in result.notes)
    again = segment(picture(truth), backend, workers=1, tile=64)
    assert again.record.sizing == sizing
    assert (again.labels == result.labels).all()


def test_cells_that_are_served_are_read_smaller_where_far_more_are_found_so(backend: Backend) -> None:
    """Of nuclei with clumps the model sees each clump, and the whole where it sees fewer pixels of it."""
    truth = disks(26)
    image = np.where(truth > 0, 110, 10).astype(np.uint8)
    image[::2, ::2][truth[::2, ::2] > 0] = 250
    result = segment(image, backend)
    sizing = result.record.sizing
    assert sizing.reason == "found"
    assert KNOWN.low < sizing.diameter < KNOWN.high
    assert sizing.factor == pytest.approx(16 / sizing.diameter)
    density = {look.scale: look.density for look in sizing.looks}
    assert density[0.5] > 1.25 * density[1.0]
    assert f1(truth, result) > 0.95
    assert f1(truth, segment(image, backend, diameter="none")) == 0


def test_fields_grow_with_the_cells_that_a_model_knows(bright_model: Path, tmp_path: Path) -> None:
    """Fields that are right for nuclei cut nearly every one of large cells, and those say nothing."""
    path = tmp_path / "large.onnx"
    known = CellDiameter(median=90, low=60, high=150)
    respecify(bright_model, path, load_spec(bright_model).model_copy(update={"diameter": known}))
    sizing = segment(picture(disks(90, 1800)), path).record.sizing
    (as_it_is,) = (look for look in sizing.looks if look.scale == 1)
    assert sizing.reason == "served"
    assert as_it_is.votes / as_it_is.fields > 2


def test_a_given_diameter_is_taken(backend: Backend) -> None:
    image = picture(disks(24))
    result = segment(image, backend, diameter=24)
    assert result.record.sizing.reason == "given"
    assert result.record.settings.scaled_to == tuple(round(edge * 16 / 24) for edge in image.shape)
    assert f1(disks(24), result) > 0.95
    assert any(note.startswith("for cells of 24 pixels the image was read at 0.667") for note in result.notes)
    as_it_is = segment(image, backend, diameter=16)
    assert (as_it_is.record.settings.scaled_to, as_it_is.record.sizing.looks) == (None, ())


def test_none_leaves_the_scale_alone(backend: Backend, bright_model: Path) -> None:
    image = picture(disks(60))
    for result in (segment(image, backend, diameter="none"), segment(image, backend, rescale=False)):
        assert result.record.sizing.reason == "alone"
        assert result.record.settings.scaled_to is None
    # Such cells are not the model's, and the run says so.
    assert any("the model saw cells of 59.9" in note for note in result.record.doubts)
    assert segment(image, bright_model).record.sizing.reason == "alone"


def test_an_empty_picture_is_left_alone(backend: Backend) -> None:
    result = segment(np.full((300, 300), 7, np.uint8), backend)
    assert result.record.sizing.reason == "doubt"
    assert result.count == 0
    assert any(note.startswith("no cell was found") for note in result.record.doubts)


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (8, 8), (40, 41, 3)])
def test_any_size(shape: tuple[int, ...], backend: Backend) -> None:
    result = segment(np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8), backend)
    assert result.labels.shape == shape[:2]


def test_micrometres_decide_where_they_are_known(bright_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "both.onnx"
    spec = load_spec(bright_model).model_copy(update={"diameter": KNOWN, "pixel_size": 0.5})
    respecify(bright_model, path, spec)
    image = picture(disks(60))
    result = segment(image, path, pixel_size=0.25, diameter="auto")
    assert result.record.sizing.reason == "physical"
    assert result.record.settings.scaled_to == (image.shape[0] // 2, image.shape[1] // 2)
    assert any("its micrometres decide" in note for note in result.notes)
    assert segment(image, path, pixel_size=0.5).record.sizing.reason == "physical"
    assert segment(image, path).record.sizing.reason == "found"
    given = segment(image, path, pixel_size=0.25, diameter=60)
    assert given.record.sizing.reason == "given"
    assert given.record.settings.scaled_to[0] == round(image.shape[0] * 16 / 60)


def test_only_regions_of_interest_are_looked_at(backend: Backend) -> None:
    """Cells of 60 pixels all over, but those of 5 inside the region."""
    labels = disks(60, 2000)
    image = picture(labels)
    image[:200, :200] = picture(disks(5, 200))
    ring = np.array([[0, 0], [200, 0], [200, 200], [0, 200]])
    assert segment(image, backend).record.sizing.diameter == pytest.approx(60, rel=0.2)
    inside = segment(image, backend, roi=[ring])
    assert inside.record.sizing.diameter == pytest.approx(5, rel=0.25)


def test_it_costs_little_of_a_large_slide(backend: Backend) -> None:
    image = np.tile(picture(disks(60)), (7, 7))
    sizing = segment(image, backend).record.sizing
    assert sizing.reason == "found"
    assert sizing.pixels < 0.02 * image.size


@pytest.mark.parametrize(
    ("wanted", "options", "parts"),
    [
        (0, {}, ["diameter is 0", "a number of pixels above 0, auto or none"]),
        (-3, {}, ["diameter is -3", "above 0"]),
        (float("nan"), {}, ["diameter is nan", "above 0"]),
        (float("inf"), {}, ["diameter is inf", "above 0"]),
        ("", {}, ["diameter is ''", "above 0"]),
        ("large", {}, ["diameter is 'large'", "auto or none"]),
        (True, {}, ["diameter is True", "above 0"]),
        (301, {}, ["cells of diameter 301 are larger than the image of 300×300 pixels"]),
        (0.25, {}, ["would be read at 64 times its size", "check diameter"]),
        (20, {"rescale": False}, ["diameter 20 changes the scale", "rescale=False"]),
    ],
)
def test_what_cannot_be(
    wanted: float | str, options: dict[str, bool], parts: list[str], backend: Backend
) -> None:
    with pytest.raises(UsageError) as caught:
        segment(np.zeros((300, 300), np.uint8), backend, diameter=wanted, **options)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize("wanted", [20, "auto"])
def test_a_model_that_does_not_know(wanted: float | str, bright_model: Path) -> None:
    with pytest.raises(UsageError, match=r"model 'bright' does not say how large .* cellseg-tune"):
        segment(np.zeros((300, 300), np.uint8), bright_model, diameter=wanted)


def test_results_of_another_diameter_are_not_taken_for_these(
    model: Path, backend: Backend, bright_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "slide.png"
    cv2.imwrite(str(path), picture(disks(60)))
    output = tmp_path / "out"
    first = segment(path, backend, output=output)
    assert json.loads((output / "run.json").read_text())["sizing"]["reason"] == "found"
    assert segment(path, backend, output=output, resume=True).record == first.record
    with pytest.raises(UsageError, match="diameter was not given, now none"):
        segment(path, backend, output=output, resume=True, diameter="none")
    other = tmp_path / "other.onnx"
    known = CellDiameter(median=20, low=10, high=30)
    respecify(bright_model, other, load_spec(bright_model).model_copy(update={"diameter": known}))
    with pytest.raises(UsageError, match="the model's cells had a diameter of 16, now 20"):
        segment(path, other, output=output, resume=True)
