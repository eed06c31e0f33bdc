"""The method's directory layout, read into memory: images as the runtime would see them, and labels.

::

    DATASET/{train,val}/image/NAME.*     any picture cellseg-infer reads
                        label/NAME.*     one number per cell, 0 is background
                        corner/NAME.*    boundary maps, derived where the folder is missing
                        density/NAME.*   density maps, likewise

Nothing on disk is ever changed. This module knows nothing of crops, tensors or losses.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from cellseg.runtime.common.names import result_name
from cellseg.runtime.common.spelling import written_as
from cellseg.runtime.common.threads import cores
from cellseg.runtime.errors import DataError, ImageError
from cellseg.runtime.evaluation.folders import PICTURES, LabelFolder, check_partners, list_files
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.intensity import normalization
from cellseg.runtime.intensity.channels import choose
from cellseg.runtime.readers import open_slide

from ..config import TrainConfig
from . import targets

log = logging.getLogger("cellseg.train")

#: Seconds of reading between two lines of the log.
PATIENCE = 5.0
#: Endings of ready-made maps.
MAPS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass(frozen=True, slots=True)
class Sample:
    """One annotated image: bytes as the runtime would feed them, and instance labels."""

    name: str
    #: (H, W, C) uint8, mapped by :mod:`cellseg.runtime.intensity.normalization`.
    image: NDArray[np.uint8]
    #: (H, W) int32, 0 is background.
    labels: NDArray[np.int32]
    #: (H, W) uint8 0 or 1 from ``corner/``, or None where the band is derived from each crop.
    boundary: NDArray[np.uint8] | None = None
    #: (H, W) float32 in cells per pixel, or None where no head learns it.
    density: NDArray[np.float32] | None = None
    #: (H, W) bool, true where nothing is known, or None where all is.
    ignored: NDArray[np.bool_] | None = None
    #: Which of several data sets it is from, by its place in the list.
    origin: int = 0
    #: What it looks like, see :func:`kind_of`.
    kind: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", kind_of(self.image))


def kind_of(image: NDArray[np.uint8]) -> str:
    """Tell pictures with a dark ground (fluorescence) from bright ones, coloured (stained) or grey.

    Parameters
    ----------
    image
        (H, W, C) as in :class:`Sample`.
    """
    if np.median(image) < 128:
        return "dark"
    spread = image.max(axis=2) - image.min(axis=2)
    return "coloured" if np.percentile(spread, 95) > 16 else "grey"


def read_dataset(config: TrainConfig) -> tuple[list[Sample], list[Sample]]:
    """Read the training and the validation images of ``dataset_path``, re-split where that is wanted.

    Raises
    ------
    DataError
        A folder or a partner file is missing, sizes differ, a file cannot be read, there is no cell to
        learn from, or a re-split asks for images that are not there.
    """
    splits: dict[str, list[Sample]] = {"train": [], "val": []}
    for origin, each in enumerate(config.data_sets):
        root = Path(each.path)
        if not root.is_dir():
            raise DataError(
                f"{root}: no such folder; set dataset_path to one that holds train/ and val/, each with "
                "image/ and label/"
            )
        alone = len(config.data_sets) == 1 and not config.resample
        for split, samples in splits.items():
            if alone or (root / split).is_dir():
                samples += read_split(root / split, config, origin)
    training, validation = splits.values()
    if config.resample:
        training, validation = resample(training + validation, config)
    source = _source(config)
    if not training or not validation:
        split = "val" if training else "train"
        raise DataError(f"{source}: none of these folders holds {split}/; one at least must")
    if not any((sample.labels > 0).any() for sample in training):
        raise DataError(f"{source}: no cell in any label image of train/; nothing can be learned")
    return training, validation


def _source(config: TrainConfig) -> str:
    return ", ".join(each.path for each in config.data_sets)


def resample(pool: list[Sample], config: TrainConfig) -> tuple[list[Sample], list[Sample]]:
    """Split `pool`: by the names in ``resample_by_manual``, else ``resample_num`` drawn by ``randseed``.

    Returns
    -------
    Training and validation samples, in the order of `pool`.
    """
    names = [sample.name for sample in pool]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{_source(config)}: {twice} is there twice; rename one to re-split")
    if config.resample_by_manual is not False:
        chosen = _manual(config.resample_by_manual)
        missing = sorted(chosen - set(names))
        if missing:
            raise DataError(f"resample_by_manual: {_source(config)} holds no image named {missing[0]}")
    else:
        if config.resample_num >= len(pool):
            raise DataError(
                f"resample_num: {config.resample_num} of {len(pool)} images leaves none to train on; "
                f"set it to at most {max(1, len(pool) - 1)}"
            )
        rng = np.random.default_rng([config.randseed, 0])
        chosen = {names[i] for i in rng.choice(len(pool), config.resample_num, replace=False)}
    training = [sample for sample in pool if sample.name not in chosen]
    validation = [sample for sample in pool if sample.name in chosen]
    if not training or not validation:
        empty = "training" if not training else "validation"
        raise DataError(f"resample_by_manual leaves no {empty} image of {len(pool)}; name fewer or more")
    return training, validation


def _manual(names: list[str | int] | str) -> set[str]:
    if isinstance(names, str):
        try:
            names = list(filter(None, map(str.strip, Path(names).read_text(encoding="utf-8").splitlines())))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"resample_by_manual: {names}: cannot be read ({error}); wanted a file with one name a line"
            ) from None
    return {result_name(name) if name.lower().endswith(PICTURES) else name for name in map(str, names)}


def read_split(folder: Path, config: TrainConfig, origin: int = 0) -> list[Sample]:
    """Read ``image/``, ``label/`` and, where present, ``corner/`` and ``density/`` of one split.

    Several at a time; a line in the log tells how far it is where it takes long.

    Raises
    ------
    DataError
        A folder or a partner file is missing, sizes differ, or a file cannot be read.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; a data set holds train/ and val/ (or set resample: true to split one)"
        )
    images = list_files(folder / "image", PICTURES, "images")
    labels = LabelFolder.open(folder / "label")
    check_partners(images, labels.files, folder / "label")
    check_partners(labels.files, images, folder / "image")
    if labels.semantic:
        log.warning(
            "%s: a mask without cell numbers; its connected components are taken as cells", folder / "label"
        )
    corner = _maps(folder / "corner", images, config) if "boundary" in config.heads else {}
    density = _maps(folder / "density", images, config) if "density" in config.heads else {}

    def read(name: str) -> Sample:
        return _sample(name, images[name], labels, corner.get(name), density.get(name), config, origin)

    samples, told = [], time.monotonic()
    # Decoding and OpenCV let go of the interpreter.
    with written_as("configuration"), ThreadPoolExecutor(max(1, min(8, cores()))) as pool:
        waiting = [pool.submit(read, name) for name in sorted(images)]
        try:
            for done in waiting:
                samples.append(done.result())
                if time.monotonic() - told > PATIENCE:
                    told = time.monotonic()
                    log.info("%s: %d of %d images read", folder, len(samples), len(images))
        finally:
            for each in waiting:
                each.cancel()
    return samples


#: Keys of the configuration that say how a map is derived, by the folder that makes them idle.
DERIVING = {
    "corner": ("boundary_width", "boundary_at"),
    "density": ("density_spread", "density_sigma", "density_shape"),
}


def _maps(folder: Path, images: dict[str, Path], config: TrainConfig) -> dict[str, Path]:
    """Ready-made maps by image; empty where the data set brings none and they are derived."""
    if not folder.is_dir():
        return {}
    files = list_files(folder, MAPS, "maps")
    check_partners(images, files, folder)
    idle = [key for key in DERIVING[folder.name] if key in config.model_fields_set]
    if idle:
        log.warning("%s: its maps are used as they are; %s has no effect", folder, " and ".join(idle))
    return files


def _sample(
    name: str,
    image: Path,
    folder: LabelFolder,
    corner: Path | None,
    density: Path | None,
    config: TrainConfig,
    origin: int,
) -> Sample:
    labels, ignored = folder.read(name), None
    if config.ignore_label is not None and (unknown := labels == config.ignore_label).any():
        labels, ignored = np.where(unknown, 0, labels), unknown
    labels = _numbered(labels, folder.files[name])
    try:
        with open_slide(image, channels=config.channels) as reader:
            choice = choose(reader.channel_names, config.in_channels, image)
            mapping = normalization.measure(choice.apply(reader.sample()))
            pixels = reader.read(Region(0, 0, reader.height, reader.width))
        mapped = choice.to_bytes(pixels, mapping, config.in_channels)
    except ImageError as error:
        text = str(error)
        raise DataError(text if text.startswith(str(image)) else f"{image}: {text}") from None
    _same_size(folder.files[name], labels.shape, pixels.shape)
    boundary = mass = None
    if corner is not None:
        plane = _read_map(corner)
        _same_size(corner, plane.shape, pixels.shape)
        # Masks come as 0/1 and as 0/255, and JPEG leaves faint ripples around the lines.
        boundary = (plane > plane.max(initial=0) / 2).astype(np.uint8)
    if density is not None:
        plane = _read_map(density)
        _same_size(density, plane.shape, pixels.shape)
        mass = plane.astype(np.float32)
        if plane.dtype.kind != "f" and mass.any():  # grey levels know the shape, not the unit
            mass *= len(np.unique(labels[labels > 0])) / mass.sum(dtype=np.float64)
    elif "density" in config.heads:
        mass = targets.density_map(labels, config.density_spread, config.density_sigma, config.density_shape)
    return Sample(name, np.ascontiguousarray(mapped), labels, boundary, mass, ignored, origin)


def _numbered(labels: NDArray[np.integer], path: Path) -> NDArray[np.int32]:
    """Labels as int32 that float32 holds exactly, which is how OpenCV processes them."""
    if labels.size and labels.min() < 0:
        raise DataError(
            f"{path}: found label {labels.min()}; wanted 0 for background and 1 or more for cells"
        )
    if labels.size and labels.max() >= targets.LABEL_LIMIT:
        labels = np.unique(np.append(labels.ravel(), 0), return_inverse=True)[1][:-1].reshape(labels.shape)
    return labels.astype(np.int32)


def _read_map(path: Path) -> NDArray[np.generic]:
    """Read one plane of any number type."""
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            plane: NDArray[np.generic] | None = np.squeeze(tifffile.imread(path))
        else:
            plane = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_GRAYSCALE)
    except Exception as error:  # decoders raise whatever they like on damaged files
        raise DataError(f"{path}: cannot be read as a picture ({error}); replace or remove it") from None
    if plane is None or plane.ndim != 2:
        found = "no picture" if plane is None else f"shape {plane.shape}"
        raise DataError(f"{path}: found {found}; wanted a picture of one channel")
    return plane


def _same_size(path: Path, found: Iterable[int], image: Iterable[int]) -> None:
    (height, width, *_), (rows, columns, *_) = found, image
    if (height, width) != (rows, columns):
        raise DataError(f"{path}: is {width}×{height} pixels, its image {columns}×{rows}; both must agree")
