import numpy as np
import pytest
import torch
from torch import Tensor

from cellseg.train.looks.stains import (
    STAINS,
    draw_laboratory,
    draw_stains,
    is_fluorescence,
    move_stains,
    render,
)

#: Optical densities of haematoxylin and eosin that are published: Ruifrok and Johnston's, QuPath's, and those
#: of the picture to which Macenko's normalisation brings others.
PUBLISHED = {
    "Ruifrok": ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11)),
    "QuPath": ((0.651, 0.701, 0.290), (0.2159, 0.8012, 0.5581)),
    "Macenko": ((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581)),
}


def stains(seed: int) -> Tensor:
    return torch.from_numpy(draw_stains(np.random.default_rng(seed), 1.0)).float()


def nuclei() -> Tensor:
    """Return two bright discs, one half as bright as the other, on a dark ground."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    grey = torch.full((64, 96), 0.05)
    for column, level in ((25, 0.6), (70, 0.3)):
        grey[(y - 32) ** 2 + (x - column) ** 2 < 15**2] = level
    return grey.expand(3, -1, -1).clone()


def draw(picture: Tensor, look: Tensor, seed: int = 0) -> Tensor:
    return render(picture, look, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(8))
def test_without_another_stain_light_is_absorbed_as_beer_and_lambert_say(seed: int) -> None:
    look = stains(seed)
    assert look.shape == (STAINS,)
    look[4:7] = 0
    x = draw(nuclei(), look)
    light, density = look[8:11], look[1:4]
    torch.testing.assert_close(x[:, 0, 0], light, atol=1e-5, rtol=0)
    torch.testing.assert_close(x[:, 32, 25], light * torch.exp(-density), atol=1e-4, rtol=0)
    half = (0.3 - 0.05) / (0.6 - 0.05)
    torch.testing.assert_close(x[:, 32, 70], light * torch.exp(-density * half), atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_drawn_is_a_picture_and_the_same_each_time(seed: int) -> None:
    x = draw(nuclei(), stains(seed), seed)
    assert x.shape == (3, 64, 96)
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    assert torch.equal(x, draw(nuclei(), stains(seed), seed))
    assert not torch.equal(x, draw(nuclei(), stains(seed), seed + 1))


def test_an_empty_picture_stays_nearly_empty() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = (0.03 + 0.004 * torch.randn(1, 64, 64, generator=generator)).expand(3, -1, -1)
    look = stains(0)
    look[4:7] = 0
    x = draw(noise, look)
    assert float((x[0] / look[8]).min()) > float(torch.exp(-look[1] * 0.3))


def test_two_pictures_in_a_row_are_stained_differently() -> None:
    colours = torch.stack([stains(seed)[1:4] for seed in range(10)])
    assert float(colours.std(dim=0).min()) > 0.1


def test_only_grey_pictures_on_a_dark_ground_are_fluorescence() -> None:
    dark = np.full((8, 9, 3), 20, np.uint8)
    dark[2:5, 2:5] = 200
    coloured = dark.copy()
    coloured[3, 3, 0] = 0
    assert is_fluorescence(dark)
    for other in (coloured, 255 - dark, dark[:, :, :1]):
        assert not is_fluorescence(other)


def degrees(one: np.ndarray, other: tuple[float, ...]) -> np.ndarray:
    """Return the angle of each row of `one` with `other`."""
    cosine = one @ np.array(other) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other))
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@pytest.mark.parametrize("laboratory", PUBLISHED)
def test_stains_that_are_published_are_near_some_that_are_drawn(laboratory: str) -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([draw_laboratory(rng) for _ in range(300)])
    off = [degrees(drawn[:, stain], wanted) for stain, wanted in enumerate(PUBLISHED[laboratory])]
    assert float(np.maximum(*off).min()) < 10


def test_haematoxylin_absorbs_more_red_than_eosin_in_most_laboratories() -> None:
    rng = np.random.default_rng(1)
    drawn = np.array([draw_laboratory(rng) for _ in range(300)])
    assert 0.8 < float(np.mean(drawn[:, 0, 0] > drawn[:, 1, 0])) < 1


def test_stains_do_not_move_further_than_they_may() -> None:
    blue, pink = draw_laboratory(np.random.default_rng(2), 0.0)
    np.testing.assert_allclose(blue, (0.65, 0.70, 0.29))
    np.testing.assert_allclose(pink, (0.07, 0.99, 0.11))


@pytest.mark.parametrize("seed", range(8))
def test_stains_that_move_absorb_about_as_much(seed: int) -> None:
    moved = move_stains(np.random.default_rng(seed), 1.0)
    assert moved.shape == (3, 3)
    # As much haematoxylin absorbs about as much light.
    before = np.array([0.65, 0.70, 0.29])
    assert 0.4 < np.linalg.norm(moved @ before) / np.linalg.norm(before) < 2.2
    still = move_stains(np.random.default_rng(seed), 0.0)
    np.testing.assert_allclose(still, np.eye(3), atol=1e-9)


def test_moving_stains_reaches_salmon_from_magenta() -> None:
    magenta = np.array([0.07, 0.99, 0.11])
    found = np.stack([move_stains(np.random.default_rng(seed), 1.0) @ magenta for seed in range(200)])
    assert float(degrees(found, (0.2159, 0.8012, 0.5581)).min()) < 8
