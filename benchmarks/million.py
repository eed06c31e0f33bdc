"""A million cells: what writing them costs, that memory stays flat, that the GeoJSON loads.

    python benchmarks/million.py [--cells 1000000] [--json million.json]

A slide of 1,000 nuclei a megapixel is made as it is read, and its planes are ready made, so that nothing
but our own work is measured (as ``end_to_end.py --null-engine``). Each figure comes from a process of its
own:

* ``writing_cpu_s``: processor seconds of a run into a folder less those of the same run that drops its
  strips; ``writing_share`` is their part of a run with the default model's engine on this machine, as
  ``results/end_to_end.json`` has it, and ``writing_share_without_engine`` that of a run whose engine costs
  nothing at all;
* ``peak_rss_mb``: of the run into a folder; ``quarter_peak_rss_mb`` that of a quarter of the slide's rows;
* ``geojson_*``: the file read back as one JSON document, each outline checked by shapely.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import shapely
from host import NULL_SPEC, SCENE, NullEngine, RepeatedReader
from numpy.typing import NDArray
from scene import Scene

from cellseg.runtime.common.heap import steady_heap
from cellseg.runtime.geometry.tiling import TileGrid
from cellseg.runtime.intensity.channels import ChannelChoice
from cellseg.runtime.intensity.normalization import Normalization
from cellseg.runtime.pipeline import segment
from cellseg.runtime.streaming.setup import Setup
from cellseg.runtime.streaming.stages import SlideRun

#: Width of the slide in pixels, and its cells a megapixel.
WIDTH, DENSITY = 16384, 1000
#: Where the engine's share comes from.
#: Stages that write nothing.
COMPUTING = {"read", "gather", "infer", "stitch", "split", "rescale"}
END_TO_END = Path(__file__).parent / "results" / "end_to_end.json"


def run(height: int, folder: Path | None) -> dict[str, Any]:
    """Run a slide with a number of rows into a folder, or drop its strips; return what it cost."""
    steady_heap()  # as the command does
    scene = Scene.make(SCENE)
    reader = RepeatedReader(scene.image, height, WIDTH)
    with NullEngine(scene.planes, height, WIDTH) as engine:
        cpu, wall = time.process_time(), time.perf_counter()
        if folder is not None:
            result = segment(reader, engine, output=folder, tile=NULL_SPEC.tile, batch=NULL_SPEC.batch)
            cells, stages = result.count, result.record.to_dict()["stages"]
        else:
            engine.prepare(NULL_SPEC.tile, NULL_SPEC.batch)
            setup = Setup(
                reader=reader,
                backend=engine,
                grid=TileGrid(height, WIDTH, NULL_SPEC.tile, NULL_SPEC.halo, NULL_SPEC.multiple),
                choice=ChannelChoice((0, 1, 2)),
                mapping=Normalization.full_scale(reader.dtype),
                split=NULL_SPEC.split,
                workers=len(os.sched_getaffinity(0)),
                pixel_size=reader.pixel_size,
            )
            progress = SlideRun(setup, []).run()
            cells = progress.cells
            stages = {name: {"busy": busy} for name, (busy, _) in progress.stages.items()}
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "cells": cells,
        "cpu_s": cpu,
        "wall_s": wall,
        "write_busy_s": sum(stages[name]["busy"] for name in set(stages) - COMPUTING),
        "peak_rss_mb": peak,
    }


def apart(height: int, folder: Path | None) -> dict[str, Any]:
    """Do the same in a process of its own."""
    command = [sys.executable, __file__, "--rows", str(height), *(["--into", str(folder)] if folder else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def load(path: Path) -> dict[str, Any]:
    """Read a GeoJSON file whole; count its features and those whose outline is not a valid polygon."""
    started = time.perf_counter()
    rings: list[NDArray[np.int32]] = []

    def keep(found: dict[str, Any]) -> dict[str, Any]:
        # Only the outlines stay: a million features as dictionaries would fill the memory.
        if found.get("type") == "Polygon":
            rings.append(np.array(found["coordinates"][0], np.int32))
            return {}
        return found if found.get("type") == "FeatureCollection" else {}

    record = json.loads(gzip.decompress(path.read_bytes()), object_hook=keep)
    assert record["type"] == "FeatureCollection"
    assert len(record["features"]) == len(rings)
    invalid = 0
    for start in range(0, len(rings), 10000):
        part = rings[start : start + 10000]
        owners = np.repeat(np.arange(len(part)), [len(ring) for ring in part])
        polygons = shapely.polygons(shapely.linearrings(np.concatenate(part).astype(float), indices=owners))
        invalid += int(np.count_nonzero(~shapely.is_valid(polygons)))
    return {
        "geojson_features": len(rings),
        "geojson_invalid": invalid,
        "geojson_mb": path.stat().st_size / 1e6,
        "geojson_seconds": time.perf_counter() - started,
    }


@click.command()
@click.option("--cells", type=click.IntRange(10000), default=1_000_000, show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the figures.")
@click.option("--rows", type=int, hidden=True, help="One run, in this process.")
@click.option("--into", type=click.Path(path_type=Path), hidden=True)
def main(cells: int, target: Path | None, rows: int | None, into: Path | None) -> None:
    """Measure what results cost."""
    if rows is not None:
        click.echo(json.dumps(run(rows, into)))
        return
    height = round(cells / DENSITY * 1e6 / WIDTH)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        quarter = apart(height // 4, folder / "quarter")
        dropped = apart(height, None)
        written = apart(height, folder / "all")
        loaded = load(folder / "all" / "cells.geojson.gz")
    engine = json.loads(END_TO_END.read_text(encoding="utf-8"))
    megapixels = height * WIDTH / 1e6
    writing = written["cpu_s"] - dropped["cpu_s"]
    whole = megapixels / engine["end_to_end_mpx_s"] * engine["machine"]["cores"]
    found = {
        "height": height,
        "width": WIDTH,
        "cells": written["cells"],
        "writing_cpu_s": writing,
        "writing_share": writing / whole,
        "writing_share_without_engine": writing / written["cpu_s"],
        "write_busy_part_of_the_run": written["write_busy_s"] / written["wall_s"],
        "peak_rss_mb": written["peak_rss_mb"],
        "quarter_peak_rss_mb": quarter["peak_rss_mb"],
        "quarter_cells": quarter["cells"],
        **loaded,
    }
    for name, value in found.items():
        click.echo(f"{name:30} {value:.3f}" if isinstance(value, float) else f"{name:30} {value}")
    if target is not None:
        target.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
