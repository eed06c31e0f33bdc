"""Graphs that are no networks: refused in one line before any engine sees them."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cellseg.runtime.backends import open_backend, sizes
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
    for node in nodes:
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


def made_of_numbers() -> list[tuple[str, list[onnx.NodeProto], dict[str, np.ndarray]]]:
    node, many, zero = helper.make_node, np.array([1 << 27]), np.zeros(1, "f")
    summed = [node("ReduceSum", ["huge"], ["sum"], keepdims=0), node("Add", ["plane", "sum"], ["other"])]
    doubled = [node("Concat", [f"d{i}", f"d{i}"], [f"d{i + 1}"], axis=0) for i in range(40)]
    line, row = np.ones((4096, 1), "f"), np.ones((1, 4096), "f")
    shape = [node("Shape", ["plane"], ["to"]), node("ReduceMax", ["to"], ["n"], keepdims=0)]
    return [
        ("Expand", [node("Expand", ["zero", "to"], ["huge"]), *summed], {"zero": zero, "to": many}),
        ("Tile", [node("Tile", ["zero", "to"], ["huge"]), *summed], {"zero": zero, "to": many}),
        ("ConstantOfShape", [node("ConstantOfShape", ["to"], ["huge"]), *summed], {"to": many}),
        ("ConstantOfShape", [*shape, node("ConstantOfShape", ["to"], ["huge"]), *summed], {}),
        ("Range", [node("Range", ["a", "b", "c"], ["huge"]), *summed],
         {"a": np.array(0.0, "f"), "b": np.array(1e8, "f"), "c": np.array(1.0, "f")}),
        ("Concat", [*doubled, node("Identity", ["d40"], ["huge"]), *summed], {"d0": np.zeros(1, "f")}),
        ("Add", [node("Add", ["line", "row"], ["huge"]), *summed], {"line": line, "row": row}),
        ("MatMul", [node("MatMul", ["line", "row"], ["huge"]), *summed], {"line": line, "row": row}),
        ("Identity", [node("Identity", ["line"], [f"i{n}"]) for n in range(2000)]
         + [node("Identity", ["i1"], ["huge"]), *summed], {"line": line}),
        ("Einsum", [node("Einsum", ["row", "row"], ["huge"], equation="ab,cd->abcd"), *summed], {"row": row}),
        ("RandomNormal", [node("RandomNormal", [], ["huge"], shape=[1 << 28]), *summed], {}),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(len(made_of_numbers())))
def test_what_is_made_of_numbers_in_the_file_is_bounded(
    number: int, model: onnx.ModelProto, tmp_path: Path
) -> None:
    """Engines compute it as they open the file, so nothing later could see how large it becomes."""
    operator, nodes, constants = made_of_numbers()[number]
    insert(model, *nodes, **constants)
    with pytest.raises(ModelError, match=rf"numbers|values \({operator}\)"):
        load_spec(write(tmp_path / "m.onnx", model))


def test_what_networks_make_of_their_weights_passes(model: onnx.ModelProto, tmp_path: Path) -> None:
    """Weights in eight bits, and sizes that follow from sizes."""
    node = helper.make_node
    insert(
        model,
        node("DequantizeLinear", ["w", "scale"], ["v"]),
        node("Reshape", ["v", "flat"], ["u"]),
        node("ReduceMean", ["u"], ["average"], keepdims=0),
        node("Shape", ["plane"], ["shape"]),
        node("Reshape", ["plane", "shape"], ["same"]),
        node("Mul", ["same", "average"], ["other"]),
        w=np.ones((16, 16, 3, 3), np.int8), scale=np.array(1.0, "f"), flat=np.array([-1]),
    )  # fmt: skip
    path = write(tmp_path / "m.onnx", model)
    with open_backend(path, "cpu", engine="openvino") as backend:
        backend.prepare(64, 2)


def test_sizes_do_not_come_from_pixels(model: onnx.ModelProto, tmp_path: Path) -> None:
    node = helper.make_node
    insert(
        model,
        node("ReduceMax", ["plane"], ["top"], keepdims=0),
        node("Cast", ["top"], ["whole"], to=TensorProto.INT64),
        node("Reshape", ["whole", "one"], ["count"]),
        node("Tile", ["plane", "count"], ["other"]),
        one=np.array([1]),
    )
    with pytest.raises(ModelError, match=r"its graph takes sizes from pixels \(Tile\)"):
        load_spec(write(tmp_path / "m.onnx", model))


@pytest.mark.parametrize(
    ("words", "nodes"),
    [
        (
            "uses a tensor before it is made",
            [("Add", ["late", "plane"], "other"), ("Neg", ["plane"], "late")],
        ),
        ("makes one tensor twice", [("Neg", ["plane"], "other"), ("Abs", ["plane"], "other")]),
        ("has a name of 9,999 bytes", [("N" * 9999, ["plane"], "other")]),
    ],
)
def test_nodes_that_hide_what_they_are(
    words: str, nodes: list[tuple[str, list[str], str]], model: onnx.ModelProto, tmp_path: Path
) -> None:
    insert(model, *(helper.make_node(kind, takes, [makes]) for kind, takes, makes in nodes))
    with pytest.raises(ModelError, match=words):
        load_spec(write(tmp_path / "m.onnx", model))


def test_weights_that_are_not_there(model: onnx.ModelProto, tmp_path: Path) -> None:
    insert(model, helper.make_node("Add", ["plane", "w"], ["other"]))
    model.graph.initializer.append(
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 20, 1 << 20], raw_data=b"1234")
    )
    with pytest.raises(ModelError, match=r"claims 1,099,511,627,776 values for weights of \d+ bytes"):
        load_spec(write(tmp_path / "m.onnx", model))


def giants() -> list[tuple[str, list[onnx.NodeProto], dict[str, np.ndarray]]]:
    node = helper.make_node
    adds = [node("Add", [f"a{n}", f"a{n}"], [f"a{n + 1}"]) for n in range(60)]
    sums = [node("Add", [f"s{n}", f"a{n}"], [f"s{n + 1}"]) for n in range(60)]
    wide = {"to": np.array([1, 4000, 1, 1])}
    return [
        (
            "one result of its graph .* takes",
            [node("Tile", ["plane", "to"], ["huge"]), node("ReduceMax", ["huge", "first"], ["other"])],
            {"to": np.array([1, 10**7, 1, 1])},
        ),
        (
            "one result of its graph .* takes",
            [
                node("Resize", ["plane", "", "to"], ["huge"], mode="nearest"),
                node("MaxPool", ["huge"], ["other"], kernel_shape=[999, 999], strides=[999, 999]),
            ],
            {"to": np.array([1, 1, 999, 999], "f")},
        ),
        (  # each is modest, and all are there until the last one is made
            "results of its graph take .* together",
            [node("Tile", ["plane", "to"], ["a0"]), node("Identity", ["a0"], ["s0"]), *adds, *sums,
             node("ReduceMax", ["s60", "first"], ["other"])],
            wide,
        ),
        (
            "billion multiplications",
            [node("MaxPool", ["plane"], ["other"], kernel_shape=[20_001, 20_001], pads=[10_000] * 4)],
            {},
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("number", range(len(giants())))
def test_absurd_memory_and_work_are_refused_before(
    number: int, engine: str, model: onnx.ModelProto, tmp_path: Path
) -> None:
    pytest.importorskip(engine)
    words, nodes, constants = giants()[number]
    insert(model, *nodes, **constants)
    path = write(tmp_path / "m.onnx", model)
    assert METADATA_KEY in path.read_bytes().decode(errors="ignore")
    with (
        open_backend(path, "cpu", engine=engine) as backend,
        pytest.raises(CellsegError, match=rf"{words}.*as no network does"),
    ):
        backend.prepare(64, 2)


def test_a_batch_larger_than_the_machine(bright_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "machine_memory", lambda: 1000)
    with (
        open_backend(bright_model, "cpu", engine="openvino") as backend,
        pytest.raises(CellsegError, match="choose a smaller tile or batch"),
    ):
        backend.prepare(64, 2)
