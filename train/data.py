"""The method's directory layout, read into memory, and random crops drawn from it.

A crop is a pure function of (seed, index), so a run can stop anywhere and continue exactly, and
ranks and workers never have to agree on anything but the index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellseg.runtime import preprocess
from cellseg.runtime.errors import DataError

from . import targets
from .config import TrainConfig

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass(frozen=True, slots=True)
class Sample:
    """One annotated image: bytes as the runtime would feed them, and instance labels."""

    name: str
    #: (H, W, C) uint8, mapped by :mod:`cellseg.runtime.preprocess`.
    image: NDArray[np.uint8]
    #: (H, W) int32, 0 is background.
    labels: NDArray[np.int32]
    #: (H, W) uint8 from ``corner/``, or None where the band is derived.
    boundary: NDArray[np.uint8] | None = None
    #: (H, W) float32 from ``density/`` in cells per pixel, or None where it is derived.
    density: NDArray[np.float32] | None = None


def read_split(folder: Path, channels: int) -> list[Sample]:
    """Read ``image/``, ``label/`` and, where present, ``corner/`` and ``density/``.

    Raises
    ------
    DataError
        A folder or a partner file is missing, or sizes differ.
    """
    images, labels = _files(folder / "image"), _files(folder / "label")
    for name in sorted(images.keys() ^ labels.keys()):
        present, absent = ("image", "label") if name in images else ("label", "image")
        raise DataError(f"{folder}: {present}/{name} has no partner in {absent}/; add it or remove the {present}")
    if not images:
        raise DataError(f"{folder / 'image'}: no images found; wanted one of {', '.join(SUFFIXES)}")
    corner = _files(folder / "corner") if (folder / "corner").is_dir() else {}
    dens = _files(folder / "density") if (folder / "density").is_dir() else {}
    return [_sample(name, images[name], labels[name], corner.get(name), dens.get(name), channels) for name in sorted(images)]


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; a data set holds train/ and val/ with image/ and label/ in each")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES}


def _read(path: Path, flags: int) -> NDArray[np.generic]:
    array = cv2.imread(str(path), flags)
    if array is None:
        raise DataError(f"{path}: cannot be read as a picture; replace or remove it")
    return array


def _sample(
    name: str, image: Path, label: Path, corner: Path | None, dens: Path | None, channels: int
) -> Sample:
    pixels = _read(image, cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels[..., :3], cv2.COLOR_BGR2RGB)
    else:
        pixels = pixels[..., None]
    ids = _read(label, cv2.IMREAD_UNCHANGED)
    if ids.ndim != 2:
        raise DataError(f"{label}: found {ids.shape[2]} channels; wanted one channel of instance numbers")
    if ids.shape != pixels.shape[:2]:
        raise DataError(f"{label}: is {ids.shape[1]}×{ids.shape[0]}, its image {pixels.shape[1]}×{pixels.shape[0]}")
    normal = preprocess.measure(pixels)
    data = preprocess.to_channels(normal.apply(pixels), channels)
    return Sample(
        name,
        np.ascontiguousarray(data),
        ids.astype(np.int32),
        None if corner is None else (_read(corner, cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8),
        None if dens is None else _read(dens, cv2.IMREAD_UNCHANGED).astype(np.float32),
    )


@dataclass(frozen=True, slots=True)
class CropSource:
    """Draws augmented crops from samples; crop `index` is always the same."""

    samples: list[Sample]
    config: TrainConfig

    def crop(self, index: int) -> dict[str, NDArray[np.generic]]:
        """Return crop `index`: ``image`` (S, S, C) uint8 and planes (S, S), see :func:`make_targets`.

        Geometry (place, flip, rotation, scale) is drawn here, in one interpolation from the original
        pixels; labels are sampled to the nearest pixel and never blurred.
        """
        cfg = self.config
        count = len(self.samples)
        # Each epoch visits every image once, in its own order.
        epoch, place = divmod(index, count)
        order = np.random.default_rng([cfg.randseed, 1, epoch]).permutation(count)
        sample = self.samples[order[place]]
        rng = np.random.default_rng([cfg.randseed, 2, index])

        size, (height, width) = cfg.crop, sample.labels.shape
        scale, angle = 1.0, 0.0
        if cfg.augment and rng.random() < 0.7:
            scale = float(np.exp(rng.uniform(-0.35, 0.45) * cfg.augment))
            angle = float(rng.uniform(-180, 180)) if rng.random() < 0.5 else 0.0
        angle += 90.0 * rng.integers(4)
        flip = -1.0 if rng.random() < 0.5 else 1.0
        # A uniformly placed window that stays inside where the image is larger than the window.
        span = size / scale
        cy, cx = (
            rng.uniform(span / 2, edge - span / 2) if edge > span else edge / 2 for edge in (height, width)
        )
        radians = math.radians(angle)
        cos, sin = math.cos(radians) / scale, math.sin(radians) / scale
        half = (size - 1) / 2
        # Maps crop coordinates to image coordinates (WARP_INVERSE_MAP).
        matrix = np.array([[flip * cos, -sin, cx - 0.5], [flip * sin, cos, cy - 0.5]])
        matrix[:, 2] -= matrix[:, :2] @ (half, half)

        def warp(plane: NDArray[np.generic], interpolation: int, border: int) -> NDArray[np.generic]:
            out: NDArray[np.generic] = cv2.warpAffine(
                plane, matrix, (size, size), flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=border
            )
            return out

        smooth = cv2.INTER_AREA if scale == 1.0 else cv2.INTER_LINEAR
        image = warp(sample.image, smooth, cv2.BORDER_REFLECT_101).reshape(size, size, -1)
        labels = warp(sample.labels.astype(np.float32), cv2.INTER_NEAREST, cv2.BORDER_CONSTANT).astype(np.int32)
        valid = warp(np.ones((height, width), np.uint8), cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
        boundary = density = None
        if sample.boundary is not None:
            boundary = warp(sample.boundary, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
        if sample.density is not None:  # mass is conserved under scaling: divide by the area factor
            density = warp(sample.density, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT) / np.float32(scale**2)
        return {"image": image, **make_targets(labels, valid, cfg, boundary, density)}


def make_targets(
    labels: NDArray[np.int32],
    valid: NDArray[np.generic],
    cfg: TrainConfig,
    boundary: NDArray[np.generic] | None = None,
    density: NDArray[np.generic] | None = None,
) -> dict[str, NDArray[np.generic]]:
    """Return the float32 planes (H, W) that :class:`~cellseg.train.losses.JointLoss` wants.

    ``boundary`` and ``density`` are derived where they are not given.
    """
    if boundary is None:
        boundary = targets.boundary_band(labels, cfg.boundary_width)
    if density is None:
        density = (
            targets.density_map(labels, cfg.density_spread, cfg.density_sigma)
            if cfg.use_density
            else np.zeros(labels.shape, np.float32)
        )
    planes = {
        "mask": labels > 0,
        "boundary": boundary,
        "density": density,
        "touch": targets.touching(labels) if cfg.touch_weight else np.zeros(labels.shape, np.uint8),
        "valid": valid,
    }
    return {name: np.asarray(plane, np.float32) for name, plane in planes.items()}


class Crops(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Map from crop index to tensors, for a DataLoader."""

    def __init__(self, source: CropSource) -> None:
        self.source = source

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return crop `index` as tensors: image (C, S, S) uint8, planes (S, S) float32."""
        crop = self.source.crop(index)
        image = torch.from_numpy(np.ascontiguousarray(crop.pop("image"))).permute(2, 0, 1)
        return {"image": image, **{name: torch.from_numpy(plane) for name, plane in crop.items()}}


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
