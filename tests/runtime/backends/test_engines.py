from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellseg.runtime.backends import (
    Options,
    base,
    engines,
    list_devices,
    load_spec,
    open_backend,
    resolve_model,
)
from cellseg.runtime.backends.base import Backend
from cellseg.runtime.backends.gpus import Gpu, list_gpus
from cellseg.runtime.errors import BackendError, ModelError, UsageError
from cellseg.runtime.model import onnx_metadata
from cellseg.runtime.model.catalog import MODELS, default_model, model_names
from cellseg.runtime.model.onnx_metadata import seal
from cellseg.runtime.model.spec import Head, ModelSpec


def test_auto_takes_openvino_without_a_gpu(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "list_gpus", tuple)
    with open_backend(model_path) as backend:
        assert (backend.name, backend.device, backend.note) == ("openvino", "cpu", "")


def test_auto_says_when_a_gpu_had_to_be_left_out(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(0, "Imaginary 9000", (9, 0), 1 << 36)
    monkeypatch.setattr(engines, "list_gpus", lambda: (gpu,))
    monkeypatch.setattr("cellseg.runtime.backends.ort.has_cuda", lambda: False)
    with open_backend(model_path) as backend:
        assert backend.device == "cpu"
        assert "cellseg[gpu]" in backend.note
    rows = {(line.device, line.engine): line for line in list_devices()}
    assert rows["cuda:0", "onnxruntime"].hardware == "Imaginary 9000"
    assert rows["cpu", "openvino"].missing is None


def test_cuda_never_becomes_cpu_silently(model_path: Path) -> None:
    if list_gpus():
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendError, match="no NVIDIA GPU"):
        open_backend(model_path, "cuda:0")
    from cellseg.runtime.backends.ort import OnnxRuntime

    with pytest.raises((BackendError, ModelError), match="ONNX Runtime"):
        OnnxRuntime(model_path, load_spec(model_path), device="cuda:0")


def test_nothing_can_run_it(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, spec: ModelSpec, device: str, options: Options) -> Backend:
        raise BackendError("broken here")

    row = engines.Engine("broken", ".onnx", "cpu", lambda: None, onnx_metadata.load_spec, refuse)
    monkeypatch.setattr(engines, "ENGINES", (row,))
    with pytest.raises(BackendError, match=r"nothing here can run .*broken on cpu: broken here"):
        open_backend(model_path)
    with pytest.raises(BackendError, match="broken here"):
        open_backend(model_path, "cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:0", "CUDA", ""])
def test_unknown_device(model_path: Path, device: str) -> None:
    with pytest.raises(UsageError, match=f"unknown device '{device}'; choose auto, cpu"):
        open_backend(model_path, device)


def test_engine_and_device_must_fit(model_path: Path) -> None:
    with pytest.raises(UsageError, match=r"openvino runs \.onnx files on cpu, not on cuda"):
        open_backend(model_path, "cuda", engine="openvino")
    with pytest.raises(UsageError, match=r"engine 'torch' does not run \.onnx files; choose"):
        open_backend(model_path, engine="torch")


def test_kinds_of_files(tmp_path: Path) -> None:
    for name, words in (
        ("model.engine", r"unknown kind of model '\.engine'; expected .*\.onnx"),
        ("model.pth", r"is a checkpoint of training, .* export it first: cellseg-export"),
    ):
        (tmp_path / name).touch()
        with pytest.raises(UsageError, match=words):
            open_backend(tmp_path / name)
    with pytest.raises(ModelError, match="no such file"):
        open_backend(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        open_backend(tmp_path)


def test_damage_is_named_before_an_engine_sees_it(
    tmp_path: Path, write_model: Callable[..., Path], box_spec: ModelSpec
) -> None:
    path = write_model(tmp_path / "odd.onnx", spec=box_spec)
    seal(path)
    open_backend(path, "cpu").close()
    path.write_bytes(path.read_bytes().replace(b"Transpose", b"Tranxpoxe"))
    with pytest.raises(ModelError, match=r"odd\.onnx: changed or damaged"):
        open_backend(path, "cpu")


def test_a_graph_that_an_engine_refuses(
    tmp_path: Path, write_model: Callable[..., Path], box_spec: ModelSpec
) -> None:
    path = write_model(tmp_path / "odd.onnx", spec=box_spec)
    path.write_bytes(path.read_bytes().replace(b"Conv", b"Cnov"))
    with pytest.raises(ModelError, match=r"odd\.onnx: ONNX Runtime cannot load it: .*Cnov"):
        open_backend(path, "cpu", engine="onnxruntime")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": ("mask", "boundary", "density")}, "an output of 2 planes, its specification names 3"),
        ({"heads": ("mask",)}, "an output of 2 planes, its specification names 1"),
        ({"channels": 1}, "an input of 3 channels, its specification names 1"),
        ({"renamed": b"images"}, "one output 'planes' of 4 axes, found 'images' of 4 axes"),
    ],
)
def test_a_graph_and_its_specification_must_agree(
    engine: str,
    change: dict[str, Any],
    message: str,
    tmp_path: Path,
    write_model: Callable[..., Path],
    box_spec: ModelSpec,
) -> None:
    change = dict(change)
    renamed = change.pop("renamed", b"planes")
    if "heads" in change:
        change["heads"] = tuple(Head(name=name) for name in change["heads"])
    path = write_model(tmp_path / "odd.onnx", spec=box_spec.model_copy(update=change))
    path.write_bytes(path.read_bytes().replace(b"planes", renamed))
    with pytest.raises(ModelError, match=rf"odd\.onnx: its graph .*{message}; export the model again"):
        open_backend(path, "cpu", engine=engine)


def test_each_packaged_model_has_a_card_and_the_name_it_is_called_by() -> None:
    assert model_names() == ["nuclei", "phase"]
    for name in model_names():
        assert load_spec(default_model(name)).name == name
        assert (MODELS / f"{name}.md").read_text(encoding="utf-8").startswith(f"# {name}\n")


def test_packaged_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_model: Callable[..., Path]
) -> None:
    assert MODELS.name == "packaged"
    monkeypatch.setattr("cellseg.runtime.model.catalog.MODELS", tmp_path)
    with pytest.raises(ModelError, match="install cellseg again"):
        default_model()
    path = write_model(tmp_path / "nuclei.onnx", spec=None)
    assert resolve_model(None) == resolve_model("nuclei") == default_model() == path
    assert model_names() == ["nuclei"]
    with pytest.raises(UsageError, match="no packaged model is called 'cells'; packaged: nuclei"):
        resolve_model("cells")


def test_engines_keep_to_a_containers_share(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They see the cores of the machine, and would start as many threads on a quota of one."""
    monkeypatch.setattr(base, "cores", lambda: 1)
    monkeypatch.setattr(base.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert base.thread_limit(None) == 1
    assert base.thread_limit(5) == 5
    with open_backend(model_path, "cpu", engine="openvino") as backend:
        backend.prepare(32, 1)
        assert "1 threads in 1 streams" in backend.description
    monkeypatch.setattr(base, "cores", lambda: 64)
    assert base.thread_limit(None) is None


def test_onnx_runtime_prints_nothing_of_its_own(
    tmp_path: Path, write_model: Callable[..., Path], box_spec: ModelSpec, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    path = write_model(tmp_path / "odd.onnx", spec=box_spec)
    path.write_bytes(path.read_bytes().replace(b"Conv", b"Cnov"))
    with pytest.raises(ModelError):
        open_backend(path, "cpu", engine="onnxruntime")
    assert capfd.readouterr() == ("", "")
