"""How often each image is drawn: by its kind, its cells and the data set it is from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg.runtime.errors import DataError

from ..config import TrainConfig
from .samples import Sample


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
