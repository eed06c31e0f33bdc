"""Networks of the method, built by the name that a configuration gives."""

from __future__ import annotations

from ..config import TrainConfig
from .nets import UNet, mcunet


def build_model(config: TrainConfig) -> UNet:
    """Build the network that `config` names.

    Its forward maps float images (N, C, H, W) in 0…1 to logits ``{head: (N, width, H, W)}``; H and W
    must be multiples of its attribute ``multiple``.
    """
    return mcunet(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        width=config.init_channel_number,
        depth=config.model_deep,
        interpolate=config.interpolate,
        heads=config.heads,
        norm=config.norm,
        branches=config.M_channel,
        residual=bool(config.M_R),
    )
