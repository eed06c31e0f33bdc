"""Sections drawn around known nuclei."""

import cv2
import numpy as np
import pytest

from cellseg.train.looks import tissue
from cellseg.train.looks.section import Field, grain
from cellseg.train.looks.strangers import STRANGERS


def nuclei(count: int = 12, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of discs apart from each other, and their fluorescence."""
    labels = np.zeros((size, size), np.int32)
    for i in range(count):
        row, column = divmod(i, 4)
        cv2.circle(labels, (14 + 22 * column, 14 + 22 * row), 6, i + 1, -1)
    texture = np.where(labels > 0, 150, 10) + np.random.default_rng(0).normal(0, 4, labels.shape)
    return labels, np.clip(texture, 0, 255).astype(np.uint8)


def drawn(seed: int) -> np.ndarray:
    labels, texture = nuclei()
    return tissue.draw(labels, texture, 13.0, np.random.default_rng(seed))


def test_a_section_is_a_bright_picture_of_the_same_size_and_depends_on_its_seed_alone() -> None:
    one = drawn(3)
    assert one.shape == (96, 96, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, drawn(3))
    assert not np.array_equal(one, drawn(4))
    assert np.median([np.median(drawn(seed)) for seed in range(12)]) > 110


def test_nuclei_absorb_more_than_the_ground_in_most_sections() -> None:
    labels, _ = nuclei()
    inside = labels > 0
    darker = [drawn(seed)[inside].mean() < drawn(seed)[~inside].mean() for seed in range(30)]
    assert sum(darker) >= 24


@pytest.mark.parametrize(("add", "share"), STRANGERS, ids=lambda each: getattr(each, "__name__", ""))
def test_what_is_no_nucleus_is_drawn_where_none_is(add: object, share: float) -> None:
    labels, _ = nuclei()
    field = Field(labels, 13.0)
    deep = field.rim > 3  # the optics blur what lies at the rim
    assert deep.any()
    assert 0 < share < 1
    changed = 0.0
    for seed in range(6):
        planes = np.full((3, *labels.shape), 0.3, np.float32)
        after = add(field, planes.copy(), True, np.random.default_rng(seed))  # type: ignore[operator]
        assert after.shape == planes.shape
        np.testing.assert_allclose(after[:, deep], planes[:, deep], atol=0.06)
        changed = max(changed, float(np.abs(after - planes).max()))
    assert changed > 0.05


def test_grain_has_the_size_that_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    for sigma in (2.0, 8.0):
        noise = grain((200, 160), sigma, rng)
        assert noise.shape == (200, 160)
        assert float(noise.std()) == pytest.approx(1, abs=1e-3)
        # Neighbours at a tenth of the grain agree, those two grains apart do not.
        near = np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]
        far = int(2.5 * sigma)
        apart = np.corrcoef(noise[:, :-far].ravel(), noise[:, far:].ravel())[0, 1]
        assert near > 0.6
        assert abs(apart) < 0.35
    along = grain((150, 150), 2.0, rng, angle=0.0, ratio=6.0)
    steps = [float(np.abs(np.diff(along, axis=axis)).mean()) for axis in (0, 1)]
    assert max(steps) > 1.5 * min(steps)
