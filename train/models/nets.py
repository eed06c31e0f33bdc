"""The networks: an encoder–decoder with one loop over depth, and the table of names users write.

Level i works at 1 / 2**i of the input's size with ``width * 2**i`` channels::

    level 0   encoder ───────────── skip ─────────────▶ decoder ─▶ heads
                 └─ max-pool ─▶ encoder ─ skip ─▶ decoder ─▶ up ─┘
    level 2                 └─ max-pool ─▶ encoder ─▶ up ─┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from cellseg.runtime.errors import ImageError

from ..config import ModelName, TrainConfig
from .blocks import (
    BlockFactory,
    BottleneckBlock,
    ConvRelu,
    LinkUpsample,
    MultiScaleBlock,
    PlainBlock,
    ResidualBlock,
    Upsample,
    stack,
)
from .heads import Heads

#: ``multi`` is the MC block as ``M_channel`` and ``M_R`` say, ``multi-residual`` always with shortcuts.
BlockName = Literal["plain", "residual", "bottleneck", "conv", "stem", "multi", "multi-residual"]


@dataclass(frozen=True, slots=True)
class Design:
    """What makes one network differ from the next."""

    #: Block of the encoders and how many of them stand at each level; the last number repeats.
    encoder: BlockName
    counts: tuple[int, ...] = (1,)
    #: Block of the first level, where it is another one.
    first: BlockName | None = None
    #: Block of the decoders.
    decoder: BlockName = "plain"
    #: How a skip joins the decoder: by concatenation, or by addition as in LinkNet.
    join: Literal["concatenate", "add"] = "concatenate"


#: Blocks per level of VGG-19, ResNet-34/50 and ResNet-101 behind their first convolution. The method
#: puts ResNet's first two groups (3 + 4 blocks) on one level, after the only pooling.
VGG19, RESNET50, RESNET101 = (2, 2, 4), (1, 7, 6, 3), (1, 7, 23, 3)

#: Every ``model`` a configuration may name. The ResNets' strided convolutions are max-pools here, so
#: that one loop serves all; nothing is pretrained.
DESIGNS: dict[ModelName, Design] = {
    "MCUNET": Design("multi", decoder="multi"),
    "UNET": Design("plain"),
    "RESUNET": Design("residual", decoder="residual"),
    "Res50EncodeUNet": Design("bottleneck", RESNET50, first="stem"),
    "RES101EncodeUNet": Design("bottleneck", RESNET101, first="stem"),
    "VGGEncodeUnet": Design("conv", VGG19),
    "MCVGGEncodeUnet": Design("multi", VGG19),
    "LinkNet": Design("residual", RESNET50, first="stem", join="add"),
    "MCLinkNet": Design("multi-residual", RESNET50, first="stem", join="add"),
}


class UNet(nn.Module):
    """U-shaped network as a :class:`Design` and a configuration say.

    Parameters
    ----------
    config
        Its keys of the network: ``model``, channels, ``init_channel_number`` (the width), ``model_deep``
        (poolings), ``norm``, ``interpolate``, ``M_channel``, ``M_R``, heads.

    Attributes
    ----------
    multiple
        Height and width of the input must be multiples of this, two to the power of the depth.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        design = DESIGNS[config.model]
        blocks = _blocks(config)
        depth, norm = config.model_deep, config.norm
        widths = [config.init_channel_number * 2**level for level in range(depth + 1)]
        steps = list(pairwise(widths))  # (narrow, wide) between levels
        add = design.join == "add"
        self.name, self.multiple, self.add = config.model, 2**depth, add

        inputs = [config.in_channels, *widths]
        # Encoder blocks have half their output as middle width, decoder blocks all of it.
        self.encoders = nn.ModuleList(
            stack(
                blocks[design.first or design.encoder if level == 0 else design.encoder],
                _at(design.counts, level),
                inputs[level],
                max(width // 2, inputs[level]),
                width,
            )
            for level, width in enumerate(widths)
        )
        self.ups = nn.ModuleList(
            LinkUpsample(wide, narrow, config.interpolate, norm)
            if add
            else Upsample(wide, narrow, config.interpolate)
            for narrow, wide in steps
        )
        self.decoders = nn.ModuleList(
            nn.Identity() if add else blocks[design.decoder](2 * narrow, narrow, narrow)
            for narrow, _ in steps
        )
        self.heads = Heads(widths[0], 1 if config.final_sigmoid else config.out_channels, config.outputs)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map an image (N, C, H, W) in 0…1 to logits ``{head: (N, width, H, W)}``.

        Raises
        ------
        ImageError
            H or W is not a multiple of :attr:`multiple`.
        """
        if not torch.compiler.is_compiling():  # a graph has no fixed size
            self._check(x.shape)
        skips: list[Tensor] = []
        for level, encoder in enumerate(self.encoders):
            if level:
                skips.append(x)
                x = nn.functional.max_pool2d(x, 2)  # (N, C, H / 2**level, W / 2**level)
            x = encoder(x)
        for up, decoder, skip in zip(
            reversed(self.ups), reversed(self.decoders), reversed(skips), strict=True
        ):
            x = up(x)
            x = decoder(skip + x if self.add else torch.cat((skip, x), dim=1))
        out: dict[str, Tensor] = self.heads(x)
        return out

    def _check(self, shape: torch.Size) -> None:
        height, width = shape[-2:]
        if height % self.multiple or width % self.multiple or not height or not width:
            fit = [max(1, -(-edge // self.multiple)) * self.multiple for edge in (height, width)]
            raise ImageError(
                f"{self.name}: got an image of {height}×{width} pixels, wants multiples of {self.multiple}; "
                f"pad it to {fit[0]}×{fit[1]}"
            )


def _at(counts: Sequence[int], level: int) -> int:
    return counts[min(level, len(counts) - 1)]


def _blocks(config: TrainConfig) -> dict[BlockName, BlockFactory]:
    norm = config.norm
    multi = partial(MultiScaleBlock, norm=norm, branches=config.M_channel)
    return {
        "plain": partial(PlainBlock, norm=norm),
        "residual": partial(ResidualBlock, norm=norm),
        "bottleneck": partial(BottleneckBlock, norm=norm),
        "conv": partial(ConvRelu, norm=norm),
        "stem": partial(ConvRelu, norm=norm, kernel=7),
        "multi": partial(multi, residual=bool(config.M_R)),
        "multi-residual": partial(multi, residual=True),
    }
