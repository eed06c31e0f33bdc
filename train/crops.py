"""Random crops and their targets.

A crop is a pure function of (seed, index), so a run can stop anywhere and continue exactly, and
ranks and workers never have to agree on anything but the index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellseg.runtime.errors import DataError

from . import targets, tissue
from .augment import draw_look
from .config import TrainConfig
from .data import Sample
from .stains import is_fluorescence

Plane = NDArray[Any]
#: Labels are smoothed where crops are enlarged by more.
SMOOTHED = 1.6
#: Pictures are enlarged and shrunk to a section's size by this factor at most.
FAR = 3.5


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


def shares(samples: list[Sample], balance: float, crowding: float) -> NDArray[np.float64]:
    """Return each sample's chance to be drawn, (len(samples),), summing to one.

    Within its kind an image counts cells ** crowding, at least one. A kind that counts n in all gets
    n ** (1 - balance) of the draws: all its share at 0, as much as any other kind at 1.
    """
    _, kind = np.unique([sample.kind for sample in samples], return_inverse=True)
    cells = [max(np.count_nonzero(np.bincount(sample.labels.ravel())[1:]), 1) for sample in samples]
    counts = np.asarray(cells, np.float64) ** crowding
    weight = counts / np.bincount(kind, counts)[kind] ** balance
    return np.asarray(weight / weight.sum(), np.float64)


def shares_of_sets(samples: list[Sample], cfg: TrainConfig) -> NDArray[np.float64]:
    """Return each sample's chance where several data sets have shares; within one :func:`shares` tells."""
    chances = np.zeros(len(samples))
    origins = np.array([sample.origin for sample in samples])
    for origin, each in enumerate(cfg.data_sets):
        own = np.flatnonzero(origins == origin)
        if len(own) and each.share:
            chances[own] = each.share * shares([samples[at] for at in own], cfg.balance, cfg.crowding)
    if not chances.any():
        raise DataError("dataset_path: every folder with training images has a share of 0; give one a share")
    even: NDArray[np.float64] = chances / chances.sum()
    return even


@dataclass(frozen=True)
class CropSource:
    """Draws augmented crops from samples; crop `index` is always the same."""

    samples: list[Sample]
    config: TrainConfig

    @cached_property
    def chances(self) -> NDArray[np.float64] | None:
        """Each sample's chance to be drawn; none where every one is to be visited once an epoch."""
        cfg = self.config
        if len(cfg.data_sets) > 1:
            return shares_of_sets(self.samples, cfg)
        return shares(self.samples, cfg.balance, cfg.crowding) if cfg.balance or cfg.crowding else None

    def sample_of(self, index: int) -> Sample:
        """Return the sample that crop `index` is cut from.

        Each epoch visits every image once; with ``balance`` or ``crowding`` it draws as many by their
        :func:`shares`.
        """
        count = len(self.samples)
        epoch, place = divmod(index, count)
        rng = np.random.default_rng([self.config.randseed, 1, epoch])
        order = rng.permutation(count) if self.chances is None else rng.choice(count, count, p=self.chances)
        return self.samples[int(order[place])]

    def strength(self, sample: Sample) -> float:
        """Return how strongly crops of a sample are augmented."""
        bright = self.config.augment_bright
        return self.config.augment if sample.kind == "dark" or bright is None else bright

    def crop(self, index: int) -> dict[str, Plane]:
        """Return crop `index`: ``image`` (S, S, C) uint8, ``labels`` (S, S) int32 and planes (S, S).

        The planes are those of :func:`make_targets`. One interpolation from the original pixels; labels
        are sampled to the nearest pixel and never blurred. Beyond the image everything is reflected, as
        the runtime pads: a cell cut by the image's edge has no boundary there. Those pixels are not
        ``valid`` and count in no loss.
        """
        cfg, sample = self.config, self.sample_of(index)
        height, width = sample.labels.shape
        rng = np.random.default_rng([cfg.randseed, 2, index])
        form = self.form(sample, index)
        place = Placement.draw(rng, height, width, cfg.crop, self.strength(sample), form)
        y0, x0, y1, x1 = place.window(height, width)

        def cut(plane: Plane, smooth: bool = False) -> Plane:
            part = plane[y0:y1, x0:x1]
            if part.dtype == np.int32:  # OpenCV warps no int32; float32 holds labels exactly
                part = part.astype(np.float32)
            return place.warp(part, smooth=smooth, origin=(y0, x0))

        labels = cut(sample.labels).astype(np.int32)
        if place.scale > SMOOTHED and labels.max(initial=0) < 2**16:  # or pixels of the image show as steps
            labels = cv2.medianBlur(labels.astype(np.uint16), 5).astype(np.int32)
        valid = place.inside(height, width)
        if sample.ignored is not None:
            valid &= cut(sample.ignored.astype(np.uint8)) == 0
        density = None
        if sample.density is not None:  # mass is kept under scaling: divide by the area factor
            density = cut(sample.density, smooth=True) / np.float32(place.scale**2)
        planes = make_targets(
            labels,
            valid,
            cfg,
            _areas(sample, cfg) * place.scale**2,
            None if sample.boundary is None else cut(sample.boundary),
            density,
        )
        image = cut(_before_shrinking(sample.image, form), smooth=True).reshape(cfg.crop, cfg.crop, -1)
        if self.redraws(sample, index) and labels.any():
            rng = np.random.default_rng([cfg.randseed, 5, index])
            image = tissue.draw(labels, image[..., 0], _diameter(sample) * place.scale, rng)
        return {"image": image, "labels": labels, **planes}

    def redraws(self, sample: Sample, index: int) -> bool:
        """Whether crop `index` is drawn anew as a section."""
        share = self.config.tissue
        if not share or not is_fluorescence(sample.image) or not sample.labels.any():
            return False
        return bool(np.random.default_rng([self.config.randseed, 4, index, 0]).random() < share)

    def form(self, sample: Sample, index: int) -> Form:
        """Return how cells of crop `index` are enlarged and stretched."""
        rng = np.random.default_rng([self.config.randseed, 4, index, 1])
        if self.redraws(sample, index):
            low, high = np.log(tissue.DIAMETERS)
            zoom = float(np.clip(np.exp(rng.uniform(low, high)) / _diameter(sample), 1 / FAR, FAR))
            stretch = float(np.exp(max(0.0, rng.uniform(-0.7, 0.9))))
            return Form(zoom, stretch, float(rng.uniform(0, np.pi)))
        if self.config.zoom == 1:
            return Form()
        # Half of the crops stay about as they are: most pictures have the usual size.
        reach = np.log(self.config.zoom) * (rng.random() < 0.5)
        return Form(float(np.exp(rng.uniform(-reach, reach))))


def _diameter(sample: Sample) -> float:
    """Median diameter of a sample's cells as circles of their areas, pixels."""
    areas = np.bincount(sample.labels.ravel())[1:]
    return float(2 * np.sqrt(np.median(areas[areas > 0]) / np.pi))


def _before_shrinking(image: Plane, form: Form) -> Plane:
    """Blur an image that is to become much smaller, so that no fine grain turns into a coarse one."""
    if form.zoom > 0.7:
        return image
    out: Plane = cv2.GaussianBlur(image, (0, 0), 0.4 / form.zoom)
    return out.reshape(image.shape)


def _areas(sample: Sample, cfg: TrainConfig) -> Plane:
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
        _areas(sample, config),
        None if sample.boundary is None else pad(sample.boundary),
        None if sample.density is None else pad(sample.density),
    )
    return pad(sample.image), planes


class Crops(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Map from crop index to tensors, for a DataLoader."""

    def __init__(self, source: CropSource) -> None:
        self.source = source

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return crop `index`: image (C, S, S) uint8, planes (S, S) float32, ``look`` and ``index``."""
        cfg, crop = self.source.config, self.source.crop(index)
        stained = cfg.stained if is_fluorescence(crop["image"]) else 0.0
        image = torch.from_numpy(np.ascontiguousarray(crop.pop("image"))).permute(2, 0, 1)
        rng = np.random.default_rng([cfg.randseed, 3, index])
        sample = self.source.sample_of(index)
        strength = self.source.strength(sample)
        if self.source.redraws(sample, index):  # its stains were drawn from afar already
            strength = min(cfg.augment_bright or 0.0, 0.5)
        look = draw_look(rng, strength, cfg.in_channels, stained, cfg.stain_jitter)
        del crop["labels"]
        planes = {name: torch.from_numpy(plane) for name, plane in crop.items()}
        return {"image": image, "look": torch.from_numpy(look), "index": torch.tensor(index), **planes}


@dataclass(frozen=True, slots=True)
class StepSampler:
    """Yields the crop indices of each step from `start` on, this rank's share of every batch."""

    start: int
    stop: int
    batch: int
    rank: int = 0
    ranks: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        """Yield one list of indices a step."""
        whole = self.batch * self.ranks
        for step in range(self.start, self.stop):
            first = step * whole + self.rank * self.batch
            yield list(range(first, first + self.batch))

    def __len__(self) -> int:
        return self.stop - self.start
