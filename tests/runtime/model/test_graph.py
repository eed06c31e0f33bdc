"""Graphs that are no networks: refused in one line before any engine sees them."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cellseg.runtime.backends import open_backend
from cellseg.runtime.errors import CellsegError, ModelError
from cellseg.runtime.model import graph
from cellseg.runtime.model.onnx_metadata import load_spec
from cellseg.runtime.model.spec import METADATA_KEY


def write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def model(bright_model: Path) -> onnx.ModelProto:
    """A sound model, to be spoilt; its last node makes the output of ``plane``."""
    return onnx.load(bright_model)


def insert(model: onnx.ModelProto, *nodes: onnx.NodeProto, **constants: np.ndarray) -> None:
    """Put nodes that lead from ``plane`` to ``other`` before the last node."""
    last = model.graph.node[-1]
    last.input[0] = "other"
    for node in reversed(nodes):
        model.graph.node.insert(len(model.graph.node) - 1, node)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())


def body() -> onnx.GraphProto:
    value = [helper.make_tensor_value_info("v", TensorProto.FLOAT, None)]
    return helper.make_graph([helper.make_node("Identity", ["plane"], ["v"])], "body", [], value)


def test_a_network_passes(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", model)
    with path.open("rb") as file:
        assert graph.complaint(file, path.stat().st_size) is None
    assert load_spec(path).name == "bright"


def test_loops_branches_and_functions(model: onnx.ModelProto, tmp_path: Path) -> None:
    forever = np.array(1 << 62)
    for node in (
        helper.make_node("Loop", ["forever", "", "plane"], ["other"], body=body()),
        helper.make_node("Scan", ["plane"], ["other"], body=body(), num_scan_inputs=1),
        helper.make_node("If", ["yes"], ["other"], then_branch=body(), else_branch=body()),
        helper.make_node("SequenceMap", ["plane"], ["other"], body=body()),
    ):
        spoilt = onnx.ModelProto()
        spoilt.CopyFrom(model)
        insert(spoilt, node, forever=forever, yes=np.array(True))
        words = "a graph within the graph" if node.op_type == "SequenceMap" else f"\\({node.op_type}\\)"
        with pytest.raises(ModelError, match=rf"m\.onnx: its graph holds .*{words}"):
            load_spec(write(tmp_path / "m.onnx", spoilt))
    twice = helper.make_function(
        "own", "Twice", ["x"], ["y"], [helper.make_node("Twice", ["x"], ["y"], domain="own")],
        [helper.make_opsetid("own", 1)],
    )  # fmt: skip
    model.functions.append(twice)
    with pytest.raises(ModelError, match="defines functions of its own"):
        load_spec(write(tmp_path / "m.onnx", model))


@pytest.mark.parametrize("where", ["initializer", "attribute", "sparse"])
def test_weights_in_other_files(where: str, model: onnx.ModelProto, tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../etc/passwd")
    if where == "initializer":
        model.graph.initializer.append(tensor)
    elif where == "attribute":
        insert(model, helper.make_node("Constant", [], ["other"], value=tensor))
    else:
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    with pytest.raises(ModelError, match=r"keeps weights in another file|has sparse weights"):
        load_spec(write(tmp_path / "m.onnx", model))


def test_more_nodes_than_any_network(model: onnx.ModelProto, tmp_path: Path) -> None:
    names = ["plane", *(f"n{number}" for number in range(graph.MOST_NODES)), "other"]
    for one, two in itertools.pairwise(names):
        model.graph.node.append(helper.make_node("Add", [one, "plane"], [two]))
    with pytest.raises(ModelError, match="has more than 10,000 nodes"):
        load_spec(write(tmp_path / "m.onnx", model))


def test_a_damaged_graph_is_named(model: onnx.ModelProto, tmp_path: Path) -> None:
    """What is no message within the graph, where nothing has sealed it."""
    data = bytearray(model.SerializeToString())
    data[data.index(b"Cast") - 1] = 0x7F
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"m\.onnx: not an ONNX model, or a damaged one"):
        load_spec(path)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_names_that_are_no_text(engine: str, model: onnx.ModelProto, tmp_path: Path) -> None:
    """Engines pass such names on to Python, which raises UnicodeDecodeError."""
    pytest.importorskip(engine)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString().replace(b"ReduceMean", b"Reduce\xec\xff\xecn"))
    with pytest.raises(ModelError, match=r"m\.onnx: .*(OpenVINO|ONNX Runtime) cannot") as caught:
        open_backend(path, "cpu", engine=engine)
    assert "\n" not in str(caught.value)


def giants() -> list[tuple[list[onnx.NodeProto], dict[str, np.ndarray]]]:
    node, to = helper.make_node, np.array([1 << 34])
    summed = [node("ReduceSum", ["huge"], ["sum"], keepdims=0), node("Add", ["plane", "sum"], ["other"])]
    doubled = [node("Concat", [f"d{i}", f"d{i}"], [f"d{i + 1}"], axis=0) for i in range(40)]
    return [
        ([node("Expand", ["zero", "to"], ["huge"]), *summed], {"zero": np.zeros(1, "f"), "to": to}),
        ([node("ConstantOfShape", ["to"], ["huge"]), *summed], {"to": to}),
        ([*doubled, node("Identity", ["d40"], ["huge"]), *summed], {"d0": np.zeros(1, "f")}),
        (
            [node("Tile", ["plane", "to"], ["huge"]), node("ReduceMax", ["huge", "first"], ["other"])],
            {"to": np.array([1, 10**7, 1, 1])},
        ),
        (
            [
                node("Resize", ["plane", "", "to"], ["huge"], mode="nearest"),
                node("MaxPool", ["huge"], ["other"], kernel_shape=[999, 999], strides=[999, 999]),
            ],
            {"to": np.array([1, 1, 999, 999], "f")},
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(len(giants())))
def test_absurd_memory_is_refused_before_it_is_taken(
    number: int, model: onnx.ModelProto, tmp_path: Path
) -> None:
    nodes, constants = giants()[number]
    insert(model, *nodes, **constants)
    path = write(tmp_path / "m.onnx", model)
    assert METADATA_KEY in path.read_bytes().decode(errors="ignore")
    with pytest.raises(CellsegError, match=r"takes [\d,]+ GB, as no network does"):  # noqa: SIM117
        with open_backend(path, "cpu", engine="openvino") as backend:
            backend.prepare(64, 2)
