"""Where a crop lies in its image: size, shape, flips, turns and what is beyond the edges.

Geometry alone; it knows nothing of samples, targets or tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Form:
    """What becomes of the cells' size and shape: enlarged by `zoom`, and `stretch` times as long as wide."""

    zoom: float = 1.0
    stretch: float = 1.0
    #: Direction in which they are stretched, radians.
    along: float = 0.0

    def matrix(self) -> NDArray[np.float64]:
        """Return the (2, 2) map from stretched to unstretched positions; it keeps areas."""
        cos, sin = math.cos(self.along), math.sin(self.along)
        turn = np.array([[cos, -sin], [sin, cos]])
        root = math.sqrt(self.stretch)
        out: NDArray[np.float64] = turn @ np.diag([1 / root, root]) @ turn.T
        return out


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a crop lies: maps crop pixels to image pixels, ``(x, y) = matrix @ (column, row, 1)``."""

    #: (2, 3) float64.
    matrix: NDArray[np.float64]
    size: int
    #: Crop pixels for one image pixel.
    scale: float

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        height: int,
        width: int,
        size: int,
        strength: float,
        form: Form | None = None,
    ) -> Placement:
        """Draw place, flip, quarter turns and, in 7 of 10 crops at full strength, scale and rotation.

        The window lies inside the image where the image is large enough, and around its middle otherwise.
        `form` comes on top.
        """
        form = form or Form()
        scale, angle = form.zoom, 0.0
        if strength and rng.random() < 0.7:
            scale *= float(np.exp(rng.uniform(-0.35, 0.45) * strength))
            angle = float(rng.uniform(-180, 180)) if rng.random() < 0.5 else 0.0
        turned = angle != 0.0
        angle += 90.0 * rng.integers(4)
        flip = -1.0 if rng.random() < 0.5 else 1.0
        span = size / scale
        cy, cx = (
            rng.uniform(span / 2, edge - span / 2) if edge > span else edge / 2 for edge in (height, width)
        )
        radians = math.radians(angle)
        cos, sin = math.cos(radians) / scale, math.sin(radians) / scale
        matrix = np.array([[flip * cos, -sin, cx - 0.5], [flip * sin, cos, cy - 0.5]])
        matrix[:, :2] @= form.matrix()
        matrix[:, 2] -= matrix[:, :2] @ np.full(2, (size - 1) / 2)
        if (
            scale == 1.0 and not turned and form.stretch == 1.0
        ):  # whole pixels, so that nothing is interpolated
            matrix = np.round(matrix)
        return cls(matrix, size, scale)

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return y0, x0, y1, x1: the part of the image that the crop, reflections included, depends on."""
        last = self.size - 1
        corners = self.matrix @ np.array([[0, last, 0, last], [0, 0, last, last], [1, 1, 1, 1]])  # (x, y) × 4
        spans = []
        for coordinates, edge in ((corners[1], height), (corners[0], width)):
            low, high = math.floor(coordinates.min()) - 1, math.ceil(coordinates.max()) + 2
            # What sticks out on one side is reflected from as far inside.
            before, after = max(0, -low), max(0, high - edge)
            spans.append((max(0, low - after), min(edge, max(high, 0) + before)))
        (y0, y1), (x0, x1) = spans
        return y0, x0, y1, x1

    def warp(self, plane: Plane, *, smooth: bool, origin: tuple[int, int] = (0, 0)) -> Plane:
        """Return the crop of `plane` (or of an image with channels), reflected beyond its edges.

        Parameters
        ----------
        plane
            The part of the image that starts at `origin` (y, x); uint8 or float32.
        smooth
            Interpolate linearly; labels must not.
        """
        matrix = self.matrix - [[0, 0, origin[1]], [0, 0, origin[0]]]
        out: Plane = cv2.warpAffine(
            plane,
            matrix,
            (self.size, self.size),
            flags=(cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST) | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        return out

    def inside(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return (size, size), true where the crop shows the image and not its reflection."""
        columns, rows = np.arange(self.size), np.arange(self.size)[:, None]
        x = self.matrix[0, 0] * columns + self.matrix[0, 1] * rows + self.matrix[0, 2]
        y = self.matrix[1, 0] * columns + self.matrix[1, 1] * rows + self.matrix[1, 2]
        inside: NDArray[np.bool_] = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        return inside
