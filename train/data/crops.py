"""Random crops and their targets.

A crop is a pure function of (seed, index), so a run can stop anywhere and continue exactly, and
ranks and workers never have to agree on anything but the index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import TrainConfig
from ..looks import tissue
from ..looks.augment import draw_look
from ..looks.stains import is_fluorescence
from .placement import Form, Placement
from .planes import cell_areas, make_targets
from .samples import Sample
from .shares import shares, shares_of_sets

Plane = NDArray[Any]
#: Labels are smoothed where crops are enlarged by more.
SMOOTHED = 1.6
#: Pictures are enlarged and shrunk to a section's size by this factor at most.
FAR = 3.5


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
            cell_areas(sample, cfg) * place.scale**2,
            None if sample.boundary is None else cut(sample.boundary),
            density,
        )
        image = cut(_before_shrinking(sample.image, form), smooth=True).reshape(cfg.crop, cfg.crop, -1)
        if self.redraws(sample, index) and labels.any():
            rng = np.random.default_rng([cfg.randseed, 5, index])
            image = tissue.draw(labels, image[..., 0], _diameter(sample) * place.scale, rng)
        return {"image": image, "labels": labels, **planes}

    def redraws(self, sample: Sample, index: int) -> bool:
        """Whether crop `index` is redrawn as a section."""
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
