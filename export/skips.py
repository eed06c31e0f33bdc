"""Convolutions over a concatenation, as sums of convolutions over its parts.

``W * cat(a, b) = Wa * a + Wb * b``, exactly. Where a decoder joins what its encoder kept (never negative)
and what came up from below (of any sign), eight bits suit each part by itself: with a range of its own,
and with a bit more where there is no sign. OpenVINO's INT8 loses far more on a quantised concatenation
than the bits it saves: on the default network 6.6 bytes of mean difference in the boundary plane, .4 with
the convolutions split, at the same speed (OpenVINO 2026.4; ONNX Runtime loses .4 either way).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference


def split_skips(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a graph whose convolutions see no concatenation.

    Parameters
    ----------
    model
        In single precision. What else sees a concatenation still does.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    joined = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Concat" and _attribute(node, "axis", 0) == 1
    }
    widths = _channels(copy)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        parts = (
            list(joined[node.input[0]].input) if node.op_type == "Conv" and node.input[0] in joined else []
        )
        if (
            parts
            and node.input[1] in weights
            and _attribute(node, "group", 1) == 1
            and all(part in widths for part in parts)
        ):
            nodes += _split(graph, node, parts, [widths[part] for part in parts], weights[node.input[1]])
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return copy


def _split(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    parts: list[str],
    widths: list[int],
    weight: onnx.TensorProto,
) -> list[onnx.NodeProto]:
    """Return the nodes that stand for a convolution, and add their weights to the graph."""
    whole, start = numpy_helper.to_array(weight), 0
    made, total = list[onnx.NodeProto](), ""
    for number, (part, width) in enumerate(zip(parts, widths, strict=True)):
        one = onnx.NodeProto()
        one.CopyFrom(node)
        one.name, one.input[0], one.input[1] = f"{node.name}.{number}", part, f"{weight.name}.{number}"
        one.output[0] = f"{node.output[0]}.{number}"
        if number:
            del one.input[2:]  # the bias counts once
        values = np.ascontiguousarray(whole[:, start : start + width])
        graph.initializer.append(numpy_helper.from_array(values, one.input[1]))
        start += width
        made.append(one)
        if number:
            last = number == len(parts) - 1
            output = node.output[0] if last else f"{one.output[0]}.sum"
            made.append(helper.make_node("Add", [total, one.output[0]], [output], f"{one.name}.sum"))
        total = made[-1].output[0]
    return made


def _attribute(node: onnx.NodeProto, name: str, otherwise: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), otherwise)


def _channels(model: onnx.ModelProto) -> dict[str, int]:
    """Return the number of channels of every tensor where it is known."""
    found = {}
    for value in shape_inference.infer_shapes(model).graph.value_info:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and dims[1].HasField("dim_value"):
            found[value.name] = dims[1].dim_value
    return found
