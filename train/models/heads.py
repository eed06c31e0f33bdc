"""Output heads on the shared decoder: one 1×1 convolution each, logits out.

The method's released code pushes all three losses through one output; here, as in the paper, mask,
boundary and density each have a head of their own and share everything before it.
"""

from __future__ import annotations

from torch import Tensor, nn

#: Heads in the order in which they are exported.
HEADS = ("mask", "boundary", "density")

#: The density head predicts cells per this many pixels, so that its values are near one.
DENSITY_UNIT = 100.0


class Heads(nn.Module):
    """Map decoder features to one logit map for each head."""

    def __init__(self, inputs: int, out_channels: int, heads: tuple[str, ...]) -> None:
        super().__init__()
        widths = {"mask": out_channels, "boundary": 1, "density": 1}
        self.heads = nn.ModuleDict({name: nn.Conv2d(inputs, widths[name], 1) for name in heads})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (N, inputs, H, W) to ``{name: (N, width, H, W)}``."""
        return {name: head(x) for name, head in self.heads.items()}
