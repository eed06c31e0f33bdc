"""Which tile and batch size computes useful pixels fastest on this machine."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cellseg.runtime.backends import Backend
from cellseg.runtime.errors import BackendError, UsageError

#: Tile edges and batch sizes that are tried.
TILES = (256, 384, 512, 768, 1024, 1536)
BATCHES = (1, 2, 4)
#: The largest batch in pixels: more only adds memory and delay.
LARGEST = 1536**2
#: Each size runs for this many seconds, and twice at least.
SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Rate:
    """What one size achieves."""

    tile: int
    batch: int
    #: Computed megapixels a second.
    computed: float
    #: Megapixels a second of cores, which is what a slide is made of.
    useful: float


def candidates(halo: int, multiple: int) -> Iterator[tuple[int, int]]:
    """Yield the sizes (tile, batch) that are worth a try: a third of the pixels useful at least."""
    for edge in TILES:
        tile = -(-edge // multiple) * multiple
        if tile > 2 * halo and (tile - 2 * halo) ** 2 >= tile**2 / 3:
            yield from ((tile, batch) for batch in BATCHES if batch * tile**2 <= LARGEST)


def measure(backend: Backend, halo: int, clock: Callable[[], float] = time.perf_counter) -> list[Rate]:
    """Time every candidate size; return them from the fastest per useful pixel down.

    Raises
    ------
    BackendError
        The engine ran none of them.
    """
    rates = []
    for tile, batch in candidates(halo, backend.spec.multiple):
        try:
            backend.prepare(tile, batch)
        except (UsageError, BackendError):
            continue  # beyond the engine's profile or memory
        computed = _rate(backend, clock)
        rates.append(Rate(tile, batch, computed, computed * (1 - 2 * halo / tile) ** 2))
    if not rates:
        raise BackendError(f"{backend.description}: none of the tile sizes {TILES} fits a halo of {halo}")
    return sorted(rates, key=lambda rate: -rate.useful)


def _rate(backend: Backend, clock: Callable[[], float]) -> float:
    """Return computed megapixels a second with the engine's queue kept full."""
    images = backend.new_batch()
    images[:] = np.random.default_rng(0).integers(0, 256, images.shape, np.uint8)
    backend.submit(images).result()  # the first one warms up
    planes = deque(backend.new_planes() for _ in range(backend.in_flight))
    start, done = clock(), 0
    pending = deque(backend.submit(images, each) for each in planes)
    while done < 2 or clock() - start < SECONDS:
        pending.popleft().result()
        pending.append(backend.submit(images, planes[0]))  # the plane that has just fallen free
        planes.rotate(-1)
        done += 1
    for one in pending:
        one.result()
    done += len(pending)
    return done * backend.batch * backend.tile**2 / 1e6 / (clock() - start)
