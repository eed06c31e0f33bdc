"""Where things lie in a drawn section: its nuclei, distances from them, and smooth noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Field:
    """Nuclei and where everything lies about them; all planes are (H, W)."""

    #: int32, 0 is background.
    labels: NDArray[np.int32]
    #: Their typical diameter, pixels.
    diameter: float

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.labels.shape
        return height, width

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        """Whether a pixel is a nucleus's."""
        return self.labels > 0

    @cached_property
    def soft(self) -> Plane:
        """Nuclei with edges as the optics would blur them, 0…1."""
        return blur(self.inside.astype(np.float32), 0.7)

    @cached_property
    def rim(self) -> Plane:
        """Pixels from a nucleus's own edge, 0 outside."""
        edge = cv2.morphologyEx(self.labels.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
        return distance(self.inside & ~edge)

    @cached_property
    def around(self) -> tuple[Plane, NDArray[np.int32]]:
        """Distance to the next nucleus, and its label."""
        away, place = cv2.distanceTransformWithLabels(
            (~self.inside).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        owner = np.zeros(int(place.max()) + 1, np.int32)
        owner[place[self.inside]] = self.labels[self.inside]
        return away, owner[place]

    def each(self, rng: np.random.Generator, low: float, high: float, whole: bool = False) -> Plane:
        """Return a plane with one uniform number for each nucleus, around it too where `whole`."""
        values = rng.uniform(low, high, int(self.labels.max()) + 1).astype(np.float32)
        chosen: Plane = values[self.around[1] if whole else self.labels]
        return chosen


def grain(
    shape: tuple[int, int],
    sigma: float,
    rng: np.random.Generator,
    angle: float | None = None,
    ratio: float = 1.0,
) -> Plane:
    """Return smooth noise of mean 0 and deviation 1, of this grain in pixels, drawn out along `angle`."""
    if angle is None:
        nodes = 3 + int(shape[0] / max(sigma, 0.5)), 3 + int(shape[1] / max(sigma, 0.5))
        noise = rng.standard_normal(nodes, np.float32)
        noise = cv2.resize(noise, None, fx=max(sigma, 0.5), fy=max(sigma, 0.5), interpolation=cv2.INTER_CUBIC)
        noise = noise[: shape[0], : shape[1]]
    else:
        edge = int(np.hypot(*shape)) + 8
        nodes = 3 + int(edge / sigma), 3 + int(edge / (sigma * ratio))
        noise = rng.standard_normal(nodes, np.float32)
        turn = cv2.getRotationMatrix2D((edge / 2, edge / 2), angle, 1.0)
        turn[:, 2] += (np.array(shape[::-1]) - edge) / 2
        large = cv2.resize(noise, (edge, edge), interpolation=cv2.INTER_CUBIC)
        noise = cv2.warpAffine(
            large, turn, shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        # Nothing in tissue is straight.
        sway = rng.uniform(0, 15) * grain(shape, rng.uniform(20, 50), rng)
        rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        noise = cv2.remap(
            noise, columns + sway, rows + sway[::-1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
    even: Plane = (noise - noise.mean()) / (noise.std() + 1e-6)
    return even


def blur(plane: NDArray[np.float32], sigma: float) -> Plane:
    """Gaussian blur of a plane, `sigma` in pixels."""
    out: Plane = cv2.GaussianBlur(plane, (0, 0), sigma)
    return out


def distance(inside: NDArray[np.bool_]) -> Plane:
    """Pixels from the edge of what is inside, 0 outside."""
    out: Plane = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3)
    return out
