"""The search finds what is better, is repeatable, and sees the planes that the runtime splits."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from cellseg.runtime import segment
from cellseg.runtime.backends import open_backend
from cellseg.runtime.instances import split_planes
from cellseg.runtime.model.spec import Head, SplitSettings
from cellseg.runtime.tuning.cases import Case, at_scale_of, predict_planes
from cellseg.runtime.tuning.search import search
from cellseg.runtime.tuning.settings import RANGES, initial_settings, names_for
from cellseg.runtime.tuning.trials import goal, runner, try_settings

HEADS = (Head(name="mask"),)


def discs(seed: int, threshold: int = 90) -> Case:
    """Draw soft discs on a ground of specks; the truth is what reaches `threshold`."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((96, 96), np.uint8)
    for y in range(16, 96, 32):
        for x in range(16, 96, 32):
            cv2.circle(mask, (x, y), int(rng.integers(6, 11)), 255, -1)
    soft = cv2.GaussianBlur(mask, (0, 0), 3)
    _, truth = cv2.connectedComponents((soft >= threshold).astype(np.uint8))
    specks = (rng.random(mask.shape) < 0.002).astype(np.uint8) * 200
    return Case("all", np.maximum(soft, cv2.dilate(specks, np.ones((2, 2))))[None], truth)


CASES = [discs(seed) for seed in range(3)]


@pytest.mark.parametrize("name", RANGES)
def test_a_range_and_its_share_are_inverse(name: str) -> None:
    span = RANGES[name]
    for share in (-1.0, 0.0, 0.3, 0.77, 1.0, 2.0):
        value = span.at(share)
        assert span.low <= value <= span.high
        assert span.at(span.share(value)) == value
    SplitSettings.model_validate({name: span.at(0.5)})


def test_names_are_those_that_the_heads_give_a_meaning() -> None:
    alone = names_for(HEADS)
    assert "mask_threshold" in alone
    assert not {"boundary_weight", "density_weight", "min_seed_density"} & set(alone)
    assert names_for((Head(name="mask"), Head(name="boundary"), Head(name="density"))) == list(RANGES)


def test_the_goal_weighs_groups_by_the_root_of_their_number() -> None:
    good, bad = ({"ap50": v, "ap75": v, "ap90": v} for v in (0.9, 0.3))
    figures = {"a": {**good, "images": 9}, "b": {**bad, "images": 1}}
    assert goal(figures) == pytest.approx(0.75)
    assert goal(figures, balance=0) == pytest.approx(0.84)
    assert goal(figures, balance=1) == pytest.approx(0.6)


def test_the_search_finds_what_is_better_and_counts_its_trials() -> None:
    start = SplitSettings(mask_threshold=200, min_area=1, smoothing=0, max_hole_area=0)
    told = []
    with runner(CASES, HEADS, 1) as run:
        best, after, before = search(start, names_for(HEADS), 80, 0, run.score, told.append)
    assert len(told) <= 80
    assert before == try_settings(CASES, HEADS, start) == told[0]
    assert after == try_settings(CASES, HEADS, best)
    assert goal(after) == max(map(goal, told)) > goal(before) + 0.3
    assert abs(best.mask_threshold - 90) < 25
    assert best.min_area > 4


def test_a_search_is_the_same_in_any_number_of_processes() -> None:
    start, names = SplitSettings(mask_threshold=200), ["mask_threshold", "min_area"]
    found = []
    for jobs in (1, 2):
        with runner(CASES, HEADS, jobs) as run:
            found.append(search(start, names, 40, 3, run.score))
    assert found[0] == found[1]
    changed = {name for name, value in found[0][0] if value != getattr(start, name)}
    assert changed <= set(names)


def test_it_begins_with_what_suits_these_planes_or_fewer() -> None:
    heads = (*HEADS, Head(name="boundary"), Head(name="density"))
    start = SplitSettings(min_area=77)
    names = [name for name in names_for(heads) if name != "min_area"]
    found = initial_settings(start, heads, names)
    assert {settings.min_area for settings in found} == {77}  # not to be changed
    assert [settings.boundary_weight > 0 for settings in found] == [False, True, False, True]
    assert [settings.density_weight > 0 for settings in found] == [False, False, False, True]
    assert len(initial_settings(start, heads[:2], names_for(heads[:2]))) == 2
    assert initial_settings(start, HEADS, names_for(HEADS)) == [SplitSettings.suited(("mask",))]


def test_the_balance_decides_between_groups() -> None:
    """Three pictures of one kind, one of another: what suits most pictures, or both kinds alike."""
    dim = discs(3, threshold=50)
    cases = [*(discs(seed, threshold=190) for seed in range(3)), Case("dim", dim.planes, dim.truth)]
    start = SplitSettings(mask_threshold=110, smoothing=0, max_hole_area=0)
    first = [start.model_copy(update={"mask_threshold": value}) for value in (50, 190)]
    found = []
    with runner(cases, HEADS, 1) as run:
        for balance in (0.0, 1.0):
            best, _, _ = search(start, ["mask_threshold"], 3, 0, run.score, first=first, balance=balance)
            found.append(best.mask_threshold)
    assert found == [190, 50]


def test_the_search_goes_on_from_the_best_of_the_first() -> None:
    """A boundary through the middle of every cell is not to be believed."""
    case = discs(0, threshold=186)
    misleading = np.zeros_like(case.planes)
    misleading[..., 15::32] = misleading[..., 16::32] = 255
    cases = [Case("all", np.concatenate([case.planes, misleading]), case.truth)]
    heads = (*HEADS, Head(name="boundary"))
    start = SplitSettings(mask_threshold=186, smoothing=0, min_seed_area=1, min_area=1)
    names = [name for name in names_for(heads) if name != "min_area"]
    first = initial_settings(start, heads, names)
    with runner(cases, heads, 1) as run:
        best, after, before = search(start, names, 1 + len(first), 0, run.score, first=first)
    assert goal(after) > goal(before)
    assert best == first[0]


@pytest.mark.parametrize(("names", "trials"), [([], 20), (["min_area"], 1)])
def test_nothing_to_search_is_no_search(names: list[str], trials: int) -> None:
    start = SplitSettings()
    with runner(CASES[:1], HEADS, 1) as run:
        best, after, before = search(start, names, trials, 0, run.score)
    assert best == start
    assert after == before


def test_what_is_seen_is_what_the_runtime_splits(bright_model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = {}
    for name, shape in (("large", (150, 90, 3)), ("small", (40, 60))):
        picture = cv2.GaussianBlur(rng.integers(0, 256, shape, np.uint8), (0, 0), 3)
        files[name] = tmp_path / f"{name}.png"
        cv2.imwrite(str(files[name]), picture)
    with open_backend(bright_model) as backend:
        seen = dict(predict_planes(backend, files))
        assert list(seen) == ["small", "large"]
        for name, planes in seen.items():
            found = split_planes(planes, backend.spec.heads, backend.spec.split)
            labels = segment(files[name], backend).labels
            np.testing.assert_array_equal(found > 0, labels > 0)
            assert found.max() == labels.max()


def test_truth_follows_the_planes_to_their_scale() -> None:
    truth = np.kron(np.arange(6).reshape(2, 3), np.ones((4, 4), int))
    same = np.zeros((1, 8, 12), np.uint8)
    assert at_scale_of(same, truth) is truth
    np.testing.assert_array_equal(at_scale_of(same[:, ::2, ::2], truth), truth[::2, ::2])
    np.testing.assert_array_equal(
        at_scale_of(np.zeros((1, 16, 24), np.uint8), truth), np.kron(truth, np.ones((2, 2), int))
    )
