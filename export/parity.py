"""Is the exported model the trained one? Compared on real tiles, in what users see.

The planes of PyTorch and of the exported file, run by the runtime's own backend, are compared byte by
byte, and so are the cells that the runtime makes of them. Beyond :data:`LIMITS` nothing is written.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellseg.runtime.backends import Backend, Options, Pending, open_backend
from cellseg.runtime.evaluation.contingency import Contingency
from cellseg.runtime.instances import split_planes
from cellseg.runtime.model.spec import ModelSpec

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that an export may differ from the trained network."""

    #: Largest and mean difference of a plane's bytes, 0…255.
    plane_max: float
    plane_mean: float
    #: Least intersection over union of the foregrounds, all tiles pooled.
    mask_iou: float
    #: Least F1 of the cells, 2 TP / (2 TP + FP + FN), matched at this IoU.
    f1_50: float
    f1_90: float
    #: Largest difference of the cell counts as a share of the count.
    count_difference: float

    def among(self, cells: int) -> Limits:
        """Return the limits as they bind where the trained network finds that many cells.

        Rounding may always cost one cell, which is a large share of few; without rounding, none may differ.
        """
        if self.plane_max <= 1 or not cells:
            return self
        one = 1 / cells
        return dataclasses.replace(
            self,
            f1_50=min(self.f1_50, 1 - one),
            f1_90=min(self.f1_90, 1 - one),
            count_difference=max(self.count_difference, one),
        )


#: By the arithmetic that an engine really uses. ``bf16`` is an fp32 or fp16 graph on an engine that
#: computes in bfloat16 of its own accord, as OpenVINO does on CPUs that multiply in it. The file itself is
#: proven by its own row; and where nobody has tuned the splitter yet, it cuts some large cells elsewhere for
#: differences of a byte, so the cells of that row may differ more.
LIMITS = {
    "fp32": Limits(1, 0.01, 0.9999, 0.999, 0.998, 0.001),
    "bf16": Limits(64, 0.5, 0.995, 0.97, 0.93, 0.02),
    "fp16": Limits(8, 0.1, 0.998, 0.995, 0.985, 0.005),
    "int8": Limits(255, 2.0, 0.97, 0.96, 0.90, 0.03),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """What a comparison found; field by field as :class:`Limits`."""

    plane_max: float
    plane_mean: float
    mask_iou: float
    f1_50: float
    f1_90: float
    count_difference: float
    #: What was compared: tiles, and cells that the trained network finds in them.
    tiles: int
    cells: int

    def beyond(self, limits: Limits) -> list[str]:
        """Return one phrase for each figure that `limits` does not allow among that many cells."""
        limits = limits.among(self.cells)
        found = []
        for name in Limits.__dataclass_fields__:
            value, limit = getattr(self, name), getattr(limits, name)
            least = name in ("mask_iou", "f1_50", "f1_90")
            if (value < limit) if least else (value > limit):
                word = "least" if least else "most"
                found.append(f"{name} {value:.5g} (at {word} {limit:g})")
        return found


def reference_planes(module: nn.Module, images: Bytes) -> Bytes:
    """Run a PyTorch module tile by tile: uint8 (n, T, T, C) to uint8 (n, K, T, T)."""
    with torch.inference_mode():
        return np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in images])


def engine_planes(backend: Backend, images: Bytes, batch: int = 1) -> Bytes:
    """Run tiles through a backend: uint8 (n, T, T, C) to uint8 (n, K, T, T)."""
    backend.prepare(images.shape[1], batch)
    padded = np.concatenate([images, np.repeat(images[-1:], -len(images) % batch, axis=0)])
    pending: list[Pending] = []
    planes: list[Bytes] = []
    for start in range(0, len(padded), batch):
        if len(pending) >= backend.in_flight:
            planes.append(pending.pop(0).result())
        pending.append(backend.submit(np.ascontiguousarray(padded[start : start + batch])))
    planes += [one.result() for one in pending]
    return np.concatenate(planes)[: len(images)]


def compare(wanted: Bytes, found: Bytes, spec: ModelSpec) -> Figures:
    """Compare planes, uint8 (n, K, T, T), and the cells that the runtime splits them into."""
    difference = np.abs(wanted.astype(np.int16) - found)
    threshold = spec.split.mask_threshold
    mask, other = wanted[:, 0] >= threshold, found[:, 0] >= threshold
    union = int((mask | other).sum())
    matched = {0.5: 0, 0.9: 0}
    cells = cells_found = 0
    for one, two in zip(wanted, found, strict=True):
        overlap = Contingency.of(
            split_planes(one, spec.heads, spec.split), split_planes(two, spec.heads, spec.split)
        )
        cells += len(overlap.true_area)
        cells_found += len(overlap.predicted_area)
        for threshold_iou in matched:
            matched[threshold_iou] += len(overlap.match(threshold_iou))
    total = cells + cells_found
    return Figures(
        plane_max=float(difference.max(initial=0)),
        plane_mean=float(difference.mean()) if difference.size else 0.0,
        mask_iou=int((mask & other).sum()) / union if union else 1.0,
        f1_50=2 * matched[0.5] / total if total else 1.0,
        f1_90=2 * matched[0.9] / total if total else 1.0,
        count_difference=abs(cells - cells_found) / max(cells, 1),
        tiles=len(wanted),
        cells=cells,
    )


def check(path: Path, spec: ModelSpec, wanted: Bytes, images: Bytes) -> dict[str, Figures]:
    """Run the exported file on this machine's engines and compare it with the trained network.

    Parameters
    ----------
    path
        The exported file.
    wanted
        The trained network's planes of `images`.

    Returns
    -------
    dict
        Figures by row of :data:`LIMITS`: the file's own precision and, where the default engine computes
        in bfloat16 instead, that too.
    """
    found: dict[str, Figures] = {}
    if spec.precision != "int8":  # whose arithmetic no engine exchanges for another
        with _exact_engine(path, spec) as backend:
            found[spec.precision] = compare(wanted, engine_planes(backend, images), spec)
    with open_backend(path, "cpu", engine="openvino") as backend:
        backend.prepare(images.shape[1], 1)
        row = "bf16" if backend.precision == "bf16" else spec.precision
        if row not in found:
            found[row] = compare(wanted, engine_planes(backend, images), spec)
    return found


def rounds_to_half() -> bool:
    """Tell whether an engine is installed that computes in half precision on a CPU."""
    return importlib.util.find_spec("onnxruntime") is not None


def _exact_engine(path: Path, spec: ModelSpec) -> Backend:
    """Return the engine here that computes in the graph's own precision.

    ONNX Runtime rounds to half between operations as a GPU does; OpenVINO's CPU plug-in would not.
    """
    if spec.precision == "fp16" and rounds_to_half():
        return open_backend(path, "cpu", engine="onnxruntime")
    return open_backend(path, "cpu", engine="openvino", options=Options(precision="fp32"))
