"""The joint loss and its parts, as pure functions of logits and targets.

Every part takes a per-pixel weight (0 for pixels outside the image) and averages over it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .models.heads import DENSITY_UNIT


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def foreground_logit(logits: Tensor) -> Tensor:
    """Logit of the cell class, (N, H, W), from one (sigmoid) or two (softmax) maps.

    softmax((a, b))_1 = sigmoid(b - a), so both kinds of output meet here.
    """
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


def mask_loss(logits: Tensor, target: Tensor, weight: Tensor, dice_weight: float = 1.0) -> Tensor:
    """Cross-entropy plus `dice_weight` × soft Dice.

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
    entropy = _mean(functional.binary_cross_entropy_with_logits(logit, target, reduction="none"), weight)
    p = torch.sigmoid(logit)
    overlap = 2 * (p * target * weight).sum() + 1.0
    dice = 1 - overlap / (((p + target) * weight).sum() + 1.0)
    return entropy + dice_weight * dice


def boundary_loss(
    logits: Tensor, target: Tensor, weight: Tensor, alpha: float = 0.9, gamma: float = 2.0
) -> Tensor:
    """Focal loss, -α_t (1 - p_t)^γ log p_t (Lin et al., ICCV 2017, eq. 5).

    The paper takes α 0.9 for the boundary and γ 2. Shapes as in :func:`mask_loss`, logits (N, 1, H, W).
    """
    logit = logits[:, 0]
    entropy = functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    p_t = torch.exp(-entropy)
    alpha_t = alpha * target + (1 - alpha) * (1 - target)
    return _mean(alpha_t * (1 - p_t) ** gamma * entropy, weight)


def density_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error of the density in cells per :data:`DENSITY_UNIT` pixels.

    `target` is in cells per pixel, (N, H, W); softplus of the logit is the prediction.
    """
    return _mean((density(logits) - target) ** 2 * DENSITY_UNIT**2, weight)


def density(logits: Tensor) -> Tensor:
    """Predicted cells per pixel, (N, H, W), from the density head's logits (N, 1, H, W)."""
    return functional.softplus(logits[:, 0]) / DENSITY_UNIT


@dataclass(frozen=True, slots=True)
class JointLoss:
    """mask + use_corner · boundary + use_density · density (the paper's total)."""

    use_corner: float
    use_density: float
    dice_weight: float = 1.0
    touch_weight: float = 0.0

    def __call__(self, logits: dict[str, Tensor], batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total and the named parts (unweighted, detached).

        `batch` holds ``mask``, ``boundary``, ``density``, ``touch`` and ``valid``, each (N, H, W).
        """
        valid = batch["valid"]
        weight = valid * (1 + self.touch_weight * batch["touch"])
        parts = {"mask": mask_loss(logits["mask"].float(), batch["mask"], weight, self.dice_weight)}
        total = parts["mask"]
        if "boundary" in logits:
            parts["boundary"] = boundary_loss(logits["boundary"].float(), batch["boundary"], weight)
            total = total + self.use_corner * parts["boundary"]
        if "density" in logits:
            parts["density"] = density_loss(logits["density"].float(), batch["density"], valid)
            total = total + self.use_density * parts["density"]
        return total, {name: part.detach() for name, part in parts.items()}
