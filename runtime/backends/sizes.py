"""How much memory and work a graph takes for tiles of some size, before any of it is taken.

The weights in a file say little about it: one number can be stretched to terabytes, and a thousand bytes
can ask for hours. OpenVINO, which is always installed, reads the graph and infers the size of every
result, whatever engine is to compute it. What networks take was measured: at 16 to 32 channels up to 128
bytes a pixel for one result, 384 for all that are needed at one time, and 110,000 multiplications a
pixel. Loads none of OpenVINO's devices.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from openvino.frontend import FrontEndManager

from ..common.memory import machine_memory
from ..errors import BackendError, ModelError
from ..model.spec import INPUT_NAME, ModelSpec

#: Bytes that one result may take, and all that are needed at one time: for each pixel of a batch, and in
#: any case.
ONE, TOGETHER, MODEST = 4096, 16_384, 256 << 20
#: Multiplications (or values read and written) for each pixel, and in any case.
WORK, MODEST_WORK = 100_000_000, 100_000_000_000


#: What OpenVINO reads.
_FRONT_ENDS = FrontEndManager()


def read_graph(path: Path) -> Any:
    """Return a model's graph as an ``openvino.Model``.

    Raises
    ------
    ModelError
        OpenVINO cannot read it.
    """
    try:
        # As ONNX and nothing else: Core.read_model would try what is damaged as other kinds, too, some of
        # which print what they think of it.
        front = _FRONT_ENDS.load_by_framework("onnx")
        return front.convert(front.load(path))
    except Exception as error:  # of any class: names that are no text are a UnicodeDecodeError
        raise ModelError(f"{path}: OpenVINO cannot read it: {reason(error)}") from None


def settle(model: Any, spec: ModelSpec, tile: int, batch: int) -> None:
    """Give a graph the size of a batch, in place.

    Raises
    ------
    BackendError
        It does not take that size, or takes absurd memory or work for it.
    """
    try:
        model.reshape({INPUT_NAME: [batch, tile, tile, spec.channels]})
        problem = excess(model, batch * tile * tile)
    except Exception as error:
        problem = reason(error)
    if problem is not None:
        raise BackendError(f"model '{spec.name}' cannot run on {batch} tiles of {tile}: {problem}")


def reason(error: Exception) -> str:
    """Return the telling line of OpenVINO's exceptions, which begin with its source's file and line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '", "src/"))]
    return (telling or lines or ["no reason given"])[-1][:300]


def excess(model: Any, pixels: int) -> str | None:
    """Return what is too much in a graph, or ``None``.

    Parameters
    ----------
    model
        ``openvino.Model`` for batches of one shape.
    pixels
        Those of a batch.
    """
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() != "Constant"]
    last = {_key(port.get_source_output()): at for at, node in enumerate(nodes) for port in node.inputs()}
    one, together = max(MODEST, ONE * pixels), max(MODEST, TOGETHER * pixels)
    freed: dict[int, int] = {}
    live = most = work = 0
    for at, node in enumerate(nodes):
        kind = node.get_type_name()
        for port in node.outputs():
            if not port.partial_shape.is_static:
                return f"the size of one result of its graph ({kind}) depends on what is in the picture"
            needed = _count(port) * port.element_type.size
            if needed > one:
                return f"one result of its graph ({kind}) takes {needed / 1e9:,.1f} GB, as no network does"
            live += needed
            end = last.get(_key(port), at)
            freed[end] = freed.get(end, 0) + needed
        most = max(most, live)
        live -= freed.pop(at, 0)
        work += _work(node, kind)
    if most > together:
        return f"the results of its graph take {most / 1e9:,.1f} GB together, as no network does"
    allowed = max(MODEST_WORK, WORK * pixels)
    if work > allowed:
        return f"it takes {work / 1e9:,.0f} billion multiplications, as no network does"
    memory = machine_memory()
    if memory is not None and most > memory:
        return (
            f"its results take {most / 1e9:,.1f} GB, and this machine has {memory / 1e9:,.1f} GB; choose a "
            "smaller tile or batch"
        )
    return None


def _key(port: Any) -> tuple[str, int]:
    return port.get_node().get_name(), port.get_index()


def _count(port: Any) -> int:
    return math.prod(port.get_partial_shape().to_shape())


def _work(node: Any, kind: str) -> int:
    """Return the multiplications of a node, or the values that it reads and writes where it has none."""
    read = sum(_count(port) for port in node.inputs())
    made = sum(_count(port) for port in node.outputs())
    if kind in ("Convolution", "GroupConvolution"):  # weights of [groups,] out, in, height, width
        weights = tuple(node.input(1).get_partial_shape().to_shape())
        made *= math.prod(weights[2 if kind == "GroupConvolution" else 1 :])
    elif kind == "ConvolutionBackpropData":  # of in, out, height, width
        weights = tuple(node.input(1).get_partial_shape().to_shape())
        made = _count(node.input(0)) * math.prod(weights[1:])
    elif kind == "GroupConvolutionBackpropData":
        weights = tuple(node.input(1).get_partial_shape().to_shape())
        made = _count(node.input(0)) * math.prod(weights[2:])
    elif kind == "MatMul":
        made *= max(tuple(node.input(0).get_partial_shape().to_shape())[-2:], default=1)
    elif "Pool" in kind:
        made *= math.prod(node.get_attributes().get("kernel", ()))
    return made + read
