"""Everything but the engine: stand-ins for a slide and a network, and where the processor time goes.

``end_to_end.py`` and ``million.py`` use it. A *stage* is a thread of its own, and may have a pool of
threads that helps it. Pools grow with the cores; the thread does not, so the busiest one says how fast the
pipeline can become.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scene import Scene

from cellseg.runtime.backends import Backend, Pending
from cellseg.runtime.geometry.tiling import Region, TileGrid
from cellseg.runtime.model.spec import Head, ModelSpec
from cellseg.runtime.pipeline import segment
from cellseg.runtime.readers import DirectReader, Level
from cellseg.runtime.results.result import Result

#: Edge of the scene that is repeated over the image without an engine, pixels.
SCENE = 2048
#: What stands in for the default model's shape without an engine.
NULL_SPEC = ModelSpec(
    name="null",
    architecture="NULL",
    channels=3,
    heads=(Head(name="mask"), Head(name="boundary")),
    multiple=8,
    halo=32,
    receptive_field=32,
    tile=512,
    batch=4,
)
#: What our threads' names begin with.
PREFIX = "cellseg-"


class RepeatedReader(DirectReader):
    """A scene repeated over an image of any size, in no memory but its own."""

    def __init__(self, scene: NDArray[np.uint8], height: int, width: int) -> None:
        super().__init__(
            Path("repeated"),
            dtype=scene.dtype,
            channel_names=("red", "green", "blue"),
            levels=[Level(height, width, 1.0)],
            pixel_size=0.5,
        )
        self._scene = scene

    def _read_into(self, region: Region, level: int, out: NDArray[np.uint8]) -> None:
        edge = len(self._scene)
        for y in range(region.y - region.y % edge, region.y1, edge):
            y0, y1 = max(y, region.y), min(y + edge, region.y1)
            for x in range(region.x - region.x % edge, region.x1, edge):
                x0, x1 = max(x, region.x), min(x + edge, region.x1)
                out[y0 - region.y : y1 - region.y, x0 - region.x : x1 - region.x] = self._scene[
                    y0 - y : y1 - y, x0 - x : x1 - x
                ]


class NullEngine(Backend):
    """Hands out the planes of a repeated scene, tile after tile in the grid's order.

    Parameters
    ----------
    scene
        Shape (K, edge, edge).
    height, width
        Size of the image in pixels.
    mpx_s
        Megapixels of the image a second that it pretends to compute, one batch after the other and
        without a processor, as a GPU does; ``None``: all is there at once.
    """

    name, device = "null", "cpu"
    in_flight = 2

    def __init__(self, scene: NDArray[np.uint8], height: int, width: int, mpx_s: float | None = None) -> None:
        super().__init__(NULL_SPEC)
        self._mpx_s = mpx_s
        self._free = 0.0  # when the engine is done with all that it has got
        #: Processor seconds that copying planes took, in place of the engine.
        self.cpu = 0.0
        self._size = height, width
        edge = scene.shape[1]
        self._edge = edge
        self._scene = np.pad(scene, ((0, 0), (0, NULL_SPEC.tile), (0, NULL_SPEC.tile)), mode="wrap")
        self._next = 0

    def _prepare(self, tile: int, batch: int) -> None:
        self._grid = TileGrid(*self._size, tile, self.spec.halo)

    def _submit(self, batch: NDArray[np.uint8], planes: NDArray[np.uint8]) -> Pending:
        started = time.thread_time()
        tiles = min(self.batch, len(self._grid) - self._next)
        for slot in range(self.batch):
            row, column = divmod(self._next + slot, self._grid.n_columns)
            y = (row * self._grid.core - self._grid.halo) % self._edge
            x = (column * self._grid.core - self._grid.halo) % self._edge
            planes[slot] = self._scene[:, y : y + self.tile, x : x + self.tile]
        self._next = (self._next + self.batch) if self._next + self.batch < len(self._grid) else 0
        self.cpu += time.thread_time() - started
        if self._mpx_s is not None:
            share = tiles / len(self._grid) * self._size[0] * self._size[1] / 1e6
            self._free = max(self._free, time.perf_counter()) + share / self._mpx_s
        return Done(planes, self._free)


@dataclass(frozen=True, slots=True)
class Done:
    """A batch that is ready at once, or at a time of ``time.perf_counter``."""

    planes: NDArray[np.uint8]
    ready: float = 0.0

    def result(self) -> NDArray[np.uint8]:
        """Wait for that time, and return it."""
        left = self.ready - time.perf_counter()
        if left > 0:
            time.sleep(left)
        return self.planes


class ThreadMeter:
    """Counts the processor seconds of every thread that ends inside it, by the thread's name."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._plain = threading.Thread.run

    def __enter__(self) -> Self:
        meter = self

        def run(thread: threading.Thread) -> None:
            try:
                meter._plain(thread)
            finally:
                with meter._lock:
                    meter.seconds[thread.name] += time.thread_time()

        threading.Thread.run = run  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        threading.Thread.run = self._plain  # type: ignore[method-assign]

    def stages(self) -> dict[str, dict[str, float]]:
        """Return seconds by stage: of its own thread, and of its pool."""
        found: dict[str, dict[str, float]] = {}
        for name, seconds in sorted(self.seconds.items()):
            if name.startswith(PREFIX):
                stage, _, number = name.removeprefix(PREFIX).partition("_")
                times = found.setdefault(stage, {"thread": 0.0, "pool": 0.0})
                times["pool" if number else "thread"] += seconds
        return found


@dataclass(frozen=True)
class HostRun:
    """A run of everything but the engine.

    Attributes
    ----------
    seconds, cpu
        Wall and processor seconds of all threads, opening and reporting included.
    stage_cpu
        Processor seconds by stage; ``thread`` is its own thread and ``pool`` the threads that help it.
        ``infer`` is the copying that stands in for the engine.
    """

    result: Result
    cpu: float
    stage_cpu: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def megapixels(self) -> float:
        """Size of the image."""
        return self.result.height * self.result.width / 1e6

    def figures(self) -> dict[str, Any]:
        """Return what is reported of it."""
        seconds = self.result.record.seconds
        serial = {name: times["thread"] for name, times in self.stage_cpu.items() if name != "infer"}
        slowest = max(serial, key=lambda name: serial[name])
        return {
            "host_mpx_s": self.megapixels / (seconds.run + seconds.finish),
            "host_cpu_mpx_s": self.megapixels / self.cpu,
            "slowest_stage_mpx_s": self.megapixels / serial[slowest],
            "slowest_stage": slowest,
            "stage_cpu_s": self.stage_cpu,
        }


def run_host(height: int, width: int, folder: Path, mpx_s: float | None = None) -> HostRun:
    """Run everything but the engine, which is told to take the time of ``mpx_s``, or none."""
    scene = Scene.make(SCENE)
    with NullEngine(scene.planes, 256, 256) as engine:  # what is imported and opened at first use
        segment(RepeatedReader(scene.image, 256, 256), engine, output=folder, tile=NULL_SPEC.tile)
    with NullEngine(scene.planes, height, width, mpx_s) as engine, ThreadMeter() as meter:
        reader = RepeatedReader(scene.image, height, width)
        started = time.process_time()
        result = segment(reader, engine, output=folder, overwrite=True, tile=NULL_SPEC.tile)
        cpu = time.process_time() - started
    stages = meter.stages()
    stages["gather"]["thread"] -= engine.cpu
    stages["infer"] = {"thread": engine.cpu, "pool": 0.0}
    return HostRun(result, cpu, stages)
