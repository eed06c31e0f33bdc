"""Building blocks of every network of the method; channels and sizes are computed, never written out.

Shapes are (N, C, H, W). Nothing here knows about heads, losses or depth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["batch", "group"]


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Return the normalisation of `channels` feature maps.

    ``group`` is one group over all channels, as the original code has it: its statistics span the
    whole input, so the output of a pixel depends on pixels arbitrarily far away and tiles cannot
    agree. ``batch`` has fixed statistics at inference and folds into the convolution before it.
    """
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels)


def conv(norm: Norm, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return convolution (same padding, no bias: the norm has one) and norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        norm_layer(norm, outputs),
    )


class DoubleConv(nn.Sequential):
    """conv–norm–ReLU–conv–norm with one kernel size; the ReLU after it belongs to the caller."""

    def __init__(self, inputs: int, mid: int, outputs: int, kernel: int, norm: Norm) -> None:
        super().__init__(
            conv(norm, inputs, mid, kernel), nn.ReLU(inplace=True), conv(norm, mid, outputs, kernel)
        )


class PlainBlock(nn.Module):
    """Double convolution of the U-Net (Ronneberger et al., MICCAI 2015), kernel 3."""

    def __init__(self, inputs: int, mid: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.body = DoubleConv(inputs, mid, outputs, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        return torch.relu(self.body(x))


class ResidualBlock(nn.Module):
    """Double convolution plus a shortcut (He et al., CVPR 2016), projected where the width changes."""

    def __init__(self, inputs: int, mid: int, outputs: int, norm: Norm, kernel: int = 3) -> None:
        super().__init__()
        self.body = DoubleConv(inputs, mid, outputs, kernel, norm)
        self.shortcut = nn.Identity() if inputs == outputs else conv(norm, inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        return torch.relu(self.body(x) + self.shortcut(x))


class MultiScaleBlock(nn.Module):
    """The MC block: double convolutions with kernels 1, 3 (and 5) in parallel, summed, then ReLU.

    Joint Feature Learning for Cell Segmentation Based on Multi-scale Convolutional U-Net
    (BIBM 2022). `branches` is the method's ``M_channel``: 3 for kernels 1, 3 and 5, 2 for 1 and 3;
    `residual` is its ``M_R``, which gives every branch a shortcut.
    """

    def __init__(
        self, inputs: int, mid: int, outputs: int, norm: Norm, branches: int = 3, residual: bool = False
    ) -> None:
        super().__init__()
        kernels = [2 * i + 1 for i in range(branches)]
        self.branches = nn.ModuleList(
            ResidualBlock(inputs, mid, outputs, norm, kernel)
            if residual
            else DoubleConv(inputs, mid, outputs, kernel, norm)
            for kernel in kernels
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        total = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        return torch.relu(total)


#: Makes a block from (inputs, mid, outputs).
BlockFactory = Callable[[int, int, int], nn.Module]


class Upsample(nn.Module):
    """×2 upsampling: learned (transposed convolution) or bilinear followed by a 1×1 convolution."""

    def __init__(self, inputs: int, outputs: int, interpolate: bool) -> None:
        super().__init__()
        self.up: nn.Module
        if interpolate:
            self.up = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            )
        else:
            self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, 2H, 2W)."""
        out: Tensor = self.up(x)
        return out
