"""The same weights and the same picture through what people use today, and through cellseg.

    python benchmarks/peers.py [--size 2048] [--json peers.json]

Each from the pixels in memory to a label image and a table of cells:

* MONAI ``sliding_window_inference`` with PyTorch, then scikit-image: distance transform, peaks,
  watershed, ``regionprops_table``;
* the same with ONNX Runtime on the CPU in place of PyTorch;
* cellseg, which draws outlines as well: in the arithmetic that it chooses here (eight bits where the
  processor is fast in them), with the compiled network of an earlier run as users have it; then the first
  run on a machine, which has none; and then the next best arithmetic.

All run in one process on all cores, one after the other, with the same tile, halo and normalisation. Each
opens its network anew.
Rates are megapixels (10⁶ pixels) of the picture per second; the ratios are what counts.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from nuclei_placing import place
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from slide_canvas import Fluorescence

from cellseg.runtime.backends import Options, load_spec, open_backend
from cellseg.runtime.backends.base import Precision
from cellseg.runtime.backends.kept import FOLDER
from cellseg.runtime.errors import UsageError
from cellseg.runtime.intensity import normalization
from cellseg.runtime.model.catalog import default_model
from cellseg.runtime.model.spec import INPUT_NAME, ModelSpec
from cellseg.runtime.pipeline import segment

PROPERTIES = (
    "label", "area", "bbox", "centroid", "eccentricity", "intensity_mean", "perimeter", "solidity",
)  # fmt: skip
Predictor = Callable[[Any], Any]


def torch_predictor(engine: Path, spec: ModelSpec) -> Predictor:
    """PyTorch with the weights of the ONNX file: floats (N, 3, H, W) to the mask byte plane."""
    import torch

    network = torch_network(engine, spec)

    def predict(x: Any) -> Any:
        return torch.sigmoid(network(x)[:, :1])

    return predict


def torch_network(engine: Path, spec: ModelSpec) -> Any:
    """Return the network of an ONNX file that was exported from the default architecture, in fp32.

    It maps floats (N, 3, H, W) to the logits of all heads, (N, K, H, W).
    """
    import onnx
    import torch

    model = onnx.load(str(engine))
    weights = {
        tensor.name.removeprefix("network.").replace(".part.", "."): torch.from_numpy(
            onnx.numpy_helper.to_array(tensor).astype(np.float32)
        )
        for tensor in model.graph.initializer
        if tensor.name.startswith("network.")
    }
    width = weights["decoders.0.branches.0.0.0.weight"].shape[0]
    network = folded_network(width, len(spec.heads))
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def folded_network(width: int, planes: int) -> Any:
    """Build the default model's architecture as exported: no norms, one convolution for all heads."""
    import torch

    from cellseg.export.graph import fold_norms
    from cellseg.train.config import TrainConfig
    from cellseg.train.models import build_model

    network = build_model(TrainConfig(init_channel_number=width, use_density=1.0)).eval()
    network.heads = torch.nn.Conv2d(width, planes, 1)  # type: ignore[assignment]
    fold_norms(network)
    return network


def onnx_predictor(engine: Path) -> Predictor:
    """ONNX Runtime on the CPU: floats (N, 3, H, W) to the mask plane."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(engine), providers=["CPUExecutionProvider"])

    def predict(x: Any) -> Any:
        batch = np.ascontiguousarray((x.numpy() * 255).round().astype(np.uint8).transpose(0, 2, 3, 1))
        planes = session.run(None, {INPUT_NAME: batch})[0]
        return torch.from_numpy(planes[:, :1].astype(np.float32) / 255)

    return predict


def usual_path(image: NDArray[np.uint8], predict: Predictor, spec: ModelSpec) -> tuple[int, dict[str, float]]:
    """MONAI and scikit-image; return the number of cells and the seconds of each stage."""
    import torch
    from monai.inferers import sliding_window_inference
    from skimage.feature import peak_local_max
    from skimage.measure import regionprops_table
    from skimage.segmentation import watershed

    clock = [time.perf_counter()]
    lookup = normalization.measure(image).apply(image)
    rgb = normalization.to_channels(lookup, spec.channels)
    x = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None].float() / 255
    with torch.inference_mode():
        planes: Any = sliding_window_inference(
            x, spec.tile, spec.batch, predict, overlap=2 * spec.halo / spec.tile, mode="constant"
        )
    mask = planes[0, 0].numpy()
    clock.append(time.perf_counter())
    foreground = mask >= spec.split.mask_threshold / 255
    distance = cv2.distanceTransform(foreground.astype(np.uint8), cv2.DIST_L2, 5)
    peaks = peak_local_max(distance, min_distance=4, labels=foreground.astype(np.int32), exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-distance, markers, mask=foreground)
    clock.append(time.perf_counter())
    table = regionprops_table(labels, image, properties=PROPERTIES)
    clock.append(time.perf_counter())
    names = ("tile and infer", "split", "measure")
    return len(table["label"]), dict(zip(names, np.diff(clock).tolist(), strict=True))


def ours(
    image: NDArray[np.uint8], engine: Path, precision: Precision, kept: str
) -> tuple[int, dict[str, float]]:
    """Run cellseg; return the number of cells and the seconds of the whole.

    ``kept`` is the folder of compiled networks, or ``off``.
    """
    os.environ[FOLDER] = kept
    start = time.perf_counter()
    result = segment(image, engine, precision=precision)
    return len(result.cells), {"all": time.perf_counter() - start}


def computes_in(engine: Path, precision: Precision) -> str | None:
    """Return in what cellseg computes where it is asked for `precision`, or ``None`` if it cannot."""
    try:
        with open_backend(engine, options=Options(precision=precision)) as backend:
            return backend.precision
    except UsageError:
        return None


@click.command()
@click.option("--size", default=2048, show_default=True, help="Edge of the generated picture, pixels.")
@click.option(
    "--engine", type=click.Path(path_type=Path, exists=True), help="ONNX file; the packaged model by default."
)
@click.option("--rounds", default=2, show_default=True, help="Runs of each; the fastest counts.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the figures.")
def main(size: int, engine: Path | None, rounds: int, target: Path | None) -> None:
    """Compare cellseg with the usual path, on one picture and one set of weights."""
    warnings.simplefilter("ignore")
    engine = engine or default_model()
    spec = load_spec(engine)
    nuclei = place(size, size, round(size * size * 1e-3), seed=0)  # 1,000 cells a megapixel
    image = Fluorescence(nuclei, size, size, seed=0).pixels(0, 0, size, size, np.dtype(np.uint8))
    image = np.ascontiguousarray(image.reshape(size, size, -1))
    kept = tempfile.TemporaryDirectory()
    ways: dict[str, Callable[[], tuple[int, dict[str, float]]]] = {
        "MONAI + PyTorch + scikit-image": lambda: usual_path(image, torch_predictor(engine, spec), spec),
        "MONAI + ONNX Runtime + scikit-image": lambda: usual_path(image, onnx_predictor(engine), spec),
        "cellseg": lambda: ours(image, engine, "auto", kept.name),
        "cellseg, first run": lambda: ours(image, engine, "auto", "off"),
    }
    chosen = computes_in(engine, "auto")
    next_best: Precision = "bf16" if computes_in(engine, "bf16") else "fp32"
    if chosen and chosen.startswith("int8"):
        ways[f"cellseg, {next_best}"] = lambda: ours(image, engine, next_best, kept.name)
    best: dict[str, tuple[int, dict[str, float]]] = {}
    for name, run in ways.items():
        if name.startswith("cellseg"):
            run()  # the earlier run
    for _ in range(rounds):  # in turn, so that a busy moment disturbs all alike
        for name, run in ways.items():
            cells, stages = run()
            if name not in best or sum(stages.values()) < sum(best[name][1].values()):
                best[name] = cells, stages

    kept.cleanup()

    reference = sum(best["cellseg"][1].values())
    table = Table("way", "cells", "seconds by stage", "Mpx/s", "cellseg is faster by")
    figures = {}
    for name, (cells, stages) in best.items():
        total = sum(stages.values())
        parts = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages.items())
        table.add_row(name, str(cells), parts, f"{image.size / 1e6 / total:.2f}", f"{total / reference:.1f}×")
        figures[name] = {
            "cells": cells,
            "stages": stages,
            "mpx_s": size * size / 1e6 / total,
            "cellseg_ratio": total / reference,
        }
    Console().print(table)
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "size": size,
            "cores": os.cpu_count(),
            "machine": platform.processor(),
            "precision": chosen,
            "ways": figures,
        }
        target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
