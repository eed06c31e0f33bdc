"""Output heads on the shared decoder: one 1×1 convolution each, logits out, and what the logits mean.

The method's released code pushes all three losses through one output; here, as in the paper, mask,
boundary and density each have a head of their own and share everything before it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cellseg.runtime.model.spec import Head

#: The density head predicts cells per this many pixels, so that its values are near one.
DENSITY_UNIT = 100.0

#: How each head's values are stored in a byte. Density (cells per pixel) reaches 0.64 / r² at the
#: centre of a cell of radius r pixels; 0.1 keeps cells down to r = 2.5 below saturation.
ENCODINGS = {
    "mask": Head(name="mask"),
    "boundary": Head(name="boundary"),
    "density": Head(name="density", full_scale=0.1, power=2.0),
}


class Heads(nn.Module):
    """Map decoder features to one logit map for each head."""

    def __init__(self, inputs: int, out_channels: int, heads: tuple[str, ...]) -> None:
        super().__init__()
        widths = {"mask": out_channels, "boundary": 1, "density": 1}
        self.heads = nn.ModuleDict({name: nn.Conv2d(inputs, widths[name], 1) for name in heads})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (N, inputs, H, W) to ``{name: (N, width, H, W)}``."""
        return {name: head(x) for name, head in self.heads.items()}


def foreground_logit(logits: Tensor) -> Tensor:
    """Logit of the cell class, (N, H, W), from one (sigmoid) or two (softmax) maps.

    softmax((a, b))_1 = sigmoid(b - a), so both kinds of output meet here, and the cross-entropy of the
    softmax is the binary one of this difference.
    """
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


def density(logits: Tensor) -> Tensor:
    """Predicted cells per pixel, (N, H, W), from the density head's logits (N, 1, H, W)."""
    return functional.softplus(logits[:, 0]) / DENSITY_UNIT


def to_planes(logits: dict[str, Tensor]) -> Tensor:
    """Encode every head as the runtime gets it from an engine.

    Parameters
    ----------
    logits
        ``{head: (N, width, H, W)}`` as a network returns them.

    Returns
    -------
    uint8 (N, K, H, W), one plane for each head, in the order given; see :data:`ENCODINGS`.
    """
    planes = []
    for name, logit in logits.items():
        head = ENCODINGS[name]
        if name == "density":
            value = density(logit.float())
        else:
            value = torch.sigmoid(foreground_logit(logit.float()))
        scaled = (value / head.full_scale).clamp(0, 1) ** (1 / head.power)
        planes.append(torch.round(scaled * 255).to(torch.uint8))
    return torch.stack(planes, dim=1)
