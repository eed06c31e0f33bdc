"""From a file to written results, against the engine alone and without an engine.

    python benchmarks/end_to_end.py --size 4096 [--engine m.onnx] [--json end_to_end.json]
    python benchmarks/end_to_end.py --size 40000x10000 --size 40000 --null-engine

Three figures, in megapixels (10⁶ pixels) of the image a second:

* ``end_to_end_mpx_s``: reading a tiled TIFF, inferring, splitting, measuring, and writing labels, table,
  GeoJSON and overview; opening the engine is not counted;
* ``engine_mpx_s``: the same engine on the same tiles and batches from memory, run before and after;
  ``ratio`` is the quotient of the two. ``cpu_ratio`` is that of their processor seconds: it says the
  same where the engine runs on the CPU, and is not disturbed by other processes;
* ``host_mpx_s``: everything but the engine, whose planes are ready made: nuclei on 17 % of the area,
  1,000 a megapixel, with three image channels. ``host_cpu_mpx_s`` is the same by processor seconds, in
  megapixels a second and core, as if no other process were there. ``stage_cpu_s`` says where they go, by
  stage: its own thread, and the pool that helps it and grows with the cores. ``slowest_stage_mpx_s`` is
  what the busiest thread could carry alone: more cores do not help beyond that.

``--null-engine`` measures the last only, on an image of any size that is made as it is read.
``--simulate MPX_S`` does so with an engine that takes the time that MPX_S megapixels a second take, without a
processor, as a GPU would; ``simulated_ratio`` is how much of that is left end to end.
``--cores 1,2`` measures each number of cores in a process of its own; ``scaling`` is relative to the first.
``side_by_side_mpx_s`` is what as many runs reach together that share nothing but the machine: cores side by
side are slower than one alone, so that no scaling can be larger than that.
``--once`` measures the first only, on such an image: for sizes at which an engine takes a quarter of an hour.
``peak_rss_mb`` is the most memory that this process held in all runs. Several sizes are a sweep, each in
a process of its own: time shall grow with the pixels, and memory not at all with the rows.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click
import numpy as np
from host import SCENE, RepeatedReader, run_host
from nuclei_placing import place
from scene import Scene
from slide_canvas import Fluorescence
from slides import write

from cellseg.runtime.backends import Backend, Pending, open_backend
from cellseg.runtime.common.heap import steady_heap
from cellseg.runtime.options import SegmentOptions
from cellseg.runtime.pipeline import segment
from cellseg.runtime.results.result import Result


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what a call returns, its seconds, and its processor seconds in all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def engine_alone(backend: Backend, batches: int) -> None:
    """Run a number of batches through an engine, as many in flight as it likes."""
    rng = np.random.default_rng(0)
    slots = [(backend.new_batch(), backend.new_planes()) for _ in range(backend.in_flight)]
    for batch, _ in slots:
        batch[:] = rng.integers(0, 256, batch.shape, np.uint8)
    flying: list[Pending] = []
    for number in range(batches):
        if len(flying) == len(slots):
            flying.pop(0).result()
        flying.append(backend.submit(*slots[number % len(slots)]))
    for pending in flying:
        pending.result()


def make_slide(height: int, width: int, path: Path) -> None:
    """Write nuclei in fluorescence, 1,000 a megapixel, as a tiled and compressed TIFF."""
    canvas = Fluorescence(place(height, width, round(height * width * 1e-3), 0), height, width, 0)
    write(path, canvas, np.dtype(np.uint8), compression="zlib")


def figures_of(result: Result, backend: Backend) -> dict[str, Any]:
    """Return what a run through an engine took; opening is not counted."""
    seconds, settings = result.record.seconds, result.record.settings
    return {
        "engine": backend.description,
        "model": backend.spec.name,
        "tile": settings.tile,
        "batch": settings.batch,
        "useful_fraction": settings.useful_fraction,
        "cells": result.count,
        "end_to_end_mpx_s": result.height * result.width / 1e6 / (seconds.run + seconds.finish),
        "seconds": result.record.to_dict()["seconds"],
        "stages": result.record.to_dict()["stages"],
    }


def run_engine(
    slide: Path,
    backend: Backend,
    output: Path,
    during: AbstractContextManager[object] | None = None,
    options: SegmentOptions | None = None,
) -> dict[str, Any]:
    """Run a slide through an engine, and the engine alone before and after.

    ``during`` is entered while the slide runs; ``options`` go to :func:`segment`.
    """
    warm = segment(slide, backend, options=options)  # first use: memory, threads, compilation
    settings = warm.record.settings
    batches = -(-warm.record.counts.tiles // settings.batch)
    _, before, cpu_before = timed(lambda: engine_alone(backend, batches))
    with during or nullcontext():
        result, _, cpu = timed(lambda: segment(slide, backend, output=output, options=options))
    _, after, cpu_after = timed(lambda: engine_alone(backend, batches))
    found = figures_of(result, backend)
    alone = (before + after) / 2
    engine_mpx_s = result.height * result.width / 1e6 / alone
    return found | {
        "engine_mpx_s": engine_mpx_s,
        "ratio": found["end_to_end_mpx_s"] / engine_mpx_s,
        "cpu_ratio": (cpu_before + cpu_after) / 2 / cpu,
    }


def run_once(height: int, width: int, backend: Backend, folder: Path) -> dict[str, Any]:
    """Run an image that is made as it is read through an engine."""
    result = segment(RepeatedReader(Scene.make(SCENE).image, height, width), backend, output=folder)
    return figures_of(result, backend)


def parse_size(text: str) -> tuple[int, int]:
    """Return height and width of ``N`` or ``WxH``."""
    try:
        width, _, height = text.lower().partition("x")
        return int(height or width), int(width)
    except ValueError:
        raise click.UsageError(f"--size {text}: wanted N or WxH, for example 4096 or 40000x10000") from None


def command_of(options: list[str], target: Path) -> list[str]:
    """Return the command that measures in a process of its own, and writes its figures."""
    return [sys.executable, __file__, *options, "--json", str(target)]


def sweep(sizes: tuple[str, ...], options: list[str]) -> list[dict[str, Any]]:
    """Measure each size in a fresh process, so that no memory is another's."""
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "found.json"
        for size in sizes:
            if subprocess.run(command_of(["--size", size, *options], target), check=False).returncode:
                raise click.ClickException(f"size {size} failed, see above")
            found.append(json.loads(target.read_text()))
    return found


def show_sweep(found: list[dict[str, Any]]) -> None:
    """Print time and memory by size, and each relative to the first."""

    def pace(one: dict[str, Any]) -> float:
        return float(one["seconds"]["total"]) / (one["width"] * one["height"] / 1e6)

    first = found[0]
    click.echo(f"\n{'size':>15} {'seconds':>9} {'s/Mpx':>9} {'relative':>9} {'MB':>9} {'relative':>9}")
    for one in found:
        size, seconds, memory = f"{one['width']}x{one['height']}", one["seconds"]["total"], one["peak_rss_mb"]
        slower, larger = pace(one) / pace(first), memory / first["peak_rss_mb"]
        click.echo(f"{size:>15} {seconds:9.1f} {pace(one):9.4f} {slower:9.2f} {memory:9.0f} {larger:9.2f}")


def spread(counts: tuple[int, ...], options: list[str]) -> list[dict[str, Any]]:
    """Measure with each number of cores, in a process of its own that may use no more."""
    allowed = sorted(os.sched_getaffinity(0))
    if max(counts) > len(allowed) or min(counts) < 1:
        raise click.UsageError(f"--cores {max(counts)}: there are {len(allowed)}")
    found = []
    try:
        for count in counts:
            os.sched_setaffinity(0, allowed[:count])
            (one,) = sweep((options[1],), options[2:])
            most = side_by_side(allowed[:count], options) if count > 1 else one["host_mpx_s"]
            found.append({"cores": count, **one, "side_by_side_mpx_s": most})
    finally:
        os.sched_setaffinity(0, allowed)
    for one in found:
        one["scaling"] = one["host_mpx_s"] / found[0]["host_mpx_s"]
        most = one["side_by_side_mpx_s"] / found[0]["host_mpx_s"]
        click.echo(
            f"{one['cores']} cores: {one['host_mpx_s']:.1f} Mpx/s, {one['scaling']:.2f} times; "
            f"runs of their own, one on each core, {most:.2f} times"
        )
    return found


def side_by_side(cores: Sequence[int], options: list[str]) -> float:
    """Return what these cores give together to runs that share nothing: one for each, all at once.

    No run on all of them can be faster; cores share memory, caches and the processor's clock.
    """
    with tempfile.TemporaryDirectory() as temporary:
        targets = [Path(temporary) / f"{core}.json" for core in cores]
        running = []
        for core, target in zip(cores, targets, strict=True):
            os.sched_setaffinity(0, [core])  # which a process hands on
            running.append(subprocess.Popen(command_of(options, target), stdout=subprocess.DEVNULL))
        ended = [process.wait() for process in running]
        if any(ended):
            raise click.ClickException("a run beside others failed, see above")
        return sum(json.loads(target.read_text())["host_mpx_s"] for target in targets)


def parse_cores(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, ...]:
    """Return the numbers of ``1,2,4``."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise click.BadParameter(f"{text}: wanted numbers, for example 1,2,4") from None


@click.command()
@click.option(
    "--size",
    "sizes",
    multiple=True,
    default=("4096",),
    show_default=True,
    metavar="N|WxH",
    help="Of the image, pixels; several make a sweep.",
)
@click.option("--engine", type=click.Path(path_type=Path), help="Model file; packaged by default.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")
@click.option("--null-engine", is_flag=True, help="Measure everything but the engine only.")
@click.option(
    "--simulate", type=float, metavar="MPX_S", help="The same, with an engine that takes time only."
)
@click.option("--cores", callback=parse_cores, metavar="N,N…", help="Measure that on each number of cores.")
@click.option("--once", is_flag=True, help="Measure one run with the engine only.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the figures.")
def main(
    sizes: tuple[str, ...],
    engine: Path | None,
    device: str,
    null_engine: bool,
    simulate: float | None,
    cores: tuple[int, ...],
    once: bool,
    target: Path | None,
) -> None:
    """Measure the pipeline on an image of one size, or of several."""
    shapes = [parse_size(size) for size in sizes]
    null_engine = null_engine or simulate is not None
    options = ["--device", device, *(["--engine", str(engine)] if engine else [])]
    options += ["--null-engine"] * null_engine + ["--once"] * once
    options += ["--simulate", str(simulate)] if simulate is not None else []
    if len(sizes) > 1 or cores:
        if cores and (len(sizes) > 1 or not null_engine):
            raise click.UsageError("--cores takes one --size, and --null-engine or --simulate")
        every = spread(cores, ["--size", sizes[0], *options]) if cores else sweep(sizes, options)
        if not cores:
            show_sweep(every)
        if target is not None:
            target.write_text(json.dumps({"cores" if cores else "sizes": every}, indent=1) + "\n")
        return
    steady_heap()  # as the command does
    ((height, width),) = shapes
    found: dict[str, Any] = {"height": height, "width": width}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if once:
            with open_backend(engine, device) as backend:
                found |= run_once(height, width, backend, folder / "out")
        elif not null_engine:
            make_slide(height, width, folder / "slide.tif")
            with open_backend(engine, device) as backend:
                found |= run_engine(folder / "slide.tif", backend, folder / "out")
        if not once:
            host = run_host(height, width, folder / "host", simulate)
            found |= host.figures()
            found["host_stages"] = host.result.record.to_dict()["stages"]
    if null_engine:
        record = host.result.record.to_dict()
        found |= {
            "cells": host.result.count,
            "useful_fraction": record["settings"]["useful_fraction"],
            "seconds": record["seconds"],
            "stages": record["stages"],
        }
    if simulate is not None:
        found |= {"simulated_mpx_s": simulate, "simulated_ratio": found["host_mpx_s"] / simulate}
    found["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["machine"] = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    for name, value in found.items():
        click.echo(f"{name:18} {value:.3f}" if isinstance(value, float) else f"{name:18} {value}")
    if target is not None:
        target.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
