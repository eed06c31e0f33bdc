"""Which tile and batch size computes useful pixels fastest on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cellseg.runtime.backends import Backend
from cellseg.runtime.backends.rates import rate
from cellseg.runtime.errors import BackendError, UsageError

#: Tile edges and batch sizes that are tried.
TILES = (256, 384, 512, 768, 1024, 1216, 1536, 2048)
BATCHES = (1, 2, 4)
#: The largest batch in pixels: more only adds memory and delay.
LARGEST = 2048**2
#: Each size runs for this many seconds a round, and twice at least.
SECONDS = 1.0
#: Rounds, of which a size's fastest counts: other work on the machine only ever slows one down.
ROUNDS = 3
#: After a round only sizes that reached this share of the fastest run again.
WORTH_A_TRY = 0.8
#: What is no slower than this share of the fastest is as fast; among those the least memory wins.
AS_FAST = 0.98


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
    """Time every candidate size in :data:`ROUNDS`; return them from the fastest per useful pixel down.

    Raises
    ------
    BackendError
        The engine ran none of them.
    """
    sizes, best = list(candidates(halo, backend.spec.multiple)), dict[tuple[int, int], Rate]()
    for _ in range(ROUNDS):
        for tile, batch in sizes:
            try:
                backend.prepare(tile, batch)
            except (UsageError, BackendError):
                continue  # beyond the engine's profile or memory
            computed = rate(backend, SECONDS, clock)
            found = Rate(tile, batch, computed, computed * (1 - 2 * halo / tile) ** 2)
            best[tile, batch] = max(best.get((tile, batch), found), found, key=lambda each: each.useful)
        if not best:
            raise BackendError(f"{backend.description}: none of the tile sizes {TILES} fits a halo of {halo}")
        rates = sorted(best.values(), key=lambda each: -each.useful)
        sizes = [(each.tile, each.batch) for each in rates if each.useful >= WORTH_A_TRY * rates[0].useful]
    return rates


def choose(rates: list[Rate]) -> Rate:
    """Return the rate of the smallest batch in pixels among those of :func:`measure` that are as fast."""
    return min(
        (rate for rate in rates if rate.useful >= AS_FAST * rates[0].useful),
        key=lambda rate: (rate.batch * rate.tile**2, -rate.useful),
    )
