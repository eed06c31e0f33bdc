import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cellseg.export.halo import measure, receptive_field
from cellseg.train.models import build_model

from .conftest import small_config


@pytest.mark.parametrize(("depth", "branches"), [(1, 2), (1, 3), (2, 3), (3, 2)])
def test_reach_is_just_below_its_formula(depth: int, branches: int) -> None:
    radius = 2 * (branches - 1)
    formula = radius * (2 ** (depth + 1) - 1) + radius * (2**depth - 1) + 2**depth - 1
    reach = receptive_field(small_config(model_deep=depth, M_channel=branches))
    assert formula - 2**depth < reach <= formula


@pytest.mark.parametrize("model", ["MCUNET", "RESUNET", "MCLinkNet"])
def test_nothing_beyond_the_reach_matters(model: str) -> None:
    config = small_config(model=model)
    reach = receptive_field(config)
    torch.manual_seed(0)
    network = build_model(config).eval()
    edge = 4 * -(-(reach + 8) // 4)
    image = torch.rand(1, 3, 4, 2 * edge)
    for offset in range(4):
        other = image.clone()
        other[..., edge + offset :] = 0
        with torch.no_grad():
            one, two = network(image)["mask"], network(other)["mask"]
        assert torch.equal(one[..., : edge + offset - reach], two[..., : edge + offset - reach])


def test_a_wider_network_reaches_no_further() -> None:
    wide, narrow = (receptive_field(small_config(init_channel_number=width)) for width in (4, 2))
    assert wide == narrow


def blur(radius: int, strength: int) -> object:
    """A model that adds the far left pixel's `strength`-th part."""

    def run(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        plane = images[..., 0]
        far = np.roll(plane, radius, axis=2)
        far[:, :, :radius] = 0
        return (plane // 2 + far // strength)[:, None]

    return run


@pytest.mark.parametrize(("radius", "exact"), [(0, 0), (5, 8), (8, 8), (21, 24)])
def test_halo_is_the_smallest_multiple_that_agrees(radius: int, exact: int) -> None:
    windows = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 1), np.uint8)
    found = measure(blur(radius, 2), windows, multiple=4, bound=32)  # type: ignore[arg-type]
    assert found.exact == exact
    assert found.near == exact  # the difference is far above one
    assert found.pixels == 3 * 32 * 32


def test_near_allows_few_bytes_off_by_one() -> None:
    def run(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        planes = images.transpose(0, 3, 1, 2).copy()
        middle = images.shape[1] // 2
        if images.shape[1] < 80:
            planes[0, 0, middle, middle] ^= 1
        return planes

    windows = np.full((2, 96, 96, 1), 100, np.uint8)
    found = measure(run, windows, multiple=8, bound=32)
    assert (found.exact, found.near) == (24, 0)
