"""Kill workers of a cluster at random moments; what the others then make must be the same bytes.

    python tests/system/kill_workers.py ROUNDS [SEED]

Not part of the suite: a round takes seconds. In each, pictures are shared out over two processes of this
machine, with a stand-in for the engine that takes its time, and one worker or both are ended by SIGKILL at a
random moment. Every file of the results but records, pages and pictures is compared with those of one process
that nobody disturbed; nothing else may be left in the folder. Ends with 1 at the first difference.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from distributed.diagnostics.plugin import WorkerPlugin

from cellseg.runtime.batch.jobs import Job, run_job
from cellseg.runtime.cluster.connect import connect
from cellseg.runtime.cluster.run import run_jobs
from cellseg.runtime.options import SegmentOptions
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec

PICTURES, SHAPE, PROCESSES = 6, (200, 240), 2
#: Seconds in which a killed worker is started again. Dask gives one up that is killed while it is starting.
BACK = 20
#: Endings of files that say when they were made, or how fast.
DATED = (".json", ".html", ".png")
OPTIONS = SegmentOptions(csv=True)


class Slow(LocalEngine):
    """An engine that takes its time."""

    def submit(self, *arguments: Any) -> Any:
        """Wait, then compute."""
        time.sleep(0.01)
        return super().submit(*arguments)


def open_slow(*_: object, **__: object) -> LocalEngine:
    """Open that engine, whatever is asked for."""
    return Slow(local_spec(2, tile=40))


class StandIn(WorkerPlugin):  # type: ignore[misc]  # distributed is not typed
    """Lets workers open it, also those that take the place of killed ones."""

    name = "stand-in"

    def setup(self, worker: Any) -> None:
        """Put it in place."""
        from cellseg.runtime.cluster import worker as at_worker

        at_worker.open_backend = open_slow


def hashes(folder: Path) -> dict[str, str]:
    """Return a digest of every file that shall not depend on who made it; of the others the name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name == "zarr.json" or path.suffix not in DATED
        else ""
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make(folder: Path) -> list[Path]:
    """Write pictures of round spots."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    paths = []
    for number in range(PICTURES):
        picture = np.full(SHAPE, 8, np.uint8)
        for y, x, radius in zip(
            rng.integers(0, SHAPE[0], 40), rng.integers(0, SHAPE[1], 40), rng.integers(4, 9, 40), strict=True
        ):
            picture[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 220
        paths.append(folder / f"picture{number}.tif")
        tifffile.imwrite(paths[-1], picture)
    return paths


def jobs_of(paths: list[Path], output: Path) -> list[Job]:
    """Return what is to be done."""
    return [Job(str(path), output / path.stem, OPTIONS) for path in paths]


def one_round(connected: Any, paths: list[Path], output: Path, rng: random.Random, longest: float) -> int:
    """Run once, with workers killed; return how many were."""
    pids = list(connected.client.run(os.getpid).values())
    rng.shuffle(pids)
    killed: list[int] = []

    def kill(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    victims = pids[: rng.choice([1, 1, 1, 2])]
    timers = [threading.Timer(rng.uniform(0, longest), kill, [pid]) for pid in victims]
    for timer in timers:
        timer.start()
    failed = [str(outcome.error) for outcome in run_jobs(jobs_of(paths, output), connected) if outcome.error]
    for timer in timers:
        timer.cancel()
        timer.join()
    if failed:
        raise SystemExit(f"failed: {failed}")
    return len(killed)


def new_cluster(stack: contextlib.ExitStack) -> Any:
    """Start workers with that engine; those of before end."""
    stack.close()
    connected = stack.enter_context(connect(f"local:{PROCESSES}"))
    connected.client.register_plugin(StandIn())
    connected.client.wait_for_workers(PROCESSES, timeout=600)
    return connected


def main(rounds: int, seed: int) -> None:
    """Kill workers in a number of rounds."""
    rng = random.Random(seed)
    kills = 0
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        paths = make(folder)
        with open_slow() as engine:
            for job in jobs_of(paths, folder / "alone"):
                if error := run_job(job, engine).error:
                    raise error
        wanted = hashes(folder / "alone")
        connected = new_cluster(stack)
        started = time.perf_counter()
        one_round(connected, paths, folder / "warm", random.Random(), 0.001)  # opens what is slow at first
        longest = time.perf_counter() - started
        for number in range(rounds):
            try:
                connected.client.wait_for_workers(PROCESSES, timeout=BACK)
            except TimeoutError:
                connected = new_cluster(stack)
            output = folder / str(number)
            began = time.perf_counter()
            kills += one_round(connected, paths, output, rng, longest)
            # A kill shall fall into the run, so its length without one is what counts.
            longest = min(longest, time.perf_counter() - began)
            if (found := hashes(output)) != wanted:
                differing = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
                raise SystemExit(
                    f"round {number}, seed {seed}: {len(differing)} files differ: {differing[:9]}"
                )
            print(f"round {number}: {kills} workers killed so far, no difference", flush=True)
    print(f"{rounds} rounds, {kills} workers killed, {len(wanted)} files each, 0 differences")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
