"""The split settings and heads of a model, as the tables and integers the kernel works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..kernels.split import Splitter
from ..model.spec import HEAD_NAMES, Head, SplitSettings

#: Pixels up to which the distance to the outside is told apart.
DISTANCE_REACH = 64
#: Levels a pixel of distance where the distance is the whole landscape: quarter pixels.
DISTANCE_ALONE = 4.0
#: Density in cells a pixel from which on nothing is taken off the landscape.
CROWDED = 0.1


def gaussian_weights(sigma: float) -> NDArray[np.uint16]:
    """Return Gaussian weights by distance in 1/256, that sum to 256 over both sides.

    Parameters
    ----------
    sigma
        Standard deviation in pixels; 0 gives the single weight 256.
    """
    if sigma == 0:
        return np.array([256], np.uint16)
    radius = max(1, round(3 * sigma))
    curve = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    exact = 256 * curve / (2 * curve.sum() - curve[0])
    weights: NDArray[np.uint16] = np.floor(exact).astype(np.uint16)
    # What rounding down has left goes to the pairs that lost most, the odd one to the centre.
    pairs, odd = divmod(256 - int(weights[0]) - 2 * int(weights[1:].sum()), 2)
    weights[1 + np.argsort(weights[1:] - exact[1:], kind="stable")[:pairs]] += 1
    weights[0] += odd + 2 * max(pairs - radius, 0)
    return weights[: int(np.flatnonzero(weights)[-1]) + 1]


def head_values(head: Head) -> NDArray[np.float64]:
    """Return the value of each byte of a head's plane, shape (256,).

    Values are multiples of 2⁻⁴⁰, so that sums of them are exact and do not depend on their order.
    """
    values = head.full_scale * (np.arange(256) / 255.0) ** head.power
    return np.rint(values * 2.0**40) / 2.0**40


@dataclass(frozen=True, slots=True)
class SplitRules:
    """Which planes are used, and what the kernel does with them.

    Attributes
    ----------
    planes
        Indices of the used planes among the model's heads: mask, then boundary and density where
        they are used.
    boundary, density
        Position in ``planes``; ``None`` where not used.
    reach
        Pixels a side that can change the landscape at a pixel of the same component.
    """

    heads: tuple[Head, ...]
    settings: SplitSettings
    connectivity: int
    planes: tuple[int, ...]
    boundary: int | None
    density: int | None
    reach: int

    @classmethod
    def of(cls, heads: Sequence[Head], settings: SplitSettings, connectivity: int) -> SplitRules:
        """Work out the rules of a model.

        Raises
        ------
        ModelError
            The first head is not the mask.
        """
        names = [head.name for head in heads]
        if names[:1] != ["mask"]:
            raise ModelError(f"the model's heads are {names}; wanted 'mask' first: export the model again")
        planes = [0]
        boundary = density = None
        if "boundary" in names:
            boundary = len(planes)
            planes.append(names.index("boundary"))
        wanted = settings.min_seed_density > 0 or settings.density_weight > 0 or "density" in settings.weighed
        if "density" in names and wanted:
            density = len(planes)
            planes.append(names.index("density"))
        reach = len(gaussian_weights(settings.smoothing)) - 1
        alone = boundary is None and not (density is not None and settings.density_weight > 0)
        if alone or settings.distance_weight > 0:
            reach += DISTANCE_REACH
        return cls(tuple(heads), settings, connectivity, tuple(planes), boundary, density, reach)

    def splitter(self) -> Splitter:
        """Return a new worker with these rules."""
        settings = self.settings
        factor = dense = heights = mass = None
        if self.boundary is not None:
            factor = np.rint(255 - settings.boundary_weight * np.arange(256)).astype(np.uint8)
        if self.density is not None:
            values = head_values(self.heads[self.planes[self.density]])
            if settings.density_weight > 0:
                share = np.minimum(values / CROWDED, 1.0) ** 0.25
                dense = np.rint(255 * (1 - settings.density_weight * (1 - share))).astype(np.uint8)
            if settings.min_seed_density > 0:
                mass = values
        alone = factor is None and dense is None
        steepness = DISTANCE_ALONE if alone else settings.distance_weight
        if steepness:
            squares = np.arange(DISTANCE_REACH**2 + 1)
            heights = np.minimum(np.rint(steepness * np.sqrt(squares)), 255).astype(np.uint8)
        return Splitter(
            threshold=settings.mask_threshold,
            boundary_factor=factor,
            density_factor=dense,
            distance_height=heights,
            weights=gaussian_weights(settings.smoothing),
            probability=head_values(self.heads[0]),
            mass=np.zeros(256) if mass is None else mass,
            persistence=settings.persistence,
            min_seed_area=settings.min_seed_area,
            min_seed_mass=0.0 if mass is None else settings.min_seed_density,
            min_area=settings.min_area,
            max_hole_area=settings.max_hole_area,
            hole_connectivity=4 if self.connectivity == 8 else 8,
            join=settings.join,
            score=settings.score,
            planes=HEAD_NAMES,
        )
