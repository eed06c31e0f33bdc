"""How long a tile of the viewer takes, asked for over HTTP as a browser does.

    python benchmarks/view.py --size 40000 [--json view.json] [--keep DIR]

A slide of SIZE² pixels with 1,000 cells a megapixel is segmented without a network, and its picture is
written as a tiled TIFF without a pyramid, the slowest kind. Then a server of its own process answers:

* ``listening_s``, ``first_tile_s``: from the start of the command to its address, and to the first tile of
  cells, the whole slide in it;
* ``cells_tile``, ``restyled_tile``, ``picture_tile``: milliseconds of a tile at random places of random
  zooms, one request at a time: of the cells, of the same cells in other colours (as a slider asks for), of
  the picture;
* ``first_picture_s``, ``whole_picture_s``: the first tile of the picture at full resolution, for which its
  contrast is measured, and the first of all of it: without a pyramid the whole file is read for that.

Beside times on the wall stands the server's processor time (``cpu``), which other work on the machine hardly
changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import click
import numpy as np
import tifffile
from host import SCENE, NullEngine, RepeatedReader
from scene import Scene

from cellseg.runtime import Result, segment
from cellseg.runtime.view.tiles import TILE, zooms

#: Tiles asked for of each kind.
TILES = 120


class Slide(RepeatedReader):
    """The repeated scene under the name of the file that holds its picture."""

    def __init__(self, path: Path, scene: np.ndarray[Any, Any], edge: int) -> None:
        super().__init__(scene, edge, edge)
        self.path = path


def write_picture(path: Path, scene: np.ndarray[Any, Any], edge: int) -> None:
    """Write the scene over and over as JPEG tiles."""

    def tiles() -> Iterator[np.ndarray[Any, Any]]:
        for y in range(0, edge, TILE):
            for x in range(0, edge, TILE):
                yield scene[y % SCENE : y % SCENE + TILE, x % SCENE : x % SCENE + TILE]

    tifffile.imwrite(
        path, tiles(), shape=(edge, edge, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="rgb",
        compression="jpeg", bigtiff=True,
    )  # fmt: skip


def ask(address: str) -> float:
    """Return the milliseconds of a request."""
    started = time.perf_counter()
    with urlopen(address) as answer:
        assert answer.status == 200
        answer.read()
    return 1000 * (time.perf_counter() - started)


def places(edge: int, random_: random.Random) -> Iterator[str]:
    """Yield zoom, column and row of tiles."""
    last = zooms(edge, edge)
    while True:
        zoom = random_.randint(last - 6, last)
        wide = -(-edge // (TILE << (last - zoom)))
        yield f"{zoom}/{random_.randrange(wide)}_{random_.randrange(wide)}"


def processor_time(process: int) -> float:
    """Return the seconds that a process has computed, all its threads together (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tiles(server: int, addresses: list[str]) -> dict[str, float]:
    """Ask for tiles, and return how long they took, and how long each had the server compute on average."""
    before = processor_time(server)
    found = figures([ask(address) for address in addresses])
    return found | {"cpu_ms": 1000 * (processor_time(server) - before) / len(addresses)}


def figures(milliseconds: list[float]) -> dict[str, float]:
    """Return median, 95th percentile and maximum."""
    low, high = np.percentile(milliseconds, (50, 95))
    return {"median_ms": float(low), "p95_ms": float(high), "max_ms": max(milliseconds)}


def make(folder: Path, size: int) -> Path:
    """Write the slide and its result into a folder, unless they are there; return the result's."""
    image, out = folder / "slide.tif", folder / "out"
    if not (out / "run.json").exists():
        scene = Scene.make(SCENE)
        if not image.exists():
            write_picture(image, scene.image, size)
        with NullEngine(scene.planes, size, size) as engine, Slide(image, scene.image, size) as reader:
            segment(reader, engine, output=out)
    return out


def measure(out: Path) -> dict[str, Any]:
    """Start a server on a result, ask it for tiles and return how long they took."""
    record = Result.open(out).record
    size, random_ = record.image.width, random.Random(1)
    started = time.perf_counter()
    run = "from cellseg.runtime.cli.view import main; main()"
    command = [sys.executable, "-c", run, str(out), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            address = f"{server.stdout.readline().strip()}scene/0"
            listening = time.perf_counter() - started
            ask(f"{address}/cells/{zooms(size, size) - 6}/0_0.png")
            measured: dict[str, Any] = {
                "size": size,
                "cells": record.counts.cells,
                "listening_s": listening,
                "first_tile_s": time.perf_counter() - started,
                "first_tile_cpu_s": processor_time(server.pid),
            }
            wanted = [place for place, _ in zip(places(size, random_), range(TILES), strict=False)]
            cells, picture = (
                [f"{address}/{kind}/{place}" for place in wanted] for kind in ("cells", "picture")
            )
            measured["cells_tile"] = tiles(server.pid, [f"{place}.png" for place in cells])
            measured["restyled_tile"] = tiles(server.pid, [f"{place}.png?min_score=0.5" for place in cells])
            last = zooms(size, size)
            measured["first_picture_s"] = ask(f"{address}/picture/{last}/9_9.jpg") / 1000
            before = processor_time(server.pid)
            measured["whole_picture_s"] = ask(f"{address}/picture/{last - 6}/0_0.jpg") / 1000
            measured["whole_picture_cpu_s"] = processor_time(server.pid) - before
            measured["picture_tile"] = tiles(server.pid, [f"{place}.jpg" for place in picture])
        finally:
            server.terminate()
    return measured


@click.command()
@click.option("--size", default=40000, show_default=True, help="Edge of the slide in pixels.")
@click.option("--keep", metavar="DIR", type=click.Path(path_type=Path), help="Use slide and result there.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="File for the figures.")
def main(size: int, keep: Path | None, target: Path | None) -> None:
    """Measure the viewer."""
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        measured = measure(make(folder, size))
    click.echo(json.dumps(measured, indent=1))
    if target is not None:
        target.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
