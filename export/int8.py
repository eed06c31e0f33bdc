"""INT8: quantise a graph with NNCF, and leave in floating point the parts that do not bear it.

NNCF's PERFORMANCE preset makes all zero points zero, which OpenVINO, ONNX Runtime and TensorRT all
take. Ranges are those of the values that occur, not of their average picture: what is clipped costs more
than the finer steps gain. Convolutions over what a decoder joins are split first (:mod:`.skips`). What
stands before the first and after the last convolution stays in floating point, and so do the sums of
parallel branches; which parts of the network must is measured on the runtime's engine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from cellseg.runtime.errors import UsageError

from .skips import split_skips

Bytes = NDArray[np.uint8]
#: Runs a graph on tiles: uint8 (n, T, T, C) to uint8 (n, K, T, T).
Run = Callable[[onnx.ModelProto, Bytes], Bytes]
#: Mean difference of a plane's bytes that INT8 may make.
EFFECT = 2.0
_WEIGHTED = ("Conv", "ConvTranspose")


@dataclass(frozen=True, slots=True)
class Quantised:
    """An INT8 graph and how it came about."""

    model: onnx.ModelProto
    #: What was quantised: the same in single precision, without concatenations before convolutions.
    original: onnx.ModelProto
    #: Parts that compute in floating point, the most sensitive first.
    kept: tuple[str, ...]
    #: Mean difference of the worst plane with everything in INT8, and as it is now.
    before: float
    after: float
    #: The same with each part alone in INT8.
    alone: dict[str, float]


def check_installed() -> None:
    """Raise UsageError where NNCF, or ONNX Runtime on which it calibrates, is not installed."""
    missing = [name for name in ("nncf", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        # The extra would install ONNX Runtime's CPU build on top of the GPU build, which serves as well.
        fix = "nncf" if missing == ["nncf"] else "'cellseg[int8]'"
        raise UsageError(f"--int8 needs {' and '.join(missing)}, not installed here: pip install {fix}")


def quantise(model: onnx.ModelProto, calibration: Bytes, images: Bytes, run: Run) -> Quantised:
    """Quantise an fp32 graph.

    Parameters
    ----------
    model
        As traced, in single precision.
    calibration
        Tiles, uint8 (n, T, T, C), that show what values occur.
    images
        Tiles on which the effect is measured.
    run
        Runs a graph.

    Raises
    ------
    UsageError
        See :func:`check_installed`.
    """
    check_installed()
    wanted = run(model, images)
    model = split_skips(model)
    prune(model)
    by_part = parts(model)

    found = whole = _with_nncf(model, calibration, _always_floating(model))
    before = after = _effect(whole, images, wanted, run)
    alone: dict[str, float] = {}
    kept: list[str] = []
    if before > EFFECT:
        alone = effects(whole, model, images, run)
        for part in sorted(alone, key=lambda part: -alone[part]):
            kept.append(part)
            floating = [name for each in kept for name in by_part[each]]
            found = _with_nncf(model, calibration, [*_always_floating(model), *floating])
            after = _effect(found, images, wanted, run)
            if after <= EFFECT:
                break
    return Quantised(found, model, tuple(kept), before, after, alone)


def effects(
    quantised: onnx.ModelProto, original: onnx.ModelProto, images: Bytes, run: Run
) -> dict[str, float]:
    """Return by how much the worst plane's bytes differ in the mean with each part alone in INT8."""
    wanted, by_part = run(original, images), set(parts(original))
    return {
        part: _effect(give_back(quantised, original, by_part - {part}), images, wanted, run)
        for part in parts(original)
    }


def _effect(model: onnx.ModelProto, images: Bytes, wanted: Bytes, run: Run) -> float:
    difference = np.abs(wanted.astype(np.int16) - run(model, images))
    return float(difference.mean(axis=(0, 2, 3)).max())


def _always_floating(model: onnx.ModelProto) -> list[str]:
    """Name the nodes around the network, and the sums of its branches.

    Eight bits before a square root or between the branches of a sum cost more than they save.
    """
    nodes = list(model.graph.node)
    weighted = [index for index, node in enumerate(nodes) if node.op_type in _WEIGHTED]
    return [
        node.name
        for index, node in enumerate(nodes)
        if (not weighted[0] < index < weighted[-1] and index not in weighted) or node.op_type == "Add"
    ]


def parts(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Return the convolutions of each part, by name; parts are those of :mod:`cellseg.export.fp16`."""
    found: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type in _WEIGHTED:
            words = node.input[1].removeprefix("network.").split(".")
            part = ".".join(words[:2]) if words[1].isdecimal() else words[0]
            found.setdefault(part, []).append(node.name)
    return found


def give_back(quantised: onnx.ModelProto, original: onnx.ModelProto, kept: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of the INT8 graph in which the named parts compute in floating point."""
    model = onnx.ModelProto()
    model.CopyFrom(quantised)
    by_part = parts(original)
    names = {name for part in kept for name in by_part[part]}
    sources = {node.name: node for node in original.graph.node}
    weights = {tensor.name: tensor for tensor in original.graph.initializer}
    maker = {output: node for node in model.graph.node for output in node.output}
    present = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.name not in names:
            continue
        node.input[0] = _before_quantiser(node.input[0], maker)
        weight = sources[node.name].input[1]
        node.input[1] = f"{weight}.float"
        if node.input[1] not in present:
            copy = model.graph.initializer.add()
            copy.CopyFrom(weights[weight])
            copy.name = node.input[1]
            present.add(copy.name)
    prune(model)
    return model


def prune(model: onnx.ModelProto) -> None:
    """Remove nodes and initializers that lead nowhere, in place."""
    graph = model.graph
    used = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if used & set(node.output):
            used |= set(node.input)
        else:
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    for value in [value for value in graph.value_info if value.name not in used]:
        graph.value_info.remove(value)


def _before_quantiser(name: str, maker: dict[str, onnx.NodeProto]) -> str:
    """Return the tensor that a pair of quantiser and dequantiser was made of, or the tensor itself."""
    last = maker.get(name)
    first = maker.get(last.input[0]) if last is not None and last.op_type == "DequantizeLinear" else None
    return first.input[0] if first is not None and first.op_type == "QuantizeLinear" else name


def _with_nncf(model: onnx.ModelProto, calibration: Bytes, floating: list[str]) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    nncf.set_log_level(logging.ERROR)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # NNCF may work in place
    data = nncf.Dataset([tile[None] for tile in calibration], lambda tile: {"image": tile})
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        warnings.simplefilter("ignore")
        quantised: onnx.ModelProto = nncf.quantize(
            copy,
            data,
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(names=floating),
            advanced_parameters=AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
            ),
        )
    return quantised
