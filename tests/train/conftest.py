"""A small data set of round cells on noise, drawn from a seed."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from cellseg.train.config import TrainConfig, parse

torch.set_num_threads(1)

#: A network and a budget that train in a second.
TINY = {
    "in_channels": 1,
    "init_channel_number": 2,
    "model_deep": 1,
    "crop": 32,
    "batch_size": 2,
    "use_corner": 1.0,
    "use_density": 0.5,
    "learning_rate": 0.01,
    "epochs": 1000,
    "workers": 0,
    "val_interval": 4,
    "overlay_interval": 0,
    "accelerator": "cpu",
}


def draw_cells(rng: np.random.Generator, size: int = 64, cells: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return an 8-bit image and its 16-bit instance labels."""
    labels = np.zeros((size, size), np.uint16)
    for number in range(1, cells + 1):
        x, y = (int(v) for v in rng.integers(4, size - 4, 2))
        cv2.circle(labels, (x, y), int(rng.integers(4, 8)), number, -1)
    noise = rng.normal(0, 10, labels.shape)
    return np.clip(30 + 140 * (labels > 0) + noise, 0, 255).astype(np.uint8), labels


def write_split(folder: Path, count: int, seed: int, size: int = 64) -> None:
    rng = np.random.default_rng(seed)
    for name in ("image", "label"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        image, labels = draw_cells(rng, size)
        cv2.imwrite(str(folder / "image" / f"{folder.name}{i}.png"), image)
        cv2.imwrite(str(folder / "label" / f"{folder.name}{i}.png"), labels)


def write_data_set(root: Path) -> Path:
    """Four training and two validation images."""
    write_split(root / "train", 4, seed=1)
    write_split(root / "val", 2, seed=2)
    return root


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """The small data set, fresh for each test."""
    return write_data_set(tmp_path / "cells")


@pytest.fixture
def configure(cells: Path) -> Callable[..., TrainConfig]:
    """Make a configuration on the small data set."""

    def make(**changes: Any) -> TrainConfig:
        return parse({**TINY, "dataset_path": str(cells), **changes}, "test")

    return make
