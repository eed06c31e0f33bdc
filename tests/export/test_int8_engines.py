"""The INT8 graph as it is exported, on every engine: none may need another one."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from cellseg.export import int8, parity
from cellseg.export.assemble import Exported, Request, export
from cellseg.export.to_tensorrt import Settings, build
from cellseg.runtime.backends import Options, open_backend
from cellseg.runtime.backends.trt import plans
from cellseg.train.config import TrainConfig

from .conftest import HEADS, learn, write_checkpoint

pytest.importorskip("nncf", reason="NNCF is not installed (pip install 'cellseg[int8]')")
pytest.importorskip("onnxruntime", reason="NNCF calibrates on ONNX Runtime")


@pytest.fixture(scope="module")
def exported_int8(
    checkpoint: Path, pictures: Path, said: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    # A network of four channels bears less than a real one: more of it stays in floating point.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "EFFECT", 1.2)
        return in_eight_bits(checkpoint, pictures, tmp_path_factory.mktemp("int8") / "tiny.onnx", said)


def in_eight_bits(checkpoint: Path, pictures: Path, output: Path, said: list[str]) -> Exported:
    request = Request(
        checkpoint=checkpoint,
        output=output,
        heads=HEADS,
        precision="int8",
        calibration=pictures,
        parity=pictures,
        halo=24,  # said, for it is measured in tests of its own
        force=True,  # whether so little a network keeps its cells to a hair is not what is tested
    )
    return export(request, said.append)


def check_on_engines(exported: Exported) -> None:
    """Every engine's planes are the trained network's, within the limits of INT8.

    F1 at IoU 0.9 is left to real networks: one of a few training steps has flat planes, whose cells
    a difference of few bytes moves.
    """
    limits = parity.LIMITS["int8"]
    for engine, options in (
        ("openvino", Options()),
        ("openvino", Options(precision="fp32")),
        ("onnxruntime", Options()),
    ):
        with open_backend(exported.path, "cpu", engine=engine, options=options) as backend:
            planes = parity.engine_planes(backend, exported.images)
        figures = parity.compare(exported.planes, planes, exported.spec)
        assert figures.cells > 100
        assert figures.plane_mean <= limits.plane_mean, engine
        assert figures.mask_iou >= limits.mask_iou, engine
        assert figures.f1_50 >= 0.9, engine


def check_plan(exported: Exported, plan: Path) -> None:
    """TensorRT-RTX parses the graph and builds it, for tiles of many sizes."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (pip install 'cellseg[rtx]')")
    if str(plans.installed_release(plans.FLAVOURS["tensorrt_rtx"])).startswith("1.4."):
        pytest.skip("TensorRT-RTX 1.4 builds no INT8 convolutions; 1.7 does")
    record = build(exported.path, plan, Settings("tensorrt_rtx", capabilities=("8.9",)))
    assert (record.precision, record.spec) == ("int8", exported.spec)
    assert record.plan_sha256 == plans.sha256(plan)


def eight_bit_weights(path: Path) -> list[int]:
    """Return how many numbers each INT8 convolution weight holds."""
    tensors = onnx.load(path).graph.initializer
    return [int(np.prod(t.dims)) for t in tensors if t.data_type == TensorProto.INT8 and len(t.dims) == 4]


def test_the_export_tells_and_records_it(exported_int8: Exported, said: list[str]) -> None:
    assert any(text.startswith("int8") and "calibrated on 12 tiles from" in text for text in said)
    assert exported_int8.spec.precision == "int8"
    assert {"passed", "int8.plane_mean", "int8.f1_90"} <= set(exported_int8.spec.parity)
    assert eight_bit_weights(exported_int8.path)


def test_every_engine_gives_the_same_cells(exported_int8: Exported) -> None:
    check_on_engines(exported_int8)


def test_a_plan_is_built(exported_int8: Exported, tmp_path: Path) -> None:
    check_plan(exported_int8, tmp_path / "tiny.plan")


@pytest.mark.slow
def test_the_default_network_in_eight_bits(pictures: Path, said: list[str], tmp_path: Path) -> None:
    """The architecture that is shipped: width 16, depth 3, three branches."""
    config = TrainConfig(init_channel_number=16, use_density=0.5)
    assert (config.init_channel_number, config.model_deep, config.M_channel) == (16, 3, 3)
    checkpoint = write_checkpoint(tmp_path / "real" / "best.pt", config, learn(config, 40))
    exported = in_eight_bits(checkpoint, pictures, tmp_path / "real.onnx", said)
    assert sum(eight_bit_weights(exported.path)) > 100_000
    check_on_engines(exported)
    check_plan(exported, tmp_path / "real.plan")
