"""Images over workers: what a second process is worth here, and what handing out costs with many workers.

    python benchmarks/cluster.py --real [--pictures 12] [--edge 2048] [--json cluster.json]
    python benchmarks/cluster.py --shared 20000 [--inputs DIR] [--json cluster.json]
    python benchmarks/cluster.py --simulate 114 [--workers 1,2,4,8,16,32,64] [--slides 1000] [--json …]
    python benchmarks/cluster.py --plot docs/_static/cluster.svg

``--real`` segments generated pictures on ``local:1`` and ``local:2``; ``ratio`` is the quotient of their
pixels a second, opening of the cluster left out, that of the engines not (some pictures are done before), and
``identical`` says whether all files but records, pages and pictures are the same, byte for byte.

``--shared EDGE`` does the same with one slide, which the two processes compute in spans.

``--simulate MPX_S`` measures everything of ours but the slides themselves: the scheduler, its messages, the
checks before the run, progress, results that come back. Workers are those of ``distributed``, talk TCP, and
get our plugin and our tasks; in place of reading, inferring and writing they wait as long as a slide of that
size takes at so many megapixels a second, tell how far they are as a real one does, and return the result of
a real run. All live in one process, so the figures are a lower bound: real workers have their own processors.

* ``efficiency``: seconds of all slides by those of all workers while the run lasted. ``ideal`` is what is
  left of 1 because the last slides do not end at the same time, with no cost at all.
* ``bytes_a_slide``: all that scheduler, client and workers said to each other, by the slides; ``share`` is
  relative to the pixels of a slide.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from host import NULL_SPEC, SCENE, NullEngine, RepeatedReader
from scene import Scene
from slides import Fluorescence, place, write

from cellseg.runtime.backends import Backend
from cellseg.runtime.batch.jobs import Job, Outcome
from cellseg.runtime.cluster import worker as at_worker
from cellseg.runtime.cluster.connect import connect
from cellseg.runtime.cluster.run import run_jobs
from cellseg.runtime.cluster.span import Span
from cellseg.runtime.options import SegmentOptions
from cellseg.runtime.pipeline import segment
from cellseg.runtime.results.result import Result
from cellseg.runtime.streaming.progress import Progress

#: Endings of files that say when they were made, or how fast.
DATED = (".json", ".html", ".png")
#: Slides of a simulation for each worker, where that is fewer than asked for: a run shall end.
ROUNDS = 16
#: One process that stands for many machines may be kept waiting by others on a busy one.
PATIENT = {
    "distributed.comm.timeouts.tcp": "600s",
    "distributed.scheduler.worker-ttl": None,
    # As our plugin has it with real workers; here it must be said before they start.
    "distributed.worker.profile.enabled": False,
}
#: Channels of a simulated slide.
CHANNELS = 3
#: Seconds between two calls of progress, as in a real run.
TICK = 0.2


def hashes(folder: Path) -> dict[str, str]:
    """Return a digest of every file that shall not depend on who made it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (path.name == "zarr.json" or path.suffix not in DATED)
    }


def make_picture(path: Path, edge: int, number: int) -> Path:
    """Write a picture of nuclei in fluorescence, 1,000 a megapixel, unless it is there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = place(edge, edge, round(edge * edge * 1e-3), number)
        partial = path.with_name(f"partial-{path.name}")
        write(partial, Fluorescence(cells, edge, edge, number), np.dtype(np.uint8), compression="zlib")
        partial.replace(path)
    return path


def run_real(paths: list[Path], warm: Path, processes: int, output: Path, span: Span) -> float:
    """Return the seconds that so many processes take, each opening its engine again."""
    with connect(f"local:{processes}") as connected:
        first = [Job(str(warm), output / "warm" / str(i), SegmentOptions()) for i in range(processes)]
        failed = [outcome.error for outcome in run_jobs(first, connected, span="none") if outcome.error]
        jobs = [Job(str(path), output / "out" / path.stem, SegmentOptions()) for path in paths]
        started = time.perf_counter()
        failed += [outcome.error for outcome in run_jobs(jobs, connected, span=span) if outcome.error]
        seconds = time.perf_counter() - started
    if failed:
        raise click.ClickException(str(failed[0]))
    return seconds


def real(count: int, edge: int, repeats: int, inputs: Path | None, *, shared: bool = False) -> dict[str, Any]:
    """Measure one process against two, in turns: of pictures, or of one that the two share in spans."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        place_of = (inputs or folder / "in") / f"{edge}"
        paths = [make_picture(place_of / f"picture{number:02}.tif", edge, number) for number in range(count)]
        warm = make_picture(place_of.with_name("1024") / "picture00.tif", 1024, 0)
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for repeat in range(repeats):
            for processes in seconds:
                output = folder / f"{processes}-{repeat}"
                span: Span = "auto" if shared else "none"
                seconds[processes].append(run_real(paths, warm, processes, output, span))
        outputs = [
            hashes(folder / f"{number}-{repeat}" / "out") for number in seconds for repeat in range(repeats)
        ]
    megapixels = count * edge * edge / 1e6
    best = {number: min(found) for number, found in seconds.items()}
    return {
        "pictures": count,
        "edge": edge,
        "files": len(outputs[0]),
        "identical": all(found == outputs[0] for found in outputs),
        "seconds": {str(number): found for number, found in seconds.items()},
        "mpx_s": {str(number): megapixels / found for number, found in best.items()},
        "ratio": best[1] / best[2],
    }


class Traffic:
    """Counts the bytes that TCP connections of this process send."""

    def __init__(self) -> None:
        self.sent = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count meanwhile."""
        from distributed.comm.tcp import TCP

        plain = TCP.write

        async def counted(comm: Any, *arguments: Any, **keywords: Any) -> int:
            sent = int(await plain(comm, *arguments, **keywords))
            self.sent += sent
            return sent

        setattr(TCP, "write", counted)  # noqa: B010  (mypy knows no other way to replace a method)
        try:
            yield
        finally:
            setattr(TCP, "write", plain)  # noqa: B010


class Simulation:
    """What workers do in place of a slide: wait, and tell how far they are."""

    def __init__(self, mpx_s: float, pixels: list[int], template: Result) -> None:
        self._mpx_s, self._pixels, self._template = mpx_s, pixels, template

    def seconds(self, number: int) -> float:
        """Return how long a slide takes."""
        return self._pixels[number] / 1e6 / self._mpx_s

    def attempt(
        self, job: Job, backend: Backend, progress: Callable[[Progress], None], *, fresh: bool
    ) -> Outcome:
        """Wait as long as the slide would take, from when it is called."""
        number = int(job.folder.name)
        started, total = time.monotonic(), self.seconds(number)
        while (left := started + total - time.monotonic()) > 0:
            time.sleep(min(TICK, left))
            part = min(1.0, (time.monotonic() - started) / total)
            done = int(part * self._pixels[number])
            progress(Progress(self._pixels[number], done, done // 1000, total * part, {}))
        return Outcome(job, self._template)

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Let workers do this."""
        plain, opening = at_worker.attempt, at_worker.open_backend
        at_worker.attempt = self.attempt
        at_worker.open_backend = lambda *_, **__: NullEngine(np.zeros((2, 64, 64), np.uint8), 64, 64)
        try:
            yield
        finally:
            at_worker.attempt, at_worker.open_backend = plain, opening


def ideal_efficiency(seconds: list[float], workers: int) -> float:
    """Return the efficiency of handing out slides in turn to whoever is free, at no cost."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return sum(seconds) / workers / max(free)


def simulate(workers: int, slides: int, mpx_s: float, edge: int, template: Result) -> dict[str, Any]:
    """Hand slides out to so many workers; each has between half and one and a half times the pixels."""
    import dask
    from distributed import Client, LocalCluster

    rng = random.Random(0)
    count = min(slides, workers * ROUNDS) if workers < 16 else slides
    pixels = [round(edge * edge * rng.uniform(0.5, 1.5)) for _ in range(count)]
    simulation, traffic = Simulation(mpx_s, pixels, template), Traffic()
    seconds = [simulation.seconds(number) for number in range(count)]
    with tempfile.TemporaryDirectory() as temporary:
        jobs = [Job(f"/slides/{i}.svs", Path(temporary) / str(i), SegmentOptions()) for i in range(count)]
        with (
            # One process that stands for many machines may be kept waiting by others on a busy one.
            dask.config.set(PATIENT),
            simulation.instead(),
            traffic.counting(),
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=False,
                protocol="tcp://",
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                memory_limit=None,
            ) as cluster,
            Client(cluster) as client,
            connect(client) as connected,
        ):
            before, started = traffic.sent, time.perf_counter()
            told: list[Any] = []
            first = 0.0
            for outcome in run_jobs(jobs, connected, tell=told.append):
                if outcome.error is not None:
                    raise click.ClickException(str(outcome.error))
                first = first or time.perf_counter() - started
            wall = time.perf_counter() - started
    return {
        "workers": workers,
        "slides": count,
        "slide_seconds": sum(seconds) / count,
        "seconds": wall,
        "first_seconds": first,
        "events": len(told),
        "efficiency": sum(seconds) / workers / wall,
        "ideal": ideal_efficiency(seconds, workers),
        "bytes_a_slide": (traffic.sent - before) / count,
        "share": (traffic.sent - before) / (sum(pixels) * CHANNELS),
    }


def simulations(workers: list[int], slides: int, mpx_s: float, edge: int) -> dict[str, Any]:
    """Measure with each number of workers."""
    scene = Scene.make(SCENE)
    with tempfile.TemporaryDirectory() as temporary:
        with NullEngine(scene.planes, 512, 512) as engine:
            reader = RepeatedReader(scene.image, 512, 512)
            template = segment(reader, engine, output=Path(temporary) / "out", tile=NULL_SPEC.tile)
        found = []
        for count in workers:
            found.append(simulate(count, slides, mpx_s, edge, template))
            one = found[-1]
            click.echo(
                f"{count:3} workers, {one['slides']:5} slides: efficiency {one['efficiency']:.3f} of "
                f"{one['ideal']:.3f}, {one['bytes_a_slide'] / 1e3:.1f} kB a slide ({one['share']:.5%})"
            )
    return {"mpx_s": mpx_s, "edge": edge, "runs": found}


def draw(runs: list[dict[str, Any]]) -> str:
    """Return the efficiency by the number of workers as SVG."""
    left, top, wide, high = 56, 16, 420, 220
    bottom = 0.5

    def at(index: int, value: float) -> tuple[float, float]:
        x = left + wide * index / max(1, len(runs) - 1)
        return round(x, 1), round(top + high * (1 - (value - bottom) / (1 - bottom)), 1)

    def line(name: str, style: str) -> str:
        points = " ".join(
            f"{x},{y}" for x, y in (at(i, max(bottom, run[name])) for i, run in enumerate(runs))
        )
        return f'<polyline points="{points}" fill="none" {style}/>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + wide + 24} {top + high + 48}" '
        'font-family="sans-serif" font-size="12" role="img" aria-label="Efficiency by number of workers">',
    ]
    for step in range(6):
        value = bottom + step * 0.1
        _, y = at(0, value)
        parts.append(f'<line x1="{left}" x2="{left + wide}" y1="{y}" y2="{y}" stroke="#8884"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end" fill="#888">{value:.1f}</text>')
    parts.append(line("ideal", 'stroke="#888" stroke-dasharray="5 4"'))
    parts.append(line("efficiency", 'stroke="#2f6fde" stroke-width="2.5"'))
    for index, run in enumerate(runs):
        x, y = at(index, max(bottom, run["efficiency"]))
        parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="#2f6fde"/>')
        parts.append(
            f'<text x="{x}" y="{top + high + 18}" text-anchor="middle" fill="#888">{run["workers"]}</text>'
        )
    parts.append(
        f'<text x="{left + wide / 2}" y="{top + high + 38}" text-anchor="middle" fill="#888">'
        "workers; dashed: at no cost at all</text></svg>"
    )
    return "\n".join(parts) + "\n"


def parse_counts(_context: click.Context, _option: click.Parameter, text: str) -> list[int]:
    """Return the numbers of ``1,2,4``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text}: wanted numbers, for example 1,2,4") from None


@click.command()
@click.option("--real", "measure", is_flag=True, help="Measure processes of this machine.")
@click.option("--pictures", default=12, show_default=True, help="Of --real.")
@click.option("--edge", default=2048, show_default=True, help="Of a picture of --real, pixels.")
@click.option("--repeats", default=2, show_default=True, help="Of --real; the fastest counts.")
@click.option("--shared", type=int, metavar="EDGE", help="Measure one slide of this edge, in spans.")
@click.option("--inputs", type=click.Path(path_type=Path), help="Keep generated pictures there.")
@click.option("--simulate", "mpx_s", type=float, metavar="MPX_S", help="Simulate workers of this speed.")
@click.option("--workers", callback=parse_counts, default="1,2,4,8,16,32,64", show_default=True)
@click.option("--slides", default=1000, show_default=True, help="Of --simulate, from 16 workers on.")
@click.option("--slide", default=20_000, show_default=True, help="Edge of a simulated slide, pixels.")
@click.option(
    "--json", "target", type=click.Path(path_type=Path), help="Write the figures; others there stay."
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the figures of --json.")
def main(
    measure: bool,
    pictures: int,
    edge: int,
    repeats: int,
    shared: int | None,
    inputs: Path | None,
    mpx_s: float | None,
    workers: list[int],
    slides: int,
    slide: int,
    target: Path | None,
    plot: Path | None,
) -> None:
    """Measure images over workers, real ones or simulated ones."""
    found: dict[str, Any] = json.loads(target.read_text()) if target and target.exists() else {}
    if measure:
        found["real"] = real(pictures, edge, repeats, inputs)
        click.echo(json.dumps(found["real"], indent=1))
    if shared is not None:
        found["shared"] = real(1, shared, 1, inputs, shared=True)
        click.echo(json.dumps(found["shared"], indent=1))
    if mpx_s is not None:
        earlier = found.get("simulated", {})
        found["simulated"] = simulations(workers, slides, mpx_s, slide)
        if (earlier.get("mpx_s"), earlier.get("edge")) == (mpx_s, slide):
            kept = [run for run in earlier["runs"] if run["workers"] not in workers]
            found["simulated"]["runs"] = sorted(
                [*kept, *found["simulated"]["runs"]], key=lambda run: int(run["workers"])
            )
    found["machine"] = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    if target is not None:
        target.write_text(json.dumps(found, indent=1) + "\n")
    if plot is not None:
        plot.write_text(draw(found["simulated"]["runs"]))


if __name__ == "__main__":
    main()
