"""From a deployable module to one self-contained ONNX file; knows nothing of engines."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterator

import onnx
import torch
from torch import nn

from cellseg.runtime.errors import ModelError, UsageError
from cellseg.runtime.model.spec import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, ModelSpec

#: The oldest opset that is written, and the newest that every engine here reads.
OPSETS = range(20, 24)
#: Node types that belong to training; none may be left.
TRAINING_NODES = frozenset({"BatchNormalization", "Dropout", "Identity"})


def check_opset(opset: int) -> None:
    """Raise UsageError where `opset` is not one that is written."""
    if opset not in OPSETS:
        raise UsageError(f"--opset {opset}: wanted {OPSETS[0]}…{OPSETS[-1]}")


def trace(
    module: nn.Module, *, channels: int, multiple: int, opset: int = OPSETS[0], optimize: bool = True
) -> onnx.ModelProto:
    """Export a module that maps uint8 (N, H, W, C) to uint8 (N, K, H, W), any N, H and W.

    Parameters
    ----------
    module
        In evaluation mode.
    multiple
        H and W are multiples of this, which the graph's dimension names say (``8*h``).
    optimize
        Fold constants and simplify.
    """
    check_opset(opset)
    unit = torch.export.Dim
    shape = {0: unit("N"), 1: multiple * unit("h"), 2: multiple * unit("w")}
    # Sizes of 0 and 1 would be taken for constants, so the example is 2 of everything at least.
    example = torch.zeros(2, 4 * multiple, 6 * multiple, channels, dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=(shape,),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=opset,
            external_data=False,
            optimize=optimize,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    tidy(model)
    if optimize:
        unguard_softplus(model)
    return model


def tidy(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes (stack traces with this machine's paths), name nodes plainly, in place."""
    del model.metadata_props[:]
    model.doc_string = ""
    model.producer_name, model.producer_version = "cellseg", ""
    graph = model.graph
    graph.name, graph.doc_string = "cellseg", ""
    del graph.metadata_props[:]
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del item.metadata_props[:]
        item.doc_string = ""
    for number, node in enumerate(graph.node):
        del node.metadata_props[:]
        node.doc_string = ""
        node.name = f"{node.op_type}_{number}"


def unguard_softplus(model: onnx.ModelProto) -> None:
    """Replace PyTorch's ``where(x > 20, x, softplus(x))`` by ``softplus(x)``, in place.

    In single precision the two are the same number beyond 20; ONNX's operator needs no such guard.
    """
    nodes = model.graph.node
    by_output = {node.output[0]: node for node in nodes}
    for where in [node for node in nodes if node.op_type == "Where"]:
        greater, soft = by_output.get(where.input[0]), by_output.get(where.input[2])
        if greater is None or soft is None or (greater.op_type, soft.op_type) != ("Greater", "Softplus"):
            continue
        if greater.input[0] == soft.input[0] == where.input[1]:
            limit = greater.input[1]
            soft.output[0] = where.output[0]
            nodes.remove(where)
            nodes.remove(greater)
            if not any(limit in node.input for node in nodes):
                _drop_constant(model.graph, limit)


def _drop_constant(graph: onnx.GraphProto, name: str) -> None:
    for tensor in [tensor for tensor in graph.initializer if tensor.name == name]:
        graph.initializer.remove(tensor)
    for node in [node for node in graph.node if node.op_type == "Constant" and name in node.output]:
        graph.node.remove(node)


def finish(model: onnx.ModelProto, spec: ModelSpec) -> bytes:
    """Put the specification into the model, check all of it and return the file's bytes.

    Raises
    ------
    ModelError
        The graph breaks ONNX's rules or ours: a bug of the exporter, told before anything is written.
    """
    model = copy.deepcopy(model)
    spec = spec.model_copy(update={"weights_sha256": weights_sha256(model)})
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    left = TRAINING_NODES & {node.op_type for node in model.graph.node}
    if left:
        raise ModelError(f"the exported graph still holds {', '.join(sorted(left))}")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"the exported graph does not pass onnx.checker: {str(error).splitlines()[0]}"
        ) from None
    _check_contract(model, spec)
    data: bytes = model.SerializeToString()
    return data


def weights_sha256(model: onnx.ModelProto) -> str:
    """SHA-256 over names, types, shapes and bytes of all initializers, in the order of their names."""
    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        digest.update(f"{tensor.name}\0{tensor.data_type}\0{list(tensor.dims)}\0".encode())
        digest.update(onnx.numpy_helper.to_array(tensor).tobytes())
    return digest.hexdigest()


def node_counts(model: onnx.ModelProto) -> Counter[str]:
    """Count the graph's nodes by type."""
    return Counter(node.op_type for node in model.graph.node)


def parameters(model: onnx.ModelProto) -> int:
    """Count the numbers held in the graph's initializers."""
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.dims)


def _check_contract(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Input and output must be what :mod:`cellseg.runtime.model.spec` promises."""
    graph = model.graph
    found = [(v.name, v.type.tensor_type.elem_type, _last(v)) for v in (*graph.input, *graph.output)]
    byte = onnx.TensorProto.UINT8
    multiple = f"{spec.multiple}*" if spec.multiple > 1 else ""
    wanted = [
        (INPUT_NAME, byte, ["N", f"{multiple}h", f"{multiple}w", spec.channels]),
        (OUTPUT_NAME, byte, ["N", len(spec.heads), f"{multiple}h", f"{multiple}w"]),
    ]
    if found != wanted:
        raise ModelError(f"the exported graph has inputs and outputs {found}, wanted {wanted}")


def _last(value: onnx.ValueInfoProto) -> list[str | int]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_param or dim.dim_value for dim in dims]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter (torchvision is absent, as wanted; progress lines) from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
