import numpy as np
import pytest
import torch
from torch import Tensor

from cellseg.train.looks.augment import BLUR, DENSITIES, LOOK, NOISE, STAINED, draw_look, photometric


def looks(count: int, strength: float = 1.0, channels: int = 3) -> Tensor:
    return torch.from_numpy(
        np.stack([draw_look(np.random.default_rng([0, i]), strength, channels) for i in range(count)])
    )


def pictures(count: int, channels: int = 3, offset: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(offset, 256, (count, channels, 24, 20), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_strength_zero_only_scales_to_one(channels: int) -> None:
    image = pictures(5, channels)
    torch.testing.assert_close(photometric(image, looks(5, 0.0, channels)), image / 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_looks_the_same_in_any_batch(channels: int) -> None:
    image, look = pictures(8, channels), looks(8, 1.0, channels)
    together = photometric(image, look)
    assert together.shape == image.shape
    assert float(together.min()) >= 0
    assert float(together.max()) <= 1
    for i in range(8):
        torch.testing.assert_close(photometric(image[i : i + 1], look[i : i + 1])[0], together[i])


def test_looks_differ_and_change_pictures() -> None:
    look = looks(40)
    assert look.shape == (40, LOOK)
    changed = (photometric(pictures(40), look) - pictures(40) / 255).abs().mean(dim=(1, 2, 3))
    assert int((changed > 0.01).sum()) > 10
    assert len({round(float(c), 6) for c in changed}) > 20


def test_grey_stays_grey_but_for_stains() -> None:
    dark = pictures(1, 1).repeat(20, 3, 1, 1) // 3  # a dark picture is not stained
    look = looks(20)
    look[:, NOISE] = 0
    x = photometric(dark, look)
    torch.testing.assert_close(x[:, 0], x[:, 1], atol=1e-5, rtol=0)
    bright = photometric(pictures(20, 3, 200), look)
    assert float((bright[:, 0] - bright[:, 1]).abs().max()) > 0.01


def test_blur_keeps_the_mean_and_lowers_the_contrast() -> None:
    look = looks(1, 0.0)
    look[0, BLUR] = 1.5
    image = pictures(1)
    x = photometric(image, look)
    assert float(x.mean()) == pytest.approx(float(image.float().mean()) / 255, abs=0.01)
    assert float(x.std()) < 0.5 * float((image / 255).std())


def test_what_is_drawn_as_stained_gets_a_bright_ground() -> None:
    dark = pictures(6, 1).repeat(1, 3, 1, 1) // 3
    stained = torch.from_numpy(
        np.stack([draw_look(np.random.default_rng([0, i]), 0.0, 3, stained=1.0) for i in range(6)])
    )
    stained[3:, STAINED.start] = 0
    x = photometric(dark, stained)
    assert float(x[:3].mean(dim=(1, 2, 3)).min()) > 0.25
    torch.testing.assert_close(x[3:], dark[3:] / 255)


def test_the_share_of_stained_crops_changes_no_other_draw() -> None:
    def draw(share: float) -> Tensor:
        return torch.from_numpy(
            np.stack([draw_look(np.random.default_rng([0, i]), 1.0, 3, share) for i in range(200)])
        )

    none, some = draw(0.0), draw(0.3)
    flag = STAINED.start
    assert not bool(none[:, flag].any())
    assert 30 < int(some[:, flag].sum()) < 90
    none[:, flag] = some[:, flag] = 0
    torch.testing.assert_close(none, some)


def test_stains_move_in_bright_pictures_alone_and_change_no_other_draw() -> None:
    def draw(jitter: float) -> Tensor:
        looks = [draw_look(np.random.default_rng([0, i]), 0.0, 3, 0.0, jitter) for i in range(4)]
        return torch.from_numpy(np.stack(looks))

    still, moved = draw(0.0), draw(1.0)
    torch.testing.assert_close(still[:, : DENSITIES.start], moved[:, : DENSITIES.start])
    bright = 255 - pictures(4, 3) // 4
    dark = pictures(4, 3) // 4
    torch.testing.assert_close(photometric(dark, moved), photometric(dark, still))
    change = (photometric(bright, moved) - photometric(bright, still)).abs()
    assert float(change.mean(dim=(1, 2, 3)).min()) > 0.004
    torch.testing.assert_close(photometric(bright, still), bright / 255)
