"""How far a pixel can see: by theory from the architecture, and as measured on real tiles.

The theoretical reach bounds every network of a kind; a trained one uses less of it, and every pixel
of halo is computed and thrown away. So the halo is measured: the smallest at which the bytes of a
core are those of the whole image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellseg.train.config import TrainConfig
from cellseg.train.models import build_model

Bytes = NDArray[np.uint8]
#: Edge of the compared cores in pixels.
CORE = 256
#: At the "near" halo no byte differs by more than one, and this share of them at most.
NEAR_SHARE = 1e-3


def receptive_field(config: TrainConfig) -> int:
    """Return the pixels on one side that can reach an output pixel, the worst place within a pooling window.

    For MC-UNet of depth d whose blocks reach r pixels (two convolutions, largest kernel 2k + 1: r = 2k)
    it is at most r (2^(d+1) − 1) in the encoder, r (2^d − 1) in the decoder and 2^d − 1 by pooling, less
    where these cannot fall together. Here it is probed, which is exact and holds for every
    architecture: with all weights positive no influence cancels, so an output is positive exactly where
    it can see the positive half of an input that is zero elsewhere.
    Global norms are left out; they reach everywhere and no halo holds them.
    """
    network = build_model(config.model_copy(update={"init_channel_number": 2})).double().eval()
    _make_positive(network)
    multiple = network.multiple
    width = 64 * multiple
    while True:
        reach = max(
            _reach(network, config.in_channels, multiple, width, offset)
            for offset in sorted({0, 1 % multiple, multiple // 2, multiple - 1})
        )
        if reach < width // 2:
            return reach
        width *= 2


def _make_positive(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.GroupNorm):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.constant_(child.weight, 1 / child.weight[0].numel())
                if child.bias is not None:
                    nn.init.zeros_(child.bias)


@torch.inference_mode()
def _reach(network: nn.Module, channels: int, height: int, width: int, offset: int) -> int:
    edge = width // 2 + offset
    image = torch.zeros(1, channels, height, width, dtype=torch.float64)
    image[..., edge:] = 1.0
    seen = network(image)["mask"][0, -1].amax(dim=0) > 0
    return edge - int(torch.nonzero(seen)[0])


@dataclass(frozen=True, slots=True)
class Halo:
    """Halos in pixels, multiples of the model's ``multiple``."""

    #: Smallest at which every compared byte equals the whole image's.
    exact: int
    #: Smallest at which none differs by more than one, and :data:`NEAR_SHARE` of them at most.
    near: int
    #: Compared pixels.
    pixels: int


def measure(run: Callable[[Bytes], Bytes], windows: Bytes, multiple: int, bound: int) -> Halo:
    """Find the halo of a model on real windows.

    Parameters
    ----------
    run
        Maps uint8 (n, T, T, C) to planes uint8 (n, K, T, T).
    windows
        uint8 (n, CORE + 2 · bound, CORE + 2 · bound, C).
    bound
        The theoretical reach, rounded up to a multiple: windows of this halo are the whole image.
    """
    core = windows.shape[1] - 2 * bound
    whole = _inner(run(windows), bound).astype(np.int16)

    def agrees(halo: int, near: bool) -> bool:
        cut = bound - halo
        tiles = np.ascontiguousarray(windows[:, cut : cut + core + 2 * halo, cut : cut + core + 2 * halo])
        difference = np.abs(_inner(run(tiles), halo) - whole)
        if near:
            return int(difference.max()) <= 1 and float((difference > 0).mean()) <= NEAR_SHARE
        return not difference.any()

    def smallest(near: bool, low: int, high: int) -> int:
        """Bisect over multiples; `high` is known to agree."""
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if agrees(middle * multiple, near) else (middle + 1, high)
        return high

    exact = smallest(False, 0, bound // multiple)
    near = smallest(True, 0, exact)
    return Halo(exact * multiple, near * multiple, len(windows) * core**2)


def _inner(planes: Bytes, halo: int) -> Bytes:
    size = planes.shape[-1]
    return planes[..., halo : size - halo, halo : size - halo]
