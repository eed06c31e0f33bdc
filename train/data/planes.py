"""What the loss compares with: the target planes of a crop, or of a whole image.

From labels and the maps that a data set has; single planes are made by :mod:`.targets`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from . import targets
from .samples import Sample

Plane = NDArray[Any]


def cell_areas(sample: Sample, cfg: TrainConfig) -> Plane:
    """Pixels of each cell by its label, where they are needed."""
    return np.bincount(sample.labels.ravel()) if cfg.small_weight else np.zeros(0)


def make_targets(
    labels: NDArray[np.int32],
    valid: Plane,
    cfg: TrainConfig,
    areas: Plane,
    boundary: Plane | None = None,
    density: Plane | None = None,
) -> dict[str, Plane]:
    """Return the float32 planes (H, W) that :class:`~cellseg.train.losses.JointLoss` wants.

    Parameters
    ----------
    labels
        (H, W), 0 is background.
    valid
        (H, W), true in the image, false in its padding.
    areas
        Pixels of each whole cell by its label; used with ``small_weight`` only.
    boundary, density
        (H, W); a missing boundary is derived from `labels`, a missing density is all zero.
    """
    if boundary is None and "boundary" in cfg.heads:
        derive = targets.touching if cfg.boundary_at == "contacts" else targets.boundary_band
        boundary = derive(labels, cfg.boundary_width)
    nothing = np.zeros(labels.shape, np.float32)
    emphasis = nothing
    if cfg.touch_weight:
        emphasis = emphasis + cfg.touch_weight * targets.touching(labels)
    if cfg.small_weight:
        emphasis = emphasis + cfg.small_weight * targets.smallness(labels, areas)
    planes = {
        "mask": labels > 0,
        "boundary": nothing if boundary is None else boundary,
        "density": nothing if density is None else density,
        "emphasis": emphasis,
        "valid": valid,
    }
    return {name: np.asarray(plane, np.float32) for name, plane in planes.items()}


def padded_targets(
    sample: Sample, config: TrainConfig, multiple: int, margin: int = 0
) -> tuple[Plane, dict[str, Plane]]:
    """Return the whole image, reflected by a margin and on to a multiple, and its targets.

    Parameters
    ----------
    multiple
        Of which both edges of the result are one; what is missing is added below and to the right.
    margin
        Pixels that are added on every side before.

    Returns
    -------
    image
        (H', W', C) uint8; the sample begins at ``[margin, margin]``.
    planes
        As of :func:`make_targets`, (H', W'); only the sample itself is valid.
    """
    height, width = sample.labels.shape
    edges = tuple((margin, margin + -(edge + 2 * margin) % multiple) for edge in (height, width))

    def pad(plane: Plane) -> Plane:
        out: Plane = np.pad(plane, (*edges, (0, 0))[: plane.ndim], mode="reflect")
        return out

    planes = make_targets(
        pad(sample.labels).astype(np.int32),
        np.pad(np.ones((height, width), np.bool_) if sample.ignored is None else ~sample.ignored, edges),
        config,
        cell_areas(sample, config),
        None if sample.boundary is None else pad(sample.boundary),
        None if sample.density is None else pad(sample.density),
    )
    return pad(sample.image), planes
