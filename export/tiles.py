"""Tiles to compare, calibrate and measure with: from a folder, from the validation set, or generated.

Every source gives bytes exactly as the runtime would feed them to the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cellseg.runtime.common.spelling import written_as
from cellseg.runtime.errors import DataError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.intensity import normalization
from cellseg.runtime.intensity.channels import choose
from cellseg.runtime.readers import open_slide
from cellseg.train.config import TrainConfig

Bytes = NDArray[np.uint8]
#: A picture is cut into this many tiles at most, so that a set of pictures shows its variety.
TILES_A_PICTURE = 4


@dataclass(frozen=True, slots=True)
class Tiles:
    """Square tiles of one size."""

    #: (n, edge, edge, C) uint8.
    images: Bytes
    #: Where they come from, for people.
    source: str

    def __len__(self) -> int:
        return len(self.images)


def gather(
    folder: Path | None,
    config: TrainConfig,
    *,
    count: int,
    edge: int,
    minimum: int = 1,
    near: Path | None = None,
) -> Tiles:
    """Return up to `count` tiles from the best source there is.

    Parameters
    ----------
    folder
        Pictures, or a data set with ``image/`` in it; ``None`` takes the validation images that the
        network was trained against where they are still there, and generated tiles otherwise.
    edge
        Edge of a tile in pixels.
    minimum
        Fewer tiles than this are refused.
    near
        The checkpoint: relative data paths are also tried from the folder that training ran in.

    Raises
    ------
    DataError
        `folder` has too few pictures.
    ImageError
        A picture in `folder` cannot be read or does not fit the network's channels.
    """
    if folder is None:
        folder = validation_folder(config, near)
        if folder is None:
            images = np.stack([image for image, _ in generate(count, edge, config.in_channels)])
            return Tiles(images, f"{count} generated tiles")
    images = from_folder(folder, channels=config.in_channels, count=count, edge=edge, read=config.channels)
    if len(images) < minimum:
        raise DataError(
            f"{folder}: its pictures give {len(images)} tiles of {edge} pixels, wanted {minimum} at least; "
            "add pictures of the kind that the model is for"
        )
    return Tiles(images, f"{len(images)} tiles from {folder}")


def validation_folder(config: TrainConfig, near: Path | None = None) -> Path | None:
    """Return the folder of validation images that `config` names, where it exists."""
    bases = [Path()]
    if near is not None:  # work_dirs/NAME/best.pt was written from the folder above work_dirs
        bases += near.resolve().parents[:4]
    for base in bases:
        for each in config.data_sets:
            folder = base / each.path / "val" / "image"
            if folder.is_dir():
                return folder
    return None


def pictures(folder: Path) -> list[Path]:
    """Return the files of a folder, or of ``image/`` within it, sorted by name.

    Raises
    ------
    DataError
        There is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name one that holds pictures")
    inner = folder / "image"
    folder = inner if inner.is_dir() else folder
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise DataError(f"{folder}: holds no pictures")
    return files


def from_folder(
    folder: Path, *, channels: int, count: int, edge: int, read: Sequence[int | str] | None = None
) -> Bytes:
    """Cut up to `count` tiles out of a folder's pictures, evenly over the sorted names.

    Pictures smaller than a tile are continued by reflection. ``read`` names the channels to read, as for
    training; ``channels`` is how many the network takes.
    """
    files = pictures(folder)
    step = max(1, len(files) * TILES_A_PICTURE // max(count, 1) // TILES_A_PICTURE)
    chosen = files[::step]
    share = max(1, min(TILES_A_PICTURE, -(-count // len(chosen))))
    tiles: list[Bytes] = []
    for path in chosen:
        tiles += _cut(path, channels, edge, share, read)
        if len(tiles) >= count:
            break
    return np.stack(tiles[:count])


def _cut(path: Path, channels: int, edge: int, share: int, read: Sequence[int | str] | None) -> list[Bytes]:
    """Cut `share` tiles, evenly placed along the picture's diagonal."""
    with written_as("configuration"), open_slide(path, channels=read) as slide:
        choice = choose(slide.channel_names, channels, path)
        mapping = normalization.measure(choice.apply(slide.sample()))
        height, width = min(edge, slide.height), min(edge, slide.width)
        tiles: list[Bytes] = []
        for part in range(share):
            where = (part + 0.5) / share
            y, x = round(where * (slide.height - height)), round(where * (slide.width - width))
            if part and (y, x) == (0, 0):
                break  # the picture is no larger than one tile
            raw = slide.read(Region(y, x, height, width))
            pixels = choice.to_bytes(raw, mapping, channels)
            margins = ((0, edge - height), (0, edge - width), (0, 0))
            mode = "symmetric" if min(height, width) < 2 else "reflect"
            tiles.append(np.ascontiguousarray(np.pad(pixels, margins, mode=mode)))  # type: ignore[call-overload]
    return tiles


def generate(
    count: int, edge: int, channels: int, seed: int = 0
) -> Iterator[tuple[Bytes, NDArray[np.int32]]]:
    """Draw tiles of nuclei with their labels: by turns fluorescence and stained tissue.

    Yields
    ------
    image
        (edge, edge, channels) uint8.
    labels
        (edge, edge) int32, 0 is background.
    """
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        labels = np.zeros((edge, edge), np.int32)
        shade = np.zeros((edge, edge), np.float32)
        mean_radius = rng.uniform(5, 11)
        for label in range(1, 2 + int(0.45 * edge**2 / (np.pi * mean_radius**2))):
            axes = np.maximum(mean_radius * rng.uniform(0.7, 1.3, 2), 2)
            spot = np.zeros((edge, edge), np.uint8)
            centre, angle = rng.uniform(0, edge, 2), rng.uniform(0, 180)
            cv2.ellipse(spot, (tuple(map(float, centre)), tuple(map(float, 2 * axes)), float(angle)), 1, -1)
            inside = (spot > 0) & (labels == 0)
            labels[inside] = label
            shade[inside] = rng.uniform(0.45, 1.0)
        texture = cv2.GaussianBlur(rng.normal(size=(edge, edge)).astype(np.float32), (0, 0), 2.0)
        shade = cv2.GaussianBlur(shade * (1 + 1.2 * texture), (0, 0), 0.8)
        noise = rng.normal(0, 0.02, (edge, edge, 3)).astype(np.float32)
        if index % 2:
            paper = np.array([0.93, 0.82, 0.90], np.float32) * (1 + 0.4 * texture[..., None])
            picture = paper - shade[..., None] * np.array([0.55, 0.62, 0.32], np.float32)
        else:
            picture = np.repeat(0.05 + 0.8 * shade[..., None], 3, axis=2)
        raw = np.clip((picture + noise) * 255, 0, 255).astype(np.uint8)
        raw = normalization.to_channels(normalization.measure(raw).apply(raw), channels)
        yield np.ascontiguousarray(raw), labels
