import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from cellseg.export import assemble, cli, int8, to_onnx
from cellseg.export.assemble import Exported
from cellseg.export.tiles import generate

from .test_cli import ALL

pytest.importorskip("nncf", reason="NNCF is not installed (pip install 'cellseg[export]')")
pytest.importorskip("onnxruntime", reason="NNCF calibrates on ONNX Runtime")


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.stack([image for image, _ in generate(8, 64, 3)])


@pytest.fixture(scope="module")
def model(exported: Exported) -> onnx.ModelProto:
    loaded = onnx.load(exported.path)
    del loaded.metadata_props[:]
    return loaded


@pytest.fixture(scope="module")
def whole(model: onnx.ModelProto, images: NDArray[np.uint8]) -> int8.Quantised:
    return int8.quantise(model, images, images[:2], assemble.run_graph)


def quantised_weights(model: onnx.ModelProto) -> int:
    return sum(t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4 for t in model.graph.initializer)


def test_every_zero_point_is_zero(whole: int8.Quantised) -> None:
    """What TensorRT asks for."""
    values = {t.name: onnx.numpy_helper.to_array(t) for t in whole.model.graph.initializer}
    pairs = [n for n in whole.model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    assert all(not values[node.input[2]].any() for node in pairs if len(node.input) > 2)
    assert quantised_weights(whole.model) > 0


def test_bytes_and_sums_stay_in_floating_point(model: onnx.ModelProto) -> None:
    names = set(int8._always_floating(model))
    kinds = {node.op_type for node in model.graph.node if node.name in names}
    assert {"Cast", "Sigmoid", "Softplus", "Sqrt", "Round", "Add"} <= kinds
    assert not {"Conv", "ConvTranspose"} & kinds


def test_parts_cover_every_convolution(model: onnx.ModelProto) -> None:
    counts = to_onnx.node_counts(model)
    found = int8.parts(model)
    assert sum(map(len, found.values())) == counts["Conv"] + counts["ConvTranspose"]
    assert {"encoders.0", "ups.1", "decoders.0", "heads"} <= set(found)


def test_parts_given_back_are_the_original_ones(
    model: onnx.ModelProto, whole: int8.Quantised, images: NDArray[np.uint8]
) -> None:
    model = whole.original
    back = int8.give_back(whole.model, model, int8.parts(model))
    assert quantised_weights(back) == 0
    onnx.checker.check_model(back, full_check=True)
    one = int8.give_back(whole.model, model, ["encoders.0"])
    assert quantised_weights(one) <= quantised_weights(whole.model)
    wanted = assemble.run_graph(model, images[:2]).astype(int)
    assert np.abs(assemble.run_graph(back, images[:2]) - wanted).mean() < 3


def test_the_most_sensitive_parts_are_left_out(
    model: onnx.ModelProto,
    whole: int8.Quantised,
    images: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(int8, "EFFECT", 0.9 * whole.after)
    found = int8.quantise(model, images, images[:2], assemble.run_graph)
    assert found.kept
    assert found.kept[0] == max(found.alone, key=lambda part: found.alone[part])
    assert quantised_weights(found.model) < quantised_weights(whole.model)


def test_calibration_needs_real_pictures(checkpoint: Path, tmp_path: Path) -> None:
    words = [str(checkpoint), "--int8", "--no-plan", "-o", str(tmp_path / "m.onnx"), *ALL]
    result = CliRunner().invoke(cli.main, words)
    assert result.exit_code == 2
    assert "name a folder of pictures with --calib DIR" in result.output
    (tmp_path / "few").mkdir()
    import cv2

    cv2.imwrite(str(tmp_path / "few" / "a.png"), np.zeros((64, 64, 3), np.uint8))
    result = CliRunner().invoke(cli.main, [*words, "--calib", str(tmp_path / "few")])
    assert result.exit_code == 1
    assert "wanted 8 at least" in result.output
    (tmp_path / "few" / "notes.txt").write_text("no picture")
    result = CliRunner().invoke(cli.main, [*words, "--calib", str(tmp_path / "few")])
    assert result.exit_code == 1
    assert "notes.txt" in result.output
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("missing", "fix"),
    [(("nncf",), "pip install nncf"), (("nncf", "onnxruntime"), "pip install 'cellseg[int8]'")],
)
def test_what_is_not_installed_is_told_at_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], fix: str
) -> None:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    words = [str(checkpoint), "--int8", "-o", str(tmp_path / "m.onnx")]
    result = CliRunner().invoke(cli.main, words)
    assert result.exit_code == 2
    assert f"--int8 needs {' and '.join(missing)}, not installed here: {fix}" in result.output
    assert not list(tmp_path.iterdir())
