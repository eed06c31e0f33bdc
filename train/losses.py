"""The joint loss and its parts, as pure functions of logits and targets.

Every part takes a per-pixel weight (0 for pixels outside the image) and averages over it. Every sum
over pixels goes through `total`, so that several processes, each with a share of the batch, can add
theirs up and get the loss of the whole batch, not a mean of means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cellseg.runtime.model.spec import HeadName

from .config import TrainConfig
from .models.heads import DENSITY_UNIT, density, foreground_logit

__all__ = ["JointLoss", "boundary_loss", "density", "density_loss", "foreground_logit", "mask_loss"]


#: Sums a tensor of any shape to a scalar, over all processes.
Total = Callable[[Tensor], Tensor]


def _mean(values: Tensor, weight: Tensor, total: Total) -> Tensor:
    return total(values * weight) / total(weight).clamp(min=1.0)


def mask_loss(
    logits: Tensor, target: Tensor, weight: Tensor, dice_weight: float = 1.0, total: Total = torch.sum
) -> Tensor:
    """Cross-entropy, -Σ t log p, plus `dice_weight` × soft Dice.

    Dice is 1 - 2 Σpt / (Σp + Σt) (Milletari et al., "V-Net", 3DV 2016, with plain sums), over the batch.

    Parameters
    ----------
    logits
        (N, 1 or 2, H, W).
    target
        (N, H, W), 1 in cells.
    weight
        (N, H, W).
    """
    logit = foreground_logit(logits)
    entropy = functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    p = torch.sigmoid(logit)
    overlap = 2 * total(p * target * weight) + 1.0
    dice = 1 - overlap / (total((p + target) * weight) + 1.0)
    return _mean(entropy, weight, total) + dice_weight * dice


def boundary_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    alpha: float = 0.9,
    gamma: float = 2.0,
    total: Total = torch.sum,
) -> Tensor:
    """Focal loss, -α_t (1 - p_t)^γ log p_t (Lin et al., ICCV 2017, eq. 5).

    The paper takes α 0.9 for the boundary and γ 2. Shapes as in :func:`mask_loss`, logits (N, 1, H, W).
    """
    logit = logits[:, 0]
    entropy = functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    p_t = torch.exp(-entropy)
    alpha_t = alpha * target + (1 - alpha) * (1 - target)
    return _mean(alpha_t * (1 - p_t) ** gamma * entropy, weight, total)


def density_loss(
    logits: Tensor, target: Tensor, weight: Tensor, power: float = 1.0, total: Total = torch.sum
) -> Tensor:
    """Mean squared error of the density in cells per :data:`DENSITY_UNIT` pixels, to the `power`.

    A cell of radius r has a density near 1 / r² on r² pixels. So at power 1, the paper's, being wrong by
    a tenth costs 1 / r² of what it costs at r = 1, and large cells teach nothing; at power 0.5 it costs
    the same for every cell (the root is what steadies the variance of counts: Bartlett, "The square root
    transformation in analysis of variance", 1936).

    `target` is in cells per pixel, (N, H, W); softplus of the logit is the prediction.
    """
    predicted, wanted = density(logits) * DENSITY_UNIT, target * DENSITY_UNIT
    if power != 1.0:  # at zero a root has no slope
        predicted, wanted = predicted.clamp(min=1e-9) ** power, wanted**power
    return _mean((predicted - wanted) ** 2, weight, total)


def edge_logits(logits: Tensor) -> Tensor:
    """Return the boundary that a mask's probability p draws, as logits (N, 1, H, W).

    It is p's morphological gradient over 3×3 pixels, the largest p there less the smallest (Rivest, Soille
    and Beucher, "Morphological gradients", J. Electronic Imaging 1993): one along a sharp edge, on the two
    pixels that a boundary of width one takes, and nothing elsewhere.
    """
    p = torch.sigmoid(foreground_logit(logits))[:, None]
    largest = functional.max_pool2d(p, 3, stride=1, padding=1)
    smallest = -functional.max_pool2d(-p, 3, stride=1, padding=1)
    return torch.logit(largest - smallest, eps=1e-4)


@dataclass(frozen=True, slots=True)
class JointLoss:
    """mask + use_corner · boundary + use_density · density (the paper's total).

    A pixel counts ``1 + emphasis`` times in mask and boundary. Where heads are not separate, the mask's
    output stands for all: its edges for the boundary, its logit for the density's.
    """

    use_corner: float
    use_density: float
    dice_weight: float = 1.0
    density_power: float = 1.0
    total: Total = torch.sum
    #: What else is learned on the mask's output.
    on_mask: tuple[HeadName, ...] = ()

    @classmethod
    def of(cls, config: TrainConfig, total: Total = torch.sum) -> JointLoss:
        """Return the loss that `config` describes."""
        return cls(
            config.use_corner,
            config.use_density,
            config.dice_weight,
            config.density_power,
            total,
            config.heads[len(config.outputs) :],
        )

    def __call__(
        self, logits: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total and the named parts (unweighted, detached).

        `batch` holds ``mask``, ``boundary``, ``density``, ``emphasis`` and ``valid``, each (N, H, W).
        """
        valid = batch["valid"]
        weight = valid * (1 + batch["emphasis"])
        mask = logits["mask"].float()
        parts = {"mask": mask_loss(mask, batch["mask"], weight, self.dice_weight, self.total)}
        joint = parts["mask"]
        if "boundary" in logits or "boundary" in self.on_mask:
            boundary = edge_logits(mask) if "boundary" in self.on_mask else logits["boundary"].float()
            parts["boundary"] = boundary_loss(boundary, batch["boundary"], weight, total=self.total)
            joint = joint + self.use_corner * parts["boundary"]
        if "density" in logits or "density" in self.on_mask:
            density = (
                foreground_logit(mask)[:, None] if "density" in self.on_mask else logits["density"].float()
            )
            parts["density"] = density_loss(density, batch["density"], valid, self.density_power, self.total)
            joint = joint + self.use_density * parts["density"]
        return joint, {name: part.detach() for name, part in parts.items()}
