"""Refuse an ONNX graph that is no plain network, before an engine opens it.

A model file is foreign input. What a network computes is bounded by its weights and the size of a
tile; loops, branches and functions are not (a few hundred bytes can ask for years), and weights in
other files name any file of this machine. Nor are sizes that come from pixels, and what is made of
numbers in the file alone: engines compute that when they open a model, however large it becomes
(see :mod:`.numbers`). No exported network has them. Like :mod:`.onnx_metadata`, this needs no ``onnx``
package. How large results are for tiles of some size is seen once an engine has read the graph:
:mod:`cellseg.runtime.backends.sizes`.

Source: ``ModelProto`` and its parts in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

from .numbers import Numbers
from .wire import Field, content, fields, integers

#: Nodes in a graph: the deepest network here has a few hundred. Engines take minutes over 100,000.
MOST_NODES = 10_000
#: Bytes of a name, and axes of a tensor.
LONGEST_NAME, MOST_AXES = 1000, 64
#: Field numbers in ``ModelProto``.
GRAPH, _FUNCTIONS = 7, 25
#: In ``GraphProto``: nodes, weights, what comes from outside, sparse weights (values and indices).
_NODE, _INITIALIZER, _OUTSIDE, _SPARSE = 1, 5, 11, 15
#: In ``NodeProto``.
_INPUT, _OUTPUT, _OPERATOR, _ATTRIBUTE = 1, 2, 4, 5
#: In ``AttributeProto``: a tensor, a graph, several of them.
_TENSOR, _SUBGRAPH, _TENSORS, _SUBGRAPHS = 5, 6, 10, 11
#: In ``TensorProto``: the axes, its name, where the values are, if not here; in ``ValueInfoProto``.
_DIMS, _NAME, _EXTERNAL, _LOCATION = 1, 8, 13, 14
_VALUE_NAME = 1
#: Values that fit into a byte of a file: the smallest type has four bits.
_DENSEST = 2


@dataclass(slots=True)
class Node:
    """What is looked at of a ``NodeProto``."""

    operator: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    #: Values in its attributes, at most.
    held: int = 0


class UnfitError(Exception):
    """What a graph holds that no network of ours does."""


def complaint(file: BinaryIO, size: int) -> str | None:
    """Return what a model's graph holds that no network of ours does, or ``None``.

    Parameters
    ----------
    file
        The model, of `size` bytes.

    Raises
    ------
    WireError
        It is no message.
    """
    try:
        for part in fields(file, 0, size):
            if part.number == _FUNCTIONS:
                return "defines functions of its own"
            if part.number == GRAPH:
                _graph(file, part)
    except UnfitError as found:
        return str(found)
    return None


def _graph(file: BinaryIO, graph: Field) -> None:
    weights: dict[str, int] = {}
    outside: set[str] = set()
    nodes: list[Node] = []
    for part in fields(file, graph.begin, graph.end):
        if part.number == _NODE:
            nodes.append(_node(file, part))
            if len(nodes) > MOST_NODES:
                raise UnfitError(f"has more than {MOST_NODES:,} nodes")
        elif part.number == _INITIALIZER:
            name, count = _tensor(file, part)
            weights[name] = count
        elif part.number == _OUTSIDE:
            outside.update(
                _name(file, each) for each in fields(file, part.begin, part.end) if each.number == _VALUE_NAME
            )
        elif part.number == _SPARSE:
            raise UnfitError("has sparse weights")
    numbers = Numbers(weights, outside)
    for node in nodes:  # in the file they come before the weights
        problem = numbers.add(node.operator, node.inputs, node.outputs, node.held)
        if problem is not None:
            raise UnfitError(problem)


def _node(file: BinaryIO, part: Field) -> Node:
    node = Node()
    for each in fields(file, part.begin, part.end):
        if each.number == _OPERATOR:
            node.operator = _name(file, each)
            if node.operator in ("Loop", "Scan", "If"):
                raise UnfitError(f"holds a loop or a branch ({node.operator})")
        elif each.number == _INPUT:
            node.inputs.append(_name(file, each))
        elif each.number == _OUTPUT:
            node.outputs.append(_name(file, each))
        elif each.number == _ATTRIBUTE:
            node.held += each.end - each.begin
            for value in fields(file, each.begin, each.end):
                if value.number in (_SUBGRAPH, _SUBGRAPHS):
                    raise UnfitError("holds a graph within the graph")
                if value.number in (_TENSOR, _TENSORS):
                    _tensor(file, value)
    node.held *= _DENSEST
    return node


def _tensor(file: BinaryIO, tensor: Field) -> tuple[str, int]:
    """Return a tensor's name and how many values it has; refuse one whose values are not here."""
    name, count, axes = "", 1, 0
    for each in fields(file, tensor.begin, tensor.end):
        if each.number == _EXTERNAL or (each.number == _LOCATION and each.value):
            raise UnfitError("keeps weights in another file")
        if each.number == _NAME:
            name = _name(file, each)
        elif each.number == _DIMS:
            for size in integers(file, each, MOST_AXES):
                count, axes = count * size, axes + 1
                if axes > MOST_AXES:
                    raise UnfitError(f"has weights of more than {MOST_AXES} axes")
    if count > (tensor.end - tensor.begin) * _DENSEST:
        raise UnfitError(f"claims {count:,} values for weights of {tensor.end - tensor.begin:,} bytes")
    return name, count


def _name(file: BinaryIO, field: Field) -> str:
    if field.end - field.begin > LONGEST_NAME:
        raise UnfitError(f"has a name of {field.end - field.begin:,} bytes")
    return content(file, field).decode(errors="backslashreplace")
