"""Refuse an ONNX graph that is no plain network, before an engine opens it.

A model file is foreign input. What a network computes is bounded by its weights and the size of a
tile; loops, branches and functions are not (a few hundred bytes can ask for years), and weights in
other files name any file of this machine. No exported network has them. Like
:mod:`.onnx_metadata`, this needs no ``onnx`` package.

Source: ``ModelProto`` and its parts in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from typing import BinaryIO

from .wire import Field, content, fields

#: Nodes in a graph: the deepest network here has a few hundred. Engines take minutes over 100,000.
MOST_NODES = 10_000
#: Field numbers in ``ModelProto``.
GRAPH, _FUNCTIONS = 7, 25
#: In ``GraphProto``: nodes, weights, sparse weights (values and indices).
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15
#: In ``NodeProto``, and in ``AttributeProto``: a tensor, a graph, several of them.
_OPERATOR, _ATTRIBUTE, _TENSOR, _SUBGRAPH, _TENSORS, _SUBGRAPHS = 4, 5, 5, 6, 10, 11
#: In ``TensorProto``: where the values are, if not here.
_EXTERNAL, _LOCATION = 13, 14


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
    for part in fields(file, 0, size):
        if part.number == _FUNCTIONS:
            return "defines functions of its own"
        if part.number != GRAPH:
            continue
        nodes = 0
        for field in fields(file, part.begin, part.end):
            if field.number == _NODE:
                nodes += 1
                problem = _node(file, field) if nodes <= MOST_NODES else f"has more than {MOST_NODES:,} nodes"
            elif field.number == _INITIALIZER:
                problem = _tensor(file, field)
            else:
                problem = "has sparse weights" if field.number == _SPARSE else None
            if problem is not None:
                return problem
    return None


def _node(file: BinaryIO, node: Field) -> str | None:
    for field in fields(file, node.begin, node.end):
        if field.number == _OPERATOR:
            name = content(file, field)[:40].decode(errors="replace")
            if name in ("Loop", "Scan", "If"):
                return f"holds a loop or a branch ({name})"
        elif field.number == _ATTRIBUTE:
            for value in fields(file, field.begin, field.end):
                if value.number in (_SUBGRAPH, _SUBGRAPHS):
                    return "holds a graph within the graph"
                if value.number in (_TENSOR, _TENSORS):
                    problem = _tensor(file, value)
                    if problem is not None:
                        return problem
    return None


def _tensor(file: BinaryIO, tensor: Field) -> str | None:
    for field in fields(file, tensor.begin, tensor.end):
        if field.number == _EXTERNAL or (field.number == _LOCATION and field.value):
            return "keeps weights in another file"
    return None
