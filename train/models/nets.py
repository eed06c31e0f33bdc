"""The networks: an encoder–decoder with one loop over depth, and the table of names users write."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .blocks import BlockFactory, MultiScaleBlock, Norm, PlainBlock, ResidualBlock, Upsample
from .heads import Heads


class UNet(nn.Module):
    """U-shaped network over any block: `depth` poolings, skips by concatenation.

    Level i has ``width * 2**i`` channels. Encoder blocks have half their output as middle width,
    decoder blocks all of it.
    """

    def __init__(
        self,
        block: BlockFactory,
        *,
        in_channels: int,
        out_channels: int,
        width: int,
        depth: int,
        interpolate: bool,
        heads: tuple[str, ...],
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.multiple = 2**depth
        self.encoders = nn.ModuleList(
            block(inputs, max(outputs // 2, inputs), outputs)
            for inputs, outputs in zip([in_channels, *widths], widths, strict=False)
        )
        self.ups = nn.ModuleList(
            Upsample(wide, narrow, interpolate) for narrow, wide in zip(widths, widths[1:], strict=False)
        )
        self.decoders = nn.ModuleList(block(2 * narrow, narrow, narrow) for narrow in widths[:-1])
        self.heads = Heads(width, out_channels, heads)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map an image (N, C, H, W) in 0…1 to logits ``{head: (N, width, H, W)}``."""
        skips: list[Tensor] = []
        for level, encoder in enumerate(self.encoders):
            if level:
                skips.append(x)
                x = nn.functional.max_pool2d(x, 2)  # (N, C, H / 2**level, W / 2**level)
            x = encoder(x)
        for up, decoder, skip in zip(reversed(self.ups), reversed(self.decoders), reversed(skips), strict=True):
            x = decoder(torch.cat((skip, up(x)), dim=1))
        out: dict[str, Tensor] = self.heads(x)
        return out


def mcunet(
    *,
    in_channels: int,
    out_channels: int,
    width: int,
    depth: int,
    interpolate: bool,
    heads: tuple[str, ...],
    norm: Norm,
    branches: int,
    residual: bool,
) -> UNet:
    """MC-UNet of the paper."""
    return UNet(
        partial(MultiScaleBlock, norm=norm, branches=branches, residual=residual),
        in_channels=in_channels,
        out_channels=out_channels,
        width=width,
        depth=depth,
        interpolate=interpolate,
        heads=heads,
    )
