"""Components into measured cells on several threads.

The kernel works without the GIL; each thread has its own :class:`~cellseg.runtime.kernels.split.Splitter`.
Components are independent of one another, so the number of threads cannot change a result.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..intensity.stains import Stains
from ..kernels.label import HELD_DTYPE
from ..kernels.paint import Painter
from ..kernels.split import Splitter
from .rules import SplitRules
from .window import RowWindow

#: Bounding-box pixels of components that are worth a task of their own for a thread.
TASK_PIXELS = 100_000
#: Pixels of a label image that are.
PAINT_PIXELS = 500_000

_KINDS = {"uint8": 1, "uint16": 2, "float32": 3}
_Result = tuple[
    NDArray[np.void], NDArray[np.float64], NDArray[np.int32], NDArray[np.void], NDArray[np.void], int, int
]


@dataclass(slots=True)
class Batch:
    """Cells of some components, numbered as far as their numbers are known.

    Attributes
    ----------
    cells, intensity, outline, runs
        As from :meth:`cellseg.runtime.kernels.split.Splitter.process`.
    numbers
        Number of each cell; 0 where it is not known yet.
    end
        Row behind the last of any of them.
    """

    cells: NDArray[np.void]
    intensity: NDArray[np.float64]
    outline: NDArray[np.int32]
    runs: NDArray[np.void]
    numbers: NDArray[np.int32]
    end: int

    def below(self, y: int) -> Batch:
        """Return the same cells without their runs above row ``y``."""
        return replace(self, runs=self.runs[self.runs["y"] >= y])


@dataclass(slots=True)
class Outcome:
    """What became of some components: cells, and pixels held back (empty without limits)."""

    batches: list[Batch]
    held: NDArray[np.void]
    dropped: int
    filled: int


class SplitPool:
    """Workers that split and measure components.

    Parameters
    ----------
    rules
        What the kernel does.
    image_channels
        Channels of the image to measure; 0 for none.
    workers
        Threads.
    stains
        Whose optical densities are measured; ``None`` for none.
    """

    def __init__(
        self, rules: SplitRules, image_channels: int, workers: int, stains: Stains | None = None
    ) -> None:
        self._rules = rules
        self._channels = image_channels
        self._stains = stains
        self._table: NDArray[np.int32] | None = None
        self._splitters = [rules.splitter() for _ in range(workers)]
        self._executor = ThreadPoolExecutor(workers, "cellseg-split") if workers > 1 else None

    def close(self) -> None:
        """End the threads."""
        if self._executor is not None:
            self._executor.shutdown()

    def split(
        self,
        components: NDArray[np.void],
        runs: NDArray[np.void],
        limits: NDArray[np.void] | None,
        window: RowWindow,
        image_dtype: np.dtype[np.generic] | None,
    ) -> Outcome:
        """Split and measure components; arguments as for the kernel's ``process``."""
        rules = self._rules
        addresses = [None if k is None else window.planes[k] for k in (0, rules.boundary, rules.density)]
        mask, boundary, density = addresses
        assert mask is not None
        kind = _KINDS[image_dtype.name] if image_dtype is not None else 0
        if self._stains is not None and self._table is None and image_dtype is not None:
            self._table = self._stains.table(image_dtype)

        def work(splitter: Splitter, begin: int, end: int) -> _Result:
            return splitter.process(
                components[begin:end],
                runs,
                None if limits is None else limits[begin:end],
                window.y,
                mask,
                boundary,
                density,
                window.image if kind else None,
                kind,
                self._channels if kind else 0,
                self._table,
                0 if self._table is None or self._stains is None else len(self._stains),
            )

        cuts = self._cuts(components)
        results: list[_Result | None] = [None] * (len(cuts) - 1)
        if self._executor is None or len(cuts) <= 2:
            for task in range(len(cuts) - 1):
                results[task] = work(self._splitters[0], cuts[task], cuts[task + 1])
        else:
            tasks = iter(range(len(cuts) - 1))
            lock = threading.Lock()

            def lane(splitter: Splitter) -> None:
                while True:
                    with lock:
                        task = next(tasks, None)
                    if task is None:
                        return
                    results[task] = work(splitter, cuts[task], cuts[task + 1])

            for _ in self._executor.map(lane, self._splitters):
                pass
        return _collect(cuts, (result for result in results if result is not None))

    def paint(self, labels: NDArray[np.int32], y: int, batches: Sequence[Batch]) -> None:
        """Clear a label image that begins with row ``y``, and write the numbers of cells into it."""
        painter = Painter([(batch.runs, batch.numbers) for batch in batches])
        parts = min(len(self._splitters), len(labels), max(1, labels.size // PAINT_PIXELS))
        if self._executor is None or parts == 1:
            painter.paint(labels, y)
            return
        cuts = [part * len(labels) // parts for part in range(parts + 1)]
        tasks = [
            self._executor.submit(painter.paint, labels[begin:end], y + begin)
            for begin, end in itertools.pairwise(cuts)
        ]
        for task in tasks:
            task.result()

    def _cuts(self, components: NDArray[np.void]) -> list[int]:
        """Return the borders of the tasks: about equal work, several for each thread."""
        n = len(components)
        if self._executor is None or n < 2:
            return [0, n] if n else [0]
        height = (components["y1"] - components["y0"]).astype(np.int64)
        width = components["x1"] - components["x0"]
        work = np.cumsum((height + 2) * (width + 2) + 100)
        n_tasks = min(n, 4 * len(self._splitters), max(1, int(work[-1] // TASK_PIXELS)))
        wanted = work[-1] * np.arange(1, n_tasks) // n_tasks
        return sorted({0, n, *(int(i) for i in np.searchsorted(work, wanted))})


def _collect(cuts: list[int], results: Iterable[_Result]) -> Outcome:
    batches, held = [], [np.empty(0, HELD_DTYPE)]
    dropped = filled = 0
    for begin, (cells, intensity, outline, runs, kept_back, n_dropped, n_filled) in zip(
        cuts[:-1], results, strict=True
    ):
        if len(cells):
            numbers = np.zeros(len(cells), np.int32)
            batches.append(Batch(cells, intensity, outline, runs, numbers, int(cells["y1"].max())))
        if len(kept_back):
            kept_back["component"] += begin
            held.append(kept_back)
        dropped += n_dropped
        filled += n_filled
    return Outcome(batches, np.concatenate(held), dropped, filled)
