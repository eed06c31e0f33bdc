"""Building blocks of every network of the method; channels and sizes are computed, never written out.

Shapes are (N, C, H, W), sizes never change inside a block. Nothing here knows about heads, losses or
depth.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["batch", "group"]

#: Makes a block from its input, middle and output widths.
BlockFactory = Callable[[int, int, int], nn.Module]


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Return the normalisation of `channels` feature maps.

    ``group`` is one group over all channels, as the original code has it: its statistics span the
    whole input, so the output of a pixel depends on pixels arbitrarily far away and tiles cannot
    agree. ``batch`` has fixed statistics at inference and folds into the convolution before it.
    """
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels)


def conv(norm: Norm, inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Return convolution (same padding, no bias: the norm has one) and norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), norm_layer(norm, outputs)
    )


def normed(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of every convolution with a batch norm right behind it, and of that."""
    for parent, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            prefix = f"{parent}." if parent else ""
            for (first, before), (second, norm) in itertools.pairwise(module.named_children()):
                if isinstance(before, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
                    yield prefix + first, prefix + second


class ConvRelu(nn.Sequential):
    """conv–norm–ReLU, the step of VGG (Simonyan and Zisserman, ICLR 2015) and the stem of ResNet."""

    def __init__(self, inputs: int, mid: int, outputs: int, norm: Norm, kernel: int = 3) -> None:
        super().__init__(conv(norm, inputs, outputs, kernel), nn.ReLU(inplace=True))


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


class Residual(nn.Module):
    """Any body plus a shortcut (He et al., CVPR 2016), projected where the width changes; then ReLU."""

    def __init__(self, body: nn.Module, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if inputs == outputs else conv(norm, inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResidualBlock(Residual):
    """Double convolution plus a shortcut: the block of ResNet-18 and ResNet-34."""

    def __init__(self, inputs: int, mid: int, outputs: int, norm: Norm, kernel: int = 3) -> None:
        super().__init__(DoubleConv(inputs, mid, outputs, kernel, norm), inputs, outputs, norm)


class BottleneckBlock(Residual):
    """1×1, 3×3, 1×1 convolutions through a quarter of the width, plus a shortcut: ResNet-50 and deeper."""

    def __init__(self, inputs: int, mid: int, outputs: int, norm: Norm) -> None:
        narrow = max(1, outputs // 4)
        body = nn.Sequential(
            ConvRelu(inputs, narrow, narrow, norm, kernel=1),
            ConvRelu(narrow, narrow, narrow, norm),
            conv(norm, narrow, outputs, 1),
        )
        super().__init__(body, inputs, outputs, norm)


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


def stack(block: BlockFactory, count: int, inputs: int, mid: int, outputs: int) -> nn.Module:
    """Return `count` blocks in a row; the first changes the width."""
    if count == 1:
        return block(inputs, mid, outputs)
    return nn.Sequential(
        block(inputs, mid, outputs), *(block(outputs, outputs, outputs) for _ in range(count - 1))
    )


class Upsample(nn.Module):
    """×2 upsampling: learned (transposed convolution), or bilinear after a 1×1 convolution.

    A norm, where wanted, follows the convolution directly, so that it folds; it commutes with the
    interpolation because both are affine.
    """

    def __init__(self, inputs: int, outputs: int, interpolate: bool, norm: Norm | None = None) -> None:
        super().__init__()
        norms = [] if norm is None else [norm_layer(norm, outputs)]
        self.up: nn.Module
        if interpolate:
            double = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            self.up = nn.Sequential(nn.Conv2d(inputs, outputs, 1), *norms, double)
        else:
            transposed = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
            self.up = nn.Sequential(transposed, *norms) if norms else transposed

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, 2H, 2W)."""
        out: Tensor = self.up(x)
        return out


class LinkUpsample(nn.Sequential):
    """LinkNet's decoder (Chaurasia and Culurciello, VCIP 2017): narrow to a quarter, double, widen."""

    def __init__(self, inputs: int, outputs: int, interpolate: bool, norm: Norm) -> None:
        narrow = max(1, inputs // 4)
        super().__init__(
            ConvRelu(inputs, narrow, narrow, norm, kernel=1),
            Upsample(narrow, narrow, interpolate, norm),
            nn.ReLU(inplace=True),
            ConvRelu(narrow, outputs, outputs, norm, kernel=1),
        )
