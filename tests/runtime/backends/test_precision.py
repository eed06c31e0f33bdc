"""In what an engine computes: chosen, said, and recorded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellseg.runtime import segment
from cellseg.runtime.backends import Options, cpu_openvino, load_spec, open_backend, ort, twins
from cellseg.runtime.backends.gpus import Gpu
from cellseg.runtime.errors import ModelError, UsageError
from cellseg.runtime.model import catalog
from cellseg.runtime.model.spec import ModelSpec

Writer = Callable[..., Path]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies in bfloat16, or says so."""
    monkeypatch.setattr(cpu_openvino, "_has_bf16", lambda: True)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that does not."""
    monkeypatch.setattr(cpu_openvino, "_has_bf16", lambda: False)


def computes_in(path: Path, precision: str = "auto", engine: str = "openvino") -> tuple[str, str]:
    """Open a model, run it, and return in what it computed and what there is to say about that."""
    options = Options(precision=precision)  # type: ignore[arg-type]
    with open_backend(path, "cpu", engine=engine, options=options) as backend:
        backend.prepare(backend.spec.tile, 1)
        backend.submit(np.zeros_like(backend.new_batch())).result()
        assert backend.precision in backend.description
        return backend.precision, backend.note


@pytest.mark.usefixtures("quick")
def test_auto_takes_what_the_processor_is_fast_in(model_path: Path) -> None:
    assert computes_in(model_path) == ("bf16", "")
    assert computes_in(model_path, "bf16") == ("bf16", "")
    assert computes_in(model_path, "fp32") == ("fp32", "")


@pytest.mark.usefixtures("plain")
def test_without_bfloat16(model_path: Path) -> None:
    assert computes_in(model_path) == ("fp32", "")
    with pytest.raises(UsageError, match="this processor does not compute in bfloat16"):
        computes_in(model_path, "bf16")


def test_the_engine_is_told(model_path: Path) -> None:
    """What is recorded is what OpenVINO says that it compiled for."""
    kinds = {"bf16": "bf16", "fp32": "f32"}
    for precision in ("auto", "fp32"):
        with open_backend(model_path, "cpu", options=Options(precision=precision)) as backend:  # type: ignore[arg-type]
            backend.prepare(32, 1)
            compiled = backend._compiled.get_property("INFERENCE_PRECISION_HINT")  # type: ignore[attr-defined]
            assert compiled.get_type_name() == kinds[backend.precision]


@pytest.mark.usefixtures("quick")
def test_a_model_that_does_not_bear_it(tmp_path: Path, write_model: Writer, box_spec: ModelSpec) -> None:
    path = write_model(tmp_path / "m.onnx", spec=box_spec.model_copy(update={"unfit": ("bf16",)}))
    precision, note = computes_in(path)
    assert precision == "fp32"
    assert "model 'box' runs in fp32: in bf16, which is faster here, its planes differ" in note
    assert computes_in(path, "fp32") == ("fp32", "")
    assert computes_in(path, "bf16")[0] == "bf16"  # as the user insists
    result = segment(np.zeros((40, 40, 3), np.uint8), path, device="cpu")
    assert result.record.engine.precision == "fp32"
    assert any("runs in fp32" in each for each in result.notes)


@pytest.mark.usefixtures("plain")
def test_a_model_that_was_forced_says_so(tmp_path: Path, write_model: Writer, box_spec: ModelSpec) -> None:
    path = write_model(tmp_path / "m.onnx", spec=box_spec.model_copy(update={"parity": {"passed": 0.0}}))
    assert "differs from the trained network beyond the limits" in computes_in(path)[1]
    result = segment(np.zeros((40, 40, 3), np.uint8), path, device="cpu")
    assert any("--force" in note for note in result.notes)


def test_an_int8_twin(tmp_path: Path, write_model: Writer, box_spec: ModelSpec) -> None:
    spec = box_spec.model_copy(update={"provenance": {"checkpoint_sha256": "a"}})
    path = write_model(tmp_path / "m.onnx", spec=spec)
    with pytest.raises(UsageError, match=r"m\.onnx: .* no twin in eight bits, m\.int8\.onnx, is next to it"):
        computes_in(path, "int8")
    integer = spec.model_copy(update={"precision": "int8"})
    twin = write_model(tmp_path / "m.int8.onnx", spec=integer)
    assert computes_in(path, "int8")[0].startswith("int8+")
    assert computes_in(twin)[0].startswith("int8+")
    assert computes_in(twin, "fp32") == ("int8+fp32", "")  # the rest of it, to the bit
    for wrong in (
        spec,
        integer.model_copy(update={"provenance": {"checkpoint_sha256": "b"}}),
    ):
        write_model(twin, spec=wrong)
        with pytest.raises(ModelError, match=r"m\.int8\.onnx: not the twin of m\.onnx"):
            computes_in(path, "int8")
    plan = tmp_path / "m.plan"
    plan.write_bytes(b"")
    with pytest.raises(UsageError, match="a plan computes in what it was built for, not in int8"):
        open_backend(plan, options=Options(precision="int8"))


def test_a_twin_with_other_settings_is_none(tmp_path: Path, write_model: Writer, box_spec: ModelSpec) -> None:
    """A model that was tuned later must not run with the splitter that its twin still has."""
    path = write_model(tmp_path / "m.onnx", spec=box_spec)
    split = box_spec.split.model_copy(update={"min_area": box_spec.split.min_area + 1})
    integer = box_spec.model_copy(update={"precision": "int8", "split": split})
    write_model(tmp_path / "m.int8.onnx", spec=integer)
    with pytest.raises(
        ModelError, match=r"m\.int8\.onnx: its split is not that of m\.onnx, .* again with --int8"
    ):
        computes_in(path, "int8")


@pytest.mark.parametrize(
    ("flags", "agreement", "takes"),
    [
        ("fpu avx512f avx512_vnni", 0.997, True),
        ("fpu avx_vnni", 0.995, True),
        ("fpu amx_int8", 0.997, True),
        ("fpu avx512f", 0.997, False),  # eight bits are no faster there
        ("", 0.997, False),
        (None, 0.997, False),
        ("fpu avx512_vnni", 0.994, False),  # loses too much
        ("fpu avx512_vnni", None, False),  # nobody knows what it loses
    ],
)
def test_auto_takes_a_twin_that_is_faster_and_finds_the_same(
    tmp_path: Path,
    write_model: Writer,
    box_spec: ModelSpec,
    monkeypatch: pytest.MonkeyPatch,
    flags: str | None,
    agreement: float | None,
    takes: bool,
) -> None:
    told = tmp_path / "cpuinfo"
    if flags is not None:
        told.write_text(f"processor\t: 0\nmodel name\t: any\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    monkeypatch.setattr(twins, "CPUINFO", told)
    path = write_model(tmp_path / "m.onnx", spec=box_spec)
    assert "int8" not in computes_in(path)[0]
    parity = {"passed": 1.0} | ({} if agreement is None else {"int8.f1_50": agreement})
    integer = box_spec.model_copy(update={"precision": "int8", "parity": parity})
    write_model(tmp_path / "m.int8.onnx", spec=integer)
    assert computes_in(path)[0].startswith("int8+") == takes
    assert "int8" not in computes_in(path, "fp32")[0]
    assert computes_in(path, "int8")[0].startswith("int8+")
    result = segment(np.zeros((40, 40, 3), np.uint8), path, device="cpu")
    assert result.record.engine.precision.startswith("int8") == takes


@pytest.mark.parametrize("change", [{"parity": {"passed": 0.0, "int8.f1_50": 1.0}}, {"halo": 16}])
def test_auto_does_without_a_twin_that_does_not_suit(
    tmp_path: Path,
    write_model: Writer,
    box_spec: ModelSpec,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
) -> None:
    monkeypatch.setattr(twins, "multiplies_bytes", lambda: True)
    path = write_model(tmp_path / "m.onnx", spec=box_spec)
    good = {"precision": "int8", "parity": {"passed": 1.0, "int8.f1_50": 1.0}}
    write_model(tmp_path / "m.int8.onnx", spec=box_spec.model_copy(update=good | change))
    precision, note = computes_in(path)
    assert "int8" not in precision
    assert not note


def test_the_packaged_twins_are_those_of_their_models() -> None:
    found = list(catalog.MODELS.glob("*.int8.onnx"))
    assert found
    for twin in found:
        path = twin.with_name(twin.name.replace(".int8", ""))
        where, spec = twins.twin_of(path, load_spec(path))
        assert where == twin
        assert spec.parity["passed"] == 1
        assert spec.parity["int8.f1_50"] >= twins.AGREEMENT
        assert not any("/" in word and word.startswith("/") for word in spec.provenance["command"].split())


def test_onnx_runtime_computes_in_what_the_model_says(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    assert computes_in(model_path, "auto", "onnxruntime") == ("fp32", "")
    with pytest.raises(UsageError, match=r"computes in what the model says \(fp32\), not in bf16"):
        computes_in(model_path, "bf16", "onnxruntime")
    for capability, has in (((7, 5), False), ((8, 0), True)):
        gpu = Gpu(0, "Imaginary", capability, 1 << 30)
        monkeypatch.setattr(ort, "list_gpus", lambda gpu=gpu: (gpu,))
        assert ort._has_tf32("cuda:0") == has
        assert not ort._has_tf32("cpu")


def test_an_engine_that_was_given_must_fit_the_option(model_path: Path) -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    with open_backend(model_path, "cpu", options=Options(precision="fp32")) as backend:
        segment(image, backend, precision="fp32")
        segment(image, backend)
        with pytest.raises(UsageError, match="computes in fp32, not in bf16"):
            segment(image, backend, precision="bf16")
    result = segment(image, model_path, device="cpu", precision="fp32")
    assert result.record.engine.precision == "fp32"
