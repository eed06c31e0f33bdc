"""How fast an engine is by itself, with its queue kept full."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np

from .base import Backend


def rate(backend: Backend, seconds: float = 1.0, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return computed megapixels (10⁶ pixels) a second at the size that the engine is prepared for.

    Parameters
    ----------
    backend
        Prepared; nothing is pending.
    seconds
        How long to look; two batches at least.
    clock
        Returns seconds.
    """
    images = backend.new_batch()
    images[:] = np.random.default_rng(0).integers(0, 256, images.shape, np.uint8)
    backend.submit(images).result()  # the first one warms up
    planes = deque(backend.new_planes() for _ in range(backend.in_flight))
    start, done = clock(), 0
    pending = deque(backend.submit(images, each) for each in planes)
    while done < 2 or clock() - start < seconds:
        pending.popleft().result()
        pending.append(backend.submit(images, planes[0]))  # the plane that has just fallen free
        planes.rotate(-1)
        done += 1
    for one in pending:
        one.result()
    done += len(pending)
    return done * backend.batch * backend.tile**2 / 1e6 / (clock() - start)
