"""What each precision costs in found cells: one network in fp32, bf16, fp16 and INT8.

    python benchmarks/precision.py work_dirs/nuclei/best.pt datasets/nuclei/val --split nuclei.onnx
    python benchmarks/precision.py work_dirs/nuclei/best.pt datasets/nuclei/val --study 3

Every graph is made as cellseg-export makes it and run by the runtime's backends over whole images;
cells are split with the settings of --split (a model or a JSON file) and scored against the labels
of DIR. ``loss`` is how much AP50 falls against fp32, ± its standard error by resampling images
(paired bootstrap): a loss within it says nothing of the precision. The row ``fp32, other engine``
(--controls) computes the same graph in the same precision in another order, which shows how far
rounding alone moves the figures.

fp16 runs on ONNX Runtime, which rounds to half between operations as a GPU does; OpenVINO computes
in bfloat16 where the processor can. ``--study N`` also leaves out 1…N parts, the most sensitive first: kept
in single for fp16, in floating point for INT8.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from numpy.typing import NDArray

from cellseg.export import assemble, fp16, halo, int8, network, tiles, to_onnx
from cellseg.export.graph import Deployable, choose_heads
from cellseg.runtime.backends import Options, load_spec, open_backend
from cellseg.runtime.cli import common
from cellseg.runtime.evaluation.folders import PICTURES, LabelFolder, check_partners, list_files
from cellseg.runtime.evaluation.metrics import Score, score, summarise
from cellseg.runtime.instances import split_planes
from cellseg.runtime.model.spec import ModelSpec, SplitSettings
from cellseg.runtime.tuning.cases import predict_planes

SHOWN = ("ap50", "ap75", "ap90", "dice", "count_mae")
#: Most that AP50 may fall: issue targets, by the first word of a row.
TARGETS = {"fp16": 0.002, "int8": 0.005}
#: Draws of the bootstrap.
DRAWS = 4000
Planes = dict[str, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Way:
    """A graph and the engine that runs it."""

    name: str
    graph: onnx.ModelProto
    engine: str
    precision: str = "fp32"


class Graphs:
    """The graphs of one checkpoint, made as :mod:`cellseg.export.assemble` makes them."""

    def __init__(self, checkpoint: Path, heads: tuple[str, ...], calibration: Path) -> None:
        self.trained = network.load(checkpoint)
        config = self.trained.config
        self.heads = choose_heads(config.outputs, heads)
        self.deployable = Deployable(self.trained.network, self.heads)
        self.tiles = tiles.gather(
            calibration, config, count=assemble.PARITY_TILES, edge=assemble.PARITY_EDGE
        ).images
        self.calibration = tiles.gather(
            calibration, config, count=assemble.CALIBRATION_TILES, edge=assemble.PARITY_EDGE
        ).images
        self.single = self._trace(self.deployable)

    def spec(self, split: SplitSettings) -> ModelSpec:
        """Return a specification whose halo is the theoretical one: these are whole images."""
        multiple = self.trained.network.multiple
        reach = halo.receptive_field(self.trained.config)
        bound = -(-reach // multiple) * multiple
        return ModelSpec(
            name=self.trained.name,
            architecture=self.trained.config.model,
            channels=self.trained.config.in_channels,
            heads=self.heads,
            multiple=multiple,
            halo=bound,
            receptive_field=reach,
            tile=assemble.preferred_tile(bound, multiple),
            split=split,
        )

    def ways(self, controls: bool, study: int) -> Iterator[Way]:
        """Yield what is compared, the reference first; with `study` 1…N parts are left out as well."""
        yield Way("fp32", self.single, "openvino")
        images = self.tiles[: assemble.HALF_TILES]
        choice = fp16.choose(self.deployable, images)
        graph = self._trace(fp16.to_half(self.deployable, choice.single))
        yield Way(_named("fp16", choice.single), graph, "onnxruntime")
        step = max(1, len(self.tiles) // assemble.HALF_TILES)
        spread = self.tiles[::step]
        found = int8.quantise(self.single, self.calibration, spread, assemble.run_graph)
        yield Way(_named("int8", found.kept), found.model, "openvino")
        yield Way("bf16", self.single, "openvino", "auto")
        yield Way(_named("int8", found.kept) + ", rest in bf16", found.model, "openvino", "auto")
        if controls:
            yield Way("fp32, other engine", self.single, "onnxruntime")
            yield Way(_named("int8", found.kept) + ", other engine", found.model, "onnxruntime")
            yield Way(_named("fp16", choice.single) + ", as bf16", graph, "openvino", "auto")
        if study:
            alone = found.alone or int8.effects(found.model, found.original, spread, assemble.run_graph)
            _tell("int8", alone)
            for kept in _growing(alone, study, found.kept):
                graph = int8.give_back(found.model, found.original, kept)
                yield Way(_named("int8", kept), graph, "openvino")
            alone = fp16.effects(self.deployable, images)
            _tell("fp16", alone)
            for kept in _growing(alone, study, choice.single):
                graph = self._trace(fp16.to_half(self.deployable, kept))
                yield Way(_named("fp16", kept), graph, "onnxruntime")

    def _trace(self, module: Deployable) -> onnx.ModelProto:
        return to_onnx.trace(
            module, channels=self.trained.config.in_channels, multiple=self.trained.network.multiple
        )


def _named(precision: str, kept: tuple[str, ...]) -> str:
    return f"{precision}, {' '.join(kept)} floating" if kept else precision


def _growing(alone: dict[str, float], most: int, chosen: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    order = sorted(alone, key=lambda part: -alone[part])
    for count in range(1, min(most, len(order)) + 1):
        if set(order[:count]) != set(chosen):
            yield tuple(order[:count])


def _tell(precision: str, alone: dict[str, float]) -> None:
    for part, effect in sorted(alone.items(), key=lambda item: -item[1]):
        click.echo(f"{part} alone in {precision}: bytes differ by {effect:.4f} in the mean", err=True)


def run(way: Way, spec: ModelSpec, files: dict[str, Path]) -> Planes:
    """Return the planes of each picture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        path.write_bytes(to_onnx.finish(way.graph, spec))
        options = Options(precision="fp32" if way.precision == "fp32" else "auto")
        with open_backend(path, "cpu", engine=way.engine, options=options) as backend:
            return dict(predict_planes(backend, files))


def standard_error(reference: list[Score], found: list[Score]) -> float:
    """Return the standard error of the difference of two pooled AP50, over resampled images."""
    counts = np.array(
        [[[s.matched[0], s.cells_true + s.cells_pred] for s in scores] for scores in (reference, found)]
    )  # (2, images, 2)
    number = counts.shape[1]
    drawn = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), DRAWS)
    matched, cells = np.moveaxis(np.einsum("di,wic->wdc", drawn, counts), -1, 0)
    ap50 = matched / np.maximum(cells - matched, 1)  # (2, draws)
    return float(np.std(ap50[0] - ap50[1]))


def split_settings(path: Path | None) -> SplitSettings:
    """Return the settings of a model, or of a JSON file that holds them or has them under ``split``."""
    if path is None:
        return SplitSettings()
    if path.suffix == ".onnx":
        return load_spec(path).split
    record = json.loads(path.read_text(encoding="utf-8"))
    return SplitSettings.model_validate(record.get("split", record))


@click.command("precision", cls=common.Command)
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--heads", default="mask,boundary,density", show_default=True, help="Heads to keep.")
@click.option("--split", type=click.Path(exists=True, path_type=Path), help="A model or JSON file.")
@click.option("--calib", type=click.Path(exists=True, path_type=Path), help="Pictures for INT8; DIR's.")
@click.option("--only", multiple=True, metavar="WORD", help="Rows that begin with it, and fp32.")
@click.option("--controls", is_flag=True, help="The same graphs on other engines too.")
@click.option("--study", default=0, metavar="N", help="Leave out 1…N parts too.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the figures.")
def main(
    checkpoint: Path,
    folder: Path,
    heads: str,
    split: Path | None,
    calib: Path | None,
    only: tuple[str, ...],
    controls: bool,
    study: int,
    target: Path | None,
) -> None:
    """Compare the precisions of CHECKPOINT on DIR/image and DIR/label."""
    truth = LabelFolder.open(folder / "label")
    files = list_files(folder / "image", PICTURES, "pictures")
    check_partners(truth.files, files, folder / "image")
    labels = {stem: truth.read(stem) for stem in sorted(truth.files)}
    graphs = Graphs(checkpoint, tuple(heads.split(",")), calib or folder)
    spec = graphs.spec(split_settings(split))

    rows: dict[str, dict[str, Any]] = {}
    reference: list[Score] = []
    wanted: Planes = {}
    click.echo("| | " + " | ".join((*SHOWN, "loss", "target", "bytes")) + " |\n|" + "---|" * (len(SHOWN) + 4))
    for way in graphs.ways(controls, study):
        if wanted and only and not way.name.startswith(only):
            continue
        planes = run(way, spec, {stem: files[stem] for stem in labels})
        scores = [score(labels[stem], split_planes(planes[stem], spec.heads, spec.split)) for stem in labels]
        reference, wanted = reference or scores, wanted or planes
        figures = summarise(scores)
        pixels = sum(each.size for each in planes.values())
        differs = sum(int(np.abs(wanted[s].astype(np.int16) - planes[s]).sum()) for s in labels) / pixels
        row = rows[way.name] = {name: figures[name] for name in SHOWN} | {
            "loss": summarise(reference)["ap50"] - figures["ap50"],
            "standard_error": standard_error(reference, scores),
            "bytes": differs,
        }
        bound = TARGETS.get(way.name.split(",")[0])
        cells = [f"{row[name]:.4f}" for name in SHOWN]
        cells += [f"{row['loss']:+.4f} ± {row['standard_error']:.4f}", f"{bound or ''}", f"{differs:.4f}"]
        click.echo(f"| {way.name} | " + " | ".join(cells) + " |")
        if target:  # after every row: a run that is broken off has told what it knows
            target.parent.mkdir(parents=True, exist_ok=True)
            record = {
                "checkpoint_step": graphs.trained.step,
                "images": len(labels),
                "cells": sum(each.cells_true for each in reference),
                "split": spec.split.model_dump(),
                "targets": TARGETS,
                "rows": rows,
            }
            target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
