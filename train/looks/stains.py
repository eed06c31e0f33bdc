"""Fluorescence rendered as stained tissue.

Annotated fluorescence is plentiful and shows nuclei of every shape; annotated stained tissue is rare and
each laboratory's looks different. A nuclear stain binds where the dye binds, so that a picture of one can
be rendered as a picture of the other: the concentration of the stain is the brightness of the dye, and light
is absorbed by Beer–Lambert's law. The colours start from the optical densities of haematoxylin, eosin and
diaminobenzidine in Ruifrok and Johnston, "Quantification of histochemical staining by color deconvolution"
(2001), and wander far from them: the network is to learn that nuclei differ from what is about them, not
which colour they have.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellseg.runtime.intensity.stains import DAB, EOSIN, HEMATOXYLIN

#: Entries of a drawing: whether it is used, optical density of the nuclear stain and of the other one in
#: the three channels, how much the other one keeps out of nuclei, the light, the weights of its two textures
#: and of what lies about nuclei, and how far that reaches in pixels.
STAINS = 1 + 3 + 3 + 1 + 3 + 2 + 1 + 1

#: Optical densities in red, green and blue.
HAEMATOXYLIN, DIAMINOBENZIDINE = np.array(HEMATOXYLIN[1]), np.array(DAB[1])
#: Of eosin: Ruifrok's, which is magenta, and QuPath's, which is salmon. Those of real slides lie between the
#: two and about the second.
MAGENTA, SALMON = np.array([0.07, 0.99, 0.11]), np.array(EOSIN[1])
#: Of haematoxylin that has turned reddish brown, with age or in acid, and of the lilac ground beside it.
RED, LILAC = np.array([0.44, 0.70, 0.56]), np.array([0.54, 0.79, 0.29])
#: The ground of fluorescence is darker.
DARK = 100
#: Pixels between the nodes of the other stain's textures: cytoplasm and fibres, tissue.
_GRAINS = (5, 48)


def is_fluorescence(image: NDArray[np.uint8]) -> bool:
    """Whether a picture, (H, W, C), is grey in three channels on a dark ground."""
    grey = image.shape[2] == 3 and bool((image[:, :, :1] == image).all())
    return grey and float(np.median(image[:, :, 0])) < DARK


def draw_stains(rng: np.random.Generator, share: float) -> NDArray[np.float64]:
    """Draw how one crop would look in stained tissue, and, in `share` of all crops, that it is to.

    Parameters
    ----------
    rng
        The crop's own generator.
    share
        0…1.

    Returns
    -------
    (STAINS,) float64, see :data:`STAINS`.
    """
    used = rng.random() < share
    nuclear = HAEMATOXYLIN if rng.random() < 0.8 else DIAMINOBENZIDINE
    mix = rng.random()
    other = mix * MAGENTA + (1 - mix) * DIAMINOBENZIDINE
    nuclear, other = (np.clip(v + rng.normal(0, 0.12, 3), 0.02, None) for v in (nuclear, other))
    nuclear = nuclear / np.linalg.norm(nuclear) * rng.uniform(0.3, 1.8)
    other = other / np.linalg.norm(other) * 1.6 * rng.random() ** 1.5
    keeps_out = rng.random()
    light = rng.uniform(0.8, 1.0) * (1 - rng.uniform(0, 0.08, 3))
    textures, about, reach = rng.random(2), rng.random(), rng.integers(2, 8)
    return np.concatenate([[used], nuclear, other, [keeps_out], light, textures, [about, reach]])


def draw_laboratory(
    rng: np.random.Generator, reach: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw the optical densities of some laboratory's haematoxylin and eosin.

    Most nuclei are blue, some on their way to red, between magenta and salmon; of a few old slides they are
    reddish brown beside lilac. `reach`, 0…1, says how far both may lie from Ruifrok's.
    """
    turned, faded = rng.uniform(0, reach, 2)
    if rng.random() < 0.15:
        turned, faded = (reach + turned) / 2, (reach + faded) / 2
        return _between(HAEMATOXYLIN, RED, turned), _between(MAGENTA, LILAC, faded)
    turned *= 0.6 * (rng.random() < 0.4)
    return _between(HAEMATOXYLIN, RED, turned), _between(MAGENTA, SALMON, faded)


def _between(one: NDArray[np.float64], other: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    mixed: NDArray[np.float64] = (1 - share) * one + share * other
    return mixed


def move_stains(rng: np.random.Generator, strength: float) -> NDArray[np.float64]:
    """Draw how a stained picture's optical densities change where its stains are others.

    They are taken apart into haematoxylin, eosin and diaminobenzidine, each made stronger or weaker, and put
    together again with stains of slightly other colours (Tellez et al., "Whole-slide mitosis detection in H&E
    breast histology using PHH3 as a reference", 2018, change the concentrations likewise).

    Returns
    -------
    (3, 3) float64: new densities = matrix @ old ones.
    """
    own = _columns(HAEMATOXYLIN, MAGENTA, DIAMINOBENZIDINE)
    amounts = np.exp(rng.uniform(-0.5, 0.5, 3) * strength)
    blue, pink = draw_laboratory(rng, min(strength, 1))
    other = _columns(blue, pink, DIAMINOBENZIDINE)
    other = np.clip(other + rng.normal(0, 0.05 * strength, (3, 3)), 0.01, None)
    other = other / np.linalg.norm(other, axis=0)
    out: NDArray[np.float64] = other @ np.diag(amounts) @ np.linalg.inv(own)
    return out


def _columns(*vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a matrix of these vectors, of length one, as columns."""
    return np.stack([v / np.linalg.norm(v) for v in vectors], axis=1)


def render(image: Tensor, stains: Tensor, generator: torch.Generator) -> Tensor:
    """Render one fluorescence picture as stained tissue.

    Parameters
    ----------
    image
        float32 (3, H, W) in 0…1, grey on a dark ground.
    stains
        float32 (STAINS,) on the same device.
    generator
        Of that device; draws the texture of the other stain.

    Returns
    -------
    float32 (3, H, W) in 0…1, on a bright ground.
    """
    nuclear, other, light = stains[1:4], stains[4:7], stains[8:11]
    grey = image[0]
    # Every 16th pixel tells black and white well enough, and sorting all would take longer than the rest.
    low, high = torch.quantile(grey.flatten()[::16], grey.new_tensor([0.05, 0.99]))
    # An empty picture stays nearly empty: its noise must not become nuclei.
    concentration = ((grey - low) / (high - low).clamp_min(0.08)).clamp(0, 1.2)
    texture = torch.zeros_like(grey)
    for grain, weight in zip(_GRAINS, stains[11:13], strict=True):
        nodes = [2 + math.ceil(edge / grain) for edge in grey.shape]
        noise = torch.rand(nodes, generator=generator, device=grey.device)
        texture += weight * torch.nn.functional.interpolate(
            noise[None, None], tuple(grey.shape), mode="bicubic", align_corners=True
        ).view(grey.shape)
    texture = texture / stains[11:13].sum().clamp_min(0.1)
    # Cytoplasm and membranes: where nuclei are near, but not in them.
    reach = int(stains[14])
    near = concentration[None, None]
    for _ in range(2):
        near = torch.nn.functional.avg_pool2d(near, 2 * reach + 1, 1, reach, count_include_pad=False)
    texture += stains[13] * (2 * (near[0, 0] - concentration)).clamp(0, 1)
    elsewhere = texture * (1 - stains[7] * concentration).clamp_min(0)
    density = nuclear[:, None, None] * concentration + other[:, None, None] * elsewhere
    return light[:, None, None] * torch.exp(-density.clamp_min(0))
