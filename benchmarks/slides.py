"""Make slides of any size with known cells, for demonstrations, tests and benchmarks.

    python benchmarks/slides.py --kind fluorescence --size 4096x4096 --cells 6000 OUT.tif --labels L.tif

Two kinds: dark fluorescence (nuclei of 8 to 40 pixels, single and in touching groups, uneven light,
haze, photon and camera noise) and bright stained tissue (haematoxylin nuclei in eosin). Cells are
placed first, for the whole slide (:mod:`nuclei_placing`); pixels are then made strip by strip
(:mod:`slide_canvas`), so memory depends on the width only. A pixel is a function of the seed and its
place: the same arguments give the same slide.

Needs NumPy, OpenCV and tifffile, nothing of cellseg.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from nuclei_placing import place
from slide_canvas import Fluorescence, Stained

#: Edge of a TIFF tile, and width of the pieces that are drawn at once, in pixels.
TILE, PIECE = 512, 2048
#: Micrometres a pixel that the files state.
PIXEL_SIZE = 0.5

KINDS: dict[str, type[Fluorescence | Stained]] = {"fluorescence": Fluorescence, "stained": Stained}


def tiles(canvas: Fluorescence | Stained, dtype: np.dtype, *, labels: bool = False) -> Iterator[npt.NDArray]:
    """Yield the slide's TIFF tiles row by row, the last ones padded with zeros."""
    for y in range(0, canvas.height, TILE):
        for x in range(0, canvas.width, PIECE):
            size = (min(TILE, canvas.height - y), min(PIECE, canvas.width - x))
            piece = canvas.labels(y, x, *size).astype(dtype) if labels else canvas.pixels(y, x, *size, dtype)
            for left in range(0, size[1], TILE):
                part = piece[:, left : left + TILE]
                if part.shape[:2] != (TILE, TILE):
                    pads = [(0, TILE - part.shape[0]), (0, TILE - part.shape[1]), (0, 0)]
                    part = np.pad(part, pads[: part.ndim])
                yield np.ascontiguousarray(part)


def write(
    path: Path, canvas: Fluorescence | Stained, dtype: np.dtype, *, labels: bool = False, **options: Any
) -> None:
    """Write the picture or the labels of a slide as a tiled BigTIFF."""
    colour = canvas.channels == 3 and not labels
    tifffile.imwrite(
        path,
        tiles(canvas, dtype, labels=labels),
        shape=(canvas.height, canvas.width, 3) if colour else (canvas.height, canvas.width),
        dtype=dtype,
        tile=(TILE, TILE),
        bigtiff=True,
        photometric="rgb" if colour else "minisblack",
        resolution=(1e4 / PIXEL_SIZE, 1e4 / PIXEL_SIZE),
        resolutionunit="CENTIMETER",
        metadata=None,
        **options,
    )


def main() -> None:
    """Parse the command and make the slide."""
    parser = argparse.ArgumentParser(description="Make a slide with known cells.")
    parser.add_argument("output", type=Path, metavar="OUT.tif")
    parser.add_argument("--kind", choices=sorted(KINDS), default="fluorescence")
    parser.add_argument("--size", default="4096x4096", metavar="HEIGHTxWIDTH", help="in pixels")
    parser.add_argument("--cells", type=int, help="how many; by default 400 a megapixel")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("uint8", "uint16"), default="uint8")
    parser.add_argument("--compression", choices=("none", "zlib", "zstd", "jpeg"), default="none")
    parser.add_argument("--labels", type=Path, metavar="L.tif", help="also write the true labels")
    given = parser.parse_args()
    try:
        height, width = (int(part) for part in given.size.lower().split("x"))
    except ValueError:
        parser.error(f"--size {given.size}: wanted HEIGHTxWIDTH, for example 4096x4096")
    if min(height, width) < 1 or (given.cells or 0) < 0:
        parser.error("size and cells must be positive")
    if given.dtype == "uint16" and (given.kind == "stained" or given.compression == "jpeg"):
        parser.error("--dtype uint16 goes with fluorescence and a lossless compression only")
    started = time.perf_counter()
    cells = round(height * width * 400e-6) if given.cells is None else given.cells
    nuclei = place(height, width, cells, given.seed)
    canvas = KINDS[given.kind](nuclei, height, width, given.seed)
    options: dict[str, Any] = {}
    if given.compression != "none":
        options["compression"] = given.compression
    write(given.output, canvas, np.dtype(given.dtype), **options)
    if given.labels:
        kind = np.dtype(np.uint16 if len(nuclei) < 1 << 16 else np.int32)
        write(given.labels, canvas, kind, labels=True, compression="zlib")
    print(
        f"{given.output}: {height}×{width} pixels, {len(nuclei)} cells, {time.perf_counter() - started:.1f} s"
    )


if __name__ == "__main__":
    main()
