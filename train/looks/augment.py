"""Photometric augmentation of a batch on its device.

How a crop is to look is drawn with the crop, from its own seed (:func:`draw_look`), and applied to
the whole batch at once (:func:`photometric`). So a crop looks the same whichever crops share its
batch, which makes resuming exact and lets two processes agree with one that has twice the batch.
kornia's augmentations draw for a whole batch from the global generator, and take several times as
long for such changes, because each is a pass of its own. Geometry is drawn in
:mod:`cellseg.train.data.placement`, where it costs one interpolation.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .stains import STAINS, draw_stains, move_stains, render

# Where a look has what: exponents of the three channels for bright pictures and one for dark ones, a colour
# matrix row by row, an offset, sigmas of blur and noise, the seed of noise and textures, the stains.
EXPONENTS, GAMMA, MATRIX, OFFSET = slice(0, 3), 3, slice(4, 13), 13
BLUR, NOISE, SEED, STAINED = 14, 15, 16, slice(17, 17 + STAINS)
# Which optical densities become which, of pictures with a bright ground; row by row.
DENSITIES = slice(STAINED.stop, STAINED.stop + 9)
#: Entries of a look.
LOOK = DENSITIES.stop
#: Half the width of the blur's kernel in pixels.
REACH = 3


def draw_look(
    rng: np.random.Generator, strength: float, channels: int, stained: float = 0.0, jitter: float = 0.0
) -> NDArray[np.float64]:
    """Draw how one crop is to look.

    Parameters
    ----------
    rng
        The crop's own generator.
    strength
        0 changes nothing, 1 is usual.
    channels
        1 or 3; only colour pictures get stain, hue and saturation changes.
    stained
        Chance that the crop is rendered as stained tissue; for fluorescence of three channels only.
    jitter
        How far the stains of a bright picture of three channels move: 0 leaves them.

    Returns
    -------
    (LOOK,) float64, see :data:`LOOK`.
    """
    s = strength
    # Every number is drawn whether it is used or not, so that one change does not move the others.
    stain = 1 + 0.25 * s * rng.uniform(-1, 1, 3)
    gamma = float(np.exp(rng.uniform(-math.log1p(0.6 * s), math.log1p(0.8 * s))))
    brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4) * s * (0.15, 0.25, 0.2, 0.2)
    blur, noise = rng.uniform(0.3, 1 + 0.5 * s), rng.uniform(0, 0.04 * s)
    seed = float(rng.integers(2**31))
    use_gamma, use_color, use_blur, use_noise = rng.random(4) < (0.5, 0.5, 0.2, 0.4)
    if not s:
        use_gamma = use_color = use_blur = use_noise = False
        stain[:] = 1
    if not use_gamma:
        gamma = 1.0
    matrix, offset = np.eye(3), 0.0
    if use_color:
        if channels == 3:
            matrix = _color_matrix(hue, 1 + saturation)
        matrix = matrix * (1 + contrast)
        offset = brightness - 0.5 * contrast  # contrast turns about middle grey
    blur, noise = blur * use_blur, noise * use_noise
    stains = draw_stains(rng, stained)
    densities = move_stains(rng, jitter) if jitter and channels == 3 else np.eye(3)
    return np.concatenate(
        [gamma * stain, [gamma], matrix.ravel(), [offset, blur, noise, seed], stains, densities.ravel()]
    )


def _color_matrix(hue: float, saturation: float) -> NDArray[np.float64]:
    """Rotate the colours about the grey axis by `hue` radians, and stretch them away from it.

    Rodrigues' rotation about (1, 1, 1) / sqrt(3); grey stays as it is.
    """
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    matrix: NDArray[np.float64] = grey + saturation * (
        math.cos(hue) * (np.eye(3) - grey) + math.sin(hue) * cross
    )
    return matrix


@torch.no_grad()
def photometric(image: Tensor, look: Tensor) -> Tensor:
    """Make each picture of a batch look as drawn.

    Parameters
    ----------
    image
        uint8 (N, C, H, W).
    look
        (N, LOOK) from :func:`draw_look`, on the CPU: reading it must not wait for the device.

    Returns
    -------
    float32 (N, C, H, W) in 0…1.
    """
    n, channels = image.shape[:2]
    values = look.to(image.device, torch.float32, non_blocking=True)
    x = image.float() / 255
    for i in torch.nonzero(look[:, STAINED.start]).flatten().tolist():
        generator = torch.Generator(x.device).manual_seed(int(look[i, SEED]))
        x[i] = render(x[i], values[i, STAINED], generator)
    # Stains scale the optical density, -log(intensity) (Beer–Lambert): an exponent for each channel.
    # Only a bright background tells a stained picture; in the dark a channel is a colour of light.
    stained = (x.mean(dim=(1, 2, 3)) > 0.5)[:, None] if channels == 3 else torch.zeros_like(values[:, :1]) > 0
    exponent = torch.where(stained, values[:, EXPONENTS][:, :channels], values[:, GAMMA, None])  # (N, C)
    x = x.pow(exponent[:, :, None, None])
    moved = (look[:, DENSITIES] != torch.eye(3).flatten()).any(dim=1).to(x.device)[:, None] & stained
    if channels == 3 and bool(moved.any()):
        density = -torch.log(x.clamp(min=1 / 255))
        matrices = values[:, DENSITIES].view(n, 3, 3)
        other = torch.exp(-torch.einsum("nij,njhw->nihw", matrices, density).clamp_min(0))
        x = torch.where(moved[:, :, None, None], other, x)
    if channels == 3:
        x = torch.einsum("nij,njhw->nihw", values[:, MATRIX].view(n, 3, 3), x)
    else:
        x = x * values[:, MATRIX.start, None, None, None]
    x = x + values[:, OFFSET, None, None, None]
    for i, (blur, noise, seed) in enumerate(look[:, BLUR : SEED + 1].tolist()):
        if blur:
            x[i] = _blur(x[i], blur)
        if noise:
            generator = torch.Generator(x.device).manual_seed(int(seed))
            x[i] += noise * torch.randn(x.shape[1:], generator=generator, device=x.device)
    return x.clamp_(0, 1)


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (C, H, W), reflected at the edge."""
    taps = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-REACH, REACH + 1)]
    for axis in (1, 2):
        size = x.shape[axis]
        margin = (REACH, REACH, 0, 0) if axis == 2 else (0, 0, REACH, REACH)
        padded = torch.nn.functional.pad(x, margin, mode="reflect")
        x = torch.zeros_like(x)
        for start, tap in enumerate(taps):
            x += tap / sum(taps) * padded.narrow(axis, start, size)
    return x
