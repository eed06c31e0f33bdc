"""Every loss is zero at its perfect prediction, rises with the error, and matches its equation."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellseg.train.config import parse
from cellseg.train.data.targets import boundary_band
from cellseg.train.losses import JointLoss, boundary_loss, density_loss, edge_logits, mask_loss
from cellseg.train.models.heads import DENSITY_UNIT

TARGET = torch.tensor([[[0.0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0]]])
WEIGHT = torch.ones_like(TARGET)


def logit(p: Tensor) -> Tensor:
    return torch.logit(p.clamp(1e-30, 1), eps=None)


def two_maps(logits: Tensor) -> Tensor:
    return torch.stack((-logits / 2, logits / 2), dim=1)


@pytest.mark.parametrize("maps", [1, 2])
def test_mask_loss_is_zero_when_right_and_rises_with_doubt(maps: int) -> None:
    sign = 2 * TARGET - 1

    def loss(margin: float) -> float:
        logits = sign * margin
        return float(mask_loss(logits[:, None] if maps == 1 else two_maps(logits), TARGET, WEIGHT))

    values = [loss(margin) for margin in (100.0, 4.0, 1.0, 0.0, -1.0, -4.0)]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values == sorted(values)
    assert len(set(values)) == len(values)


def test_mask_loss_is_cross_entropy_plus_dice() -> None:
    p = torch.full_like(TARGET, 0.3)
    entropy = -np.where(TARGET.numpy() > 0, np.log(0.3), np.log(0.7)).mean()
    n, t = TARGET.numel(), float(TARGET.sum())
    dice = 1 - (2 * 0.3 * t + 1) / (0.3 * n + t + 1)
    assert float(mask_loss(logit(p)[:, None], TARGET, WEIGHT, 0.0)) == pytest.approx(entropy, rel=1e-5)
    assert float(mask_loss(logit(p)[:, None], TARGET, WEIGHT, 2.0)) == pytest.approx(
        entropy + 2 * dice, rel=1e-5
    )


def test_softmax_over_two_maps_is_the_sigmoid_of_their_difference() -> None:
    logits = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(logits, TARGET.long())
    assert float(mask_loss(logits, TARGET, WEIGHT, 0.0)) == pytest.approx(float(expected), rel=1e-5)


def test_boundary_loss_is_zero_when_right_and_rises_with_the_error() -> None:
    values = [
        float(boundary_loss(((2 * TARGET - 1) * margin)[:, None], TARGET, WEIGHT))
        for margin in (100.0, 3.0, 1.0, 0.0, -1.0, -3.0)
    ]
    assert values[0] == 0
    assert values == sorted(values)
    assert len(set(values)) == len(values)


def test_a_wrong_place_costs_more_than_the_right_one() -> None:
    """The original flattens prediction and target in different orders: 1.126 when right, 1.131 inverted."""
    right = boundary_loss(((2 * TARGET - 1) * 5)[:, None], TARGET, WEIGHT)
    moved = boundary_loss(((2 * TARGET.roll(1, 2) - 1) * 5)[:, None], TARGET, WEIGHT)
    inverted = boundary_loss(((1 - 2 * TARGET) * 5)[:, None], TARGET, WEIGHT)
    assert right < 0.001 < moved < inverted


def test_boundary_loss_is_the_focal_equation() -> None:
    p = torch.full_like(TARGET, 0.2)
    positive, negative = -0.9 * 0.8**2 * np.log(0.2), -0.1 * 0.2**2 * np.log(0.8)
    expected = np.where(TARGET.numpy() > 0, positive, negative).mean()
    assert float(boundary_loss(logit(p)[:, None], TARGET, WEIGHT)) == pytest.approx(expected, rel=1e-5)


def test_density_loss_is_zero_when_right_and_grows_with_the_square() -> None:
    wanted = TARGET * 0.02

    def loss(offset: float) -> float:
        value = ((wanted + offset) * DENSITY_UNIT).clamp(min=1e-12)
        inverse_softplus = value + torch.log(-torch.expm1(-value))
        return float(density_loss(inverse_softplus[:, None], wanted, WEIGHT))

    assert loss(0.0) == pytest.approx(0, abs=1e-10)
    assert loss(0.01) == pytest.approx(1.0, rel=1e-3)  # (0.01 · 100)²
    assert loss(0.02) == pytest.approx(4.0, rel=1e-3)


def test_at_half_the_power_every_size_of_cell_costs_the_same() -> None:
    """A cell of radius r: 1 / r² cells a pixel, on r² pixels, wrong by a tenth."""

    def cost(radius: int, power: float) -> float:
        wanted = torch.full((1, radius, radius), radius**-2.0)
        value = 1.1 * wanted * DENSITY_UNIT
        logits = value + torch.log(-torch.expm1(-value))
        return float(density_loss(logits[:, None], wanted, torch.ones_like(wanted), power)) * radius**2

    assert cost(4, 0.5) == pytest.approx(cost(20, 0.5), rel=1e-3)
    assert cost(4, 1.0) == pytest.approx(25 * cost(20, 1.0), rel=1e-3)


def test_a_power_of_the_density_has_a_gradient_everywhere() -> None:
    logits = torch.tensor([-200.0, -20.0, 0.0, 20.0]).view(1, 1, 1, 4).requires_grad_()
    density_loss(logits, torch.zeros(1, 1, 4), torch.ones(1, 1, 4), 0.5).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", [mask_loss, boundary_loss, density_loss])
def test_pixels_without_weight_do_not_count(loss) -> None:
    logits = torch.randn(1, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    weight = WEIGHT.clone()
    weight[..., 2:] = 0
    half = loss(logits[..., :2], TARGET[..., :2], WEIGHT[..., :2])
    torch.testing.assert_close(loss(logits, TARGET, weight), half)
    assert torch.isfinite(loss(logits, TARGET, torch.zeros_like(weight)))


def batch() -> dict[str, Tensor]:
    planes = {name: TARGET.clone() for name in ("mask", "boundary", "emphasis")}
    return {**planes, "density": TARGET * 0.02, "valid": WEIGHT}


def test_total_is_the_weighted_sum_of_the_heads_that_are_there() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = {name: torch.randn(1, 1, 3, 4, generator=generator) for name in ("mask", "boundary", "density")}
    total, parts = JointLoss(use_corner=0.15, use_density=3.0)(logits, batch())
    assert set(parts) == {"mask", "boundary", "density"}
    expected = parts["mask"] + 0.15 * parts["boundary"] + 3.0 * parts["density"]
    torch.testing.assert_close(total, expected)
    alone, parts = JointLoss(use_corner=0.15, use_density=3.0)({"mask": logits["mask"]}, batch())
    assert set(parts) == {"mask"}
    torch.testing.assert_close(alone, parts["mask"])


def disc(radius: int = 6, edge: int = 24) -> NDArray[np.uint16]:
    y, x = np.ogrid[:edge, :edge]
    return ((y - edge // 2) ** 2 + (x - edge // 2) ** 2 <= radius**2).astype(np.uint16)


def test_edges_of_a_sharp_mask_are_its_boundary() -> None:
    labels = disc()
    wanted = torch.from_numpy(boundary_band(labels, 1)).float()[None]
    edges = torch.sigmoid(edge_logits(torch.from_numpy(40.0 * labels - 20)[None, None].float()))[:, 0]
    torch.testing.assert_close(edges, wanted, atol=1e-3, rtol=0)


def test_one_output_learns_every_loss() -> None:
    """As the method's released code has it, but with a boundary loss that is least where it is right."""
    config = parse({"separate_heads": False, "use_corner": 2.0, "use_density": 1.0}, "")
    assert (config.heads, config.outputs) == (("mask", "boundary", "density"), ("mask",))
    labels = disc()
    mask = torch.from_numpy(labels.astype(np.float32))[None]
    planes = {
        "mask": mask,
        "boundary": torch.from_numpy(boundary_band(labels, 1)).float()[None],
        "emphasis": torch.zeros_like(mask),
        "density": mask / mask.sum(),
        "valid": torch.ones_like(mask),
    }
    loss = JointLoss.of(config)
    right, parts = loss({"mask": (40 * mask - 20)[:, None]}, planes)
    inverted, wrong = loss({"mask": (20 - 40 * mask)[:, None]}, planes)
    shifted, moved = loss({"mask": (40 * mask.roll(3, -1) - 20)[:, None]}, planes)
    assert set(parts) == {"mask", "boundary", "density"}
    torch.testing.assert_close(right, parts["mask"] + 2 * parts["boundary"] + parts["density"])
    assert parts["boundary"] < 1e-3 < moved["boundary"]
    assert wrong["density"] > parts["density"]
    assert right < shifted < inverted
    logits = torch.zeros(1, 1, 24, 24, requires_grad=True)
    loss({"mask": logits}, planes)[0].backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.any()


def test_emphasis_raises_the_price_of_a_pixel() -> None:
    wrong_there = {"mask": torch.full((1, 1, 3, 4), -3.0)}
    cheap, _ = JointLoss(0, 0)(wrong_there, {**batch(), "emphasis": torch.zeros_like(TARGET)})
    dear, _ = JointLoss(0, 0)(wrong_there, {**batch(), "emphasis": 4 * TARGET})
    assert dear > cheap
