import onnx
import pytest
import torch
from torch import nn

from cellseg.export import to_onnx
from cellseg.export.assemble import Exported
from cellseg.runtime.errors import ModelError, UsageError
from cellseg.runtime.model.onnx_metadata import load_spec


@pytest.fixture(scope="module")
def model(exported: Exported) -> onnx.ModelProto:
    return onnx.load(exported.path)


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def test_graph_keeps_its_contract(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 20
    for value, dims in (
        (model.graph.input[0], ["N", "4*h", "4*w", 3]),
        (model.graph.output[0], ["N", 3, "4*h", "4*w"]),
    ):
        tensor = value.type.tensor_type
        assert tensor.elem_type == onnx.TensorProto.UINT8
        assert [dim.dim_param or dim.dim_value for dim in tensor.shape.dim] == dims
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "planes"]


def test_graph_is_lean(model: onnx.ModelProto) -> None:
    counts = to_onnx.node_counts(model)
    assert not to_onnx.TRAINING_NODES & set(counts)
    # Two double convolutions less a bias of the parallel branches, three scales, five blocks.
    assert counts["Conv"] == 5 * 3 * 2 + 1
    assert not {"Constant", "Reshape", "Shape", "Where", "Expand"} & set(counts)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


def test_graph_holds_no_word_of_the_machine_that_made_it(exported: Exported) -> None:
    data = exported.path.read_bytes()
    for word in (b"stack_trace", b"pkg.torch", b"site-packages", b".py"):
        assert word not in data


def test_spec_rides_in_the_metadata(exported: Exported, model: onnx.ModelProto) -> None:
    spec = load_spec(exported.path)
    assert spec.weights_sha256 == to_onnx.weights_sha256(model)
    assert spec == exported.spec
    assert spec.provenance["step"] == "7"


def test_weights_hash_sees_every_byte(model: onnx.ModelProto) -> None:
    before = to_onnx.weights_sha256(model)
    other = copy_of(model)
    tensor = max(other.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.raw_data = tensor.raw_data[:-1] + bytes([tensor.raw_data[-1] ^ 1])
    assert to_onnx.weights_sha256(other) != before


def test_bad_graphs_are_told_apart(exported: Exported, model: onnx.ModelProto) -> None:
    spec = exported.spec
    broken = copy_of(model)
    broken.graph.node[3].input[0] = "nowhere"
    with pytest.raises(ModelError, match="does not pass onnx"):
        to_onnx.finish(broken, spec)
    renamed = copy_of(model)
    renamed.graph.node.append(onnx.helper.make_node("Identity", ["planes"], ["more"]))
    with pytest.raises(ModelError, match="still holds Identity"):
        to_onnx.finish(renamed, spec)
    with pytest.raises(ModelError, match="inputs and outputs"):
        to_onnx.finish(model, spec.model_copy(update={"heads": spec.heads[:2]}))


@pytest.mark.parametrize("opset", [17, 19, 99])
def test_unsupported_opsets_are_refused(opset: int) -> None:
    with pytest.raises(UsageError, match=rf"--opset {opset}: wanted 20…23"):
        to_onnx.check_opset(opset)


def test_softplus_loses_its_guard_and_only_it() -> None:
    class Module(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            x = image.float().permute(0, 3, 1, 2)
            return torch.where(x > 20, nn.functional.softplus(x / 10), x).to(torch.uint8)

    model = to_onnx.trace(Module(), channels=1, multiple=2)
    counts = to_onnx.node_counts(model)
    assert (counts["Softplus"], counts["Where"], counts["Greater"]) == (1, 1, 1)
