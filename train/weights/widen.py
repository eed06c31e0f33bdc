"""Weights of a narrow network for a wider one, which computes the same and has room to learn more.

"Net2Net: Accelerating Learning via Knowledge Transfer" (Chen, Goodfellow and Shlens, ICLR 2016), section 3.1:
new channels are copies of old ones, and what follows takes a share from each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..models.nets import UNet

#: Standard deviation of a copied channel's share in what follows, as a part of its even share.
SPREAD = 0.5


def can_widen(value: Tensor, shape: torch.Size) -> bool:
    """Whether a weight gets a shape by copying channels, or has it."""
    kernel = value.shape[2:] == shape[2:]
    return (
        value.ndim == len(shape) and kernel and all(a <= b for a, b in zip(value.shape, shape, strict=True))
    )


def layout(name: str, model: UNet, config: TrainConfig) -> tuple[int, int]:
    """Return which axis of a weight counts its inputs, and how many tensors these are joined from."""
    module = model.get_submodule(name.rpartition(".")[0])
    if isinstance(module, nn.ConvTranspose2d):
        return 0, 1
    part, level, _ = name.split(".", 2)
    if part == "decoders" and isinstance(module, nn.Conv2d):  # upsampled and skipped features, side by side
        return 1, 2 if module.in_channels == 2 * config.init_channel_number * 2 ** int(level) else 1
    return 1, 1


def widen(value: Tensor, shape: torch.Size, axis: int, joined: int) -> Tensor:
    """Copy channels, in turn, until `value` has a shape; what is summed over copies stays the same.

    The copies of an input share its weight unevenly, for each output in another way: with equal shares
    they would get equal gradients, and stay equal.
    """
    if value.shape == shape:
        return value
    for dim in sorted(range(value.ndim), key=lambda dim: dim == axis):  # the inputs last
        blocks = joined if dim == axis else 1
        old, new = value.shape[dim] // blocks, shape[dim] // blocks
        source = torch.cat([torch.arange(new) % old + block * old for block in range(blocks)])
        value = value.index_select(dim, source)
        if dim == axis and value.ndim > 1:
            share = (1 + SPREAD * torch.randn_like(value)).clamp(min=0.1)
            total = torch.zeros_like(value).narrow(dim, 0, blocks * old).index_add(dim, source, share)
            value = value * share / total.index_select(dim, source)
    return value
