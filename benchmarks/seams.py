"""Do tiles agree with the whole image? One slide as a single tile, and cut into many.

    python benchmarks/seams.py slide.svs other.tif [--engine m.onnx] [--tile 512 --tile 1024]

The network runs once over the whole picture, continued by reflection, and once for each --tile over
tiles that overlap by the model's stored halo, as the runtime cuts them. The planes are compared byte
by byte and the cells of both one to one, by the functions that check an export. 1.0000 at F1@0.9 says
that no cell depends on where a tile ended. ``--halo`` tries another halo than the stored one: with one that
the receptive field fits into, bytes agree in bfloat16 too; with a shorter one they do not in any arithmetic.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
from numpy.typing import NDArray

from cellseg.export import parity
from cellseg.runtime.backends import Backend, Options, open_backend
from cellseg.runtime.cli import common
from cellseg.runtime.errors import UsageError
from cellseg.runtime.geometry.tiling import Region, TileGrid
from cellseg.runtime.intensity import channels, normalization
from cellseg.runtime.model.spec import ModelSpec
from cellseg.runtime.options import PrecisionChoice
from cellseg.runtime.readers import open_slide

Bytes = NDArray[np.uint8]


def read(path: Path, spec: ModelSpec, wanted: tuple[str, ...]) -> Bytes:
    """Return a picture as the network sees it, uint8 (H, W, C)."""
    with open_slide(path, channels=wanted or None) as slide:
        choice = channels.choose(slide.channel_names, spec.channels, path)
        image = choice.apply(slide.read(Region(0, 0, slide.height, slide.width)))
        image = normalization.measure(choice.apply(slide.sample())).apply(image)
    return normalization.to_channels(image, spec.channels)


def whole_tile(height: int, width: int, halo: int, multiple: int) -> int:
    """Return the edge of the tile whose core holds all of the picture."""
    edge = max(height, width) + 2 * halo
    return edge + -edge % multiple


def infer(backend: Backend, image: Bytes, tile: int, halo: int) -> Bytes:
    """Return the planes of a picture cut into tiles, uint8 (K, H, W)."""
    height, width = image.shape[:2]
    grid = TileGrid(height, width, tile, halo, backend.spec.multiple)
    # Far enough for every tile that begins inside the picture.
    pad = ((halo, tile), (halo, tile), (0, 0))
    wide = np.pad(image, pad, mode="reflect")
    out = np.empty((len(backend.spec.heads), height, width), np.uint8)
    for band in grid:
        cut = [
            wide[one.read.y + halo : one.read.y1 + halo, one.read.x + halo : one.read.x1 + halo]
            for one in band.tiles
        ]
        for one, planes in zip(band.tiles, parity.engine_planes(backend, np.stack(cut)), strict=True):
            y, x = one.core.y - one.read.y, one.core.x - one.read.x
            out[:, one.core.y : one.core.y1, one.core.x : one.core.x1] = planes[
                :, y : y + one.core.height, x : x + one.core.width
            ]
    return out


def seams(backend: Backend, image: Bytes, tiles: tuple[int, ...], halo: int) -> list[dict[str, float | int]]:
    """Compare each tile size with the whole."""
    spec = backend.spec
    height, width = image.shape[:2]
    whole = infer(backend, image, whole_tile(height, width, halo, spec.multiple), halo)
    rows: list[dict[str, float | int]] = []
    for tile in tiles:
        found = infer(backend, image, tile, halo)
        figures = parity.compare(whole[None], found[None], spec)
        count = len(TileGrid(height, width, tile, halo, spec.multiple))
        rows.append(
            {
                "tile": tile,
                "tiles": count,
                "cells": figures.cells,
                "f1_50": figures.f1_50,
                "f1_90": figures.f1_90,
                "count_difference": figures.count_difference,
                "bytes_that_differ": int((whole != found).sum()),
                "largest_difference": int(figures.plane_max),
                "bytes": whole.size,
            }
        )
    return rows


@click.command("seams", cls=common.Command)
@click.argument("pictures", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--engine", type=click.Path(path_type=Path), help="Model; the packaged one by default.")
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(get_args(PrecisionChoice)),
    default="auto",
    show_default=True,
    help="Arithmetic that the model runs in.",
)
@click.option("--tile", "tiles", multiple=True, type=int, help="Tile edge; 512 and 1024 by default.")
@click.option("--halo", type=int, help="In place of the model's.")
@click.option("--channels", "wanted", multiple=True, help="Channel to read; may be repeated.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the figures.")
def main(
    pictures: tuple[Path, ...],
    engine: Path | None,
    device: str,
    precision: PrecisionChoice,
    tiles: tuple[int, ...],
    halo: int | None,
    wanted: tuple[str, ...],
    target: Path | None,
) -> None:
    """Compare tiled with whole inference on PICTURES."""
    record: dict[str, Any] = {}
    options = Options(precision=precision)
    with open_backend(engine, device, options=options) as backend:
        spec = backend.spec
        halo = spec.halo if halo is None else halo
        tiles = tiles or (512, 1024)
        if halo % spec.multiple:
            raise UsageError(f"--halo {halo}: must be a multiple of {spec.multiple}, as the network pools")
        for tile in tiles:
            if tile % spec.multiple or tile <= 2 * halo:
                raise UsageError(
                    f"--tile {tile}: must be a multiple of {spec.multiple} above {2 * halo}, twice the halo"
                )
        click.echo(
            "| picture | tile | tiles | cells | F1@0.5 | F1@0.9 | counts differ | bytes differ | most |"
        )
        click.echo("|" + "---|" * 9)
        for path in pictures:
            image = read(path, spec, wanted)
            record[path.name] = rows = seams(backend, image, tiles, halo)
            for row in rows:
                click.echo(
                    f"| {path.name} | {row['tile']} | {row['tiles']} | {row['cells']} | {row['f1_50']:.4f} "
                    f"| {row['f1_90']:.4f} | {row['count_difference']:.2%} "
                    f"| {row['bytes_that_differ']} of {row['bytes']} | {row['largest_difference']} |"
                )
        click.echo(f"halo {halo}, {backend.description}")
        if target:
            target.parent.mkdir(parents=True, exist_ok=True)
            figures = {"model": spec.name, "weights": spec.weights_sha256, "halo": halo, "pictures": record}
            figures["engine"] = backend.description
            target.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
