"""Photometric augmentation of a batch on its device, seeded by the step.

Geometry is drawn with the crop (:mod:`cellseg.train.data`), where it costs one interpolation.
"""

from __future__ import annotations

import torch
from kornia import augmentation as ka
from torch import Tensor, nn


class StainJitter(nn.Module):
    """Scale and shift each optical-density channel a little, as stains and scanners differ.

    Works in optical density, -log(intensity) (Beer–Lambert), on RGB pictures with a bright background
    only; a fluorescence picture, being mostly dark, passes unchanged.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) in 0…1 to the same."""
        n = len(x)
        bright = (x.mean(dim=(1, 2, 3)) > 0.5).view(n, 1, 1, 1)
        gain = 1 + self.strength * (2 * torch.rand(n, 3, 1, 1, device=x.device) - 1)
        jittered = x.clamp(min=1 / 255) ** gain
        return torch.where(bright, jittered, x)


class Photometric(nn.Module):
    """Intensity, contrast, gamma, hue, stain, blur and noise."""

    def __init__(self, strength: float, channels: int) -> None:
        super().__init__()
        s = strength
        steps: list[nn.Module] = []
        if s:
            steps = [
                ka.RandomGamma((1 / (1 + 0.6 * s), 1 + 0.8 * s), (1.0, 1.0), p=0.5),
                ka.ColorJiggle(0.15 * s, 0.25 * s, 0.2 * s, 0.03 * s, p=0.5)
                if channels == 3
                else ka.RandomBrightness((1 - 0.2 * s, 1 + 0.2 * s), p=0.5),
                ka.RandomGaussianBlur((5, 5), (0.3, 1.0 + 0.5 * s), p=0.2),
                ka.RandomGaussianNoise(0.0, 0.03 * s, p=0.3),
            ]
            if channels == 3:
                steps.insert(0, StainJitter(0.25 * s))
        self.steps = nn.ModuleList(steps)

    @torch.no_grad()
    def forward(self, image: Tensor, seed: int) -> Tensor:
        """Map uint8 (N, C, H, W) to float in 0…1; the same seed gives the same result."""
        x = image.float() / 255
        devices = [x.device] if x.is_cuda else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for step in self.steps:
                x = step(x)
        return x.clamp(0, 1)
