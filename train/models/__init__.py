"""Networks of the method, built by the name that a configuration gives."""

from __future__ import annotations

from ..config import TrainConfig
from .nets import UNet


def build_model(config: TrainConfig) -> UNet:
    """Build the network that `config` names.

    Its forward maps float images (N, C, H, W) in 0…1 to logits ``{head: (N, width, H, W)}``; H and W
    must be multiples of its attribute ``multiple``.
    """
    return UNet(config)
