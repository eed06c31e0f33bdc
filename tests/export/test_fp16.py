import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from cellseg.export import fp16, parity, to_onnx
from cellseg.export.assemble import Exported
from cellseg.export.graph import Deployable, choose_heads
from cellseg.export.network import Trained
from cellseg.export.tiles import generate

from .conftest import HEADS


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.stack([image for image, _ in generate(2, 64, 3)])


@pytest.fixture
def deployable(trained: Trained) -> Deployable:
    return Deployable(trained.network, choose_heads(HEADS, HEADS))


def test_parts_cover_every_weight_once(deployable: Deployable) -> None:
    parts = fp16.parts(deployable.network)
    assert list(parts) == [
        "encoders.0", "encoders.1", "encoders.2", "ups.0", "ups.1", "decoders.0", "decoders.1", "heads",
    ]  # fmt: skip
    counted = sum(p.numel() for part in parts.values() for p in part.parameters())
    assert counted == sum(p.numel() for p in deployable.network.parameters())


def test_a_usual_network_takes_half_everywhere(deployable: Deployable, images: NDArray[np.uint8]) -> None:
    before = {name: tensor.clone() for name, tensor in deployable.state_dict().items()}
    choice = fp16.choose(deployable, images)
    assert choice.single == ()
    assert 0 < choice.effect <= fp16.EFFECT
    for name, tensor in deployable.state_dict().items():  # the trial leaves no trace
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("shift", [1e6, float("inf")])
def test_a_part_beyond_the_range_of_half_stays_single(
    deployable: Deployable, images: NDArray[np.uint8], shift: float
) -> None:
    with torch.no_grad():
        deployable.network.encoders[2].branches[0][0][0].bias += shift
    choice = fp16.choose(deployable, images)
    assert "encoders.2" in choice.single
    assert "encoders.0" not in choice.single
    assert choice.largest > fp16.RANGE


def test_the_parts_that_matter_most_go_first(
    deployable: Deployable, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = fp16.choose(deployable, images).effect
    monkeypatch.setattr(fp16, "EFFECT", everything * 0.7)
    choice = fp16.choose(deployable, images)
    assert 1 <= len(choice.single) < len(fp16.parts(deployable.network))
    assert choice.effect <= everything * 0.7


def test_parts_change_type_and_the_original_does_not(deployable: Deployable) -> None:
    converted = fp16.to_half(deployable, ["heads", "encoders.0"])
    types = {name: next(part.parameters()).dtype for name, part in fp16.parts(converted.network).items()}
    assert {name for name, dtype in types.items() if dtype == torch.float32} == {"heads", "encoders.0"}
    assert all(p.dtype == torch.float32 for p in deployable.parameters())


def test_half_graph_holds_half_weights(exported: Exported, exported_half: Exported) -> None:
    model = onnx.load(exported_half.path)
    kinds = {t.data_type for t in model.graph.initializer if len(t.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert to_onnx.node_counts(model)["Cast"] <= 4
    assert exported_half.path.stat().st_size < 0.75 * exported.path.stat().st_size


def test_half_model_is_the_trained_one(exported_half: Exported, said: list[str]) -> None:
    spec = exported_half.spec
    assert spec.precision == "fp16"
    assert spec.parity["passed"] == 1
    assert spec.parity["fp16.plane_max"] <= parity.LIMITS["fp16"].plane_max
    assert any(text.startswith("half") and "no part needs single" in text for text in said)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_half_model_runs_on_every_engine(exported_half: Exported, exported: Exported, engine: str) -> None:
    pytest.importorskip(engine)
    images = np.stack([image for image, _ in generate(2, 64, 3)])
    planes = {}
    for one in (exported, exported_half):
        with parity.open_backend(one.path, "cpu", engine=engine) as backend:
            planes[one.spec.precision] = parity.engine_planes(backend, images).astype(int)
    assert np.abs(planes["fp32"] - planes["fp16"]).mean() < 0.5
