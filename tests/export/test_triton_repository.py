"""Model repositories for NVIDIA Triton."""

from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format

from cellseg.export import triton_repository
from cellseg.export.assemble import Exported
from cellseg.runtime.backends.trt import plans
from cellseg.runtime.errors import OutputError, UsageError
from cellseg.runtime.model.spec import METADATA_KEY, ModelSpec

from . import triton_schema


def test_triton_repository(exported: Exported, tmp_path: Path) -> None:
    folder = triton_repository.triton(exported.path, tmp_path / "models")
    assert sorted(str(path.relative_to(tmp_path)) for path in folder.rglob("*") if path.is_file()) == [
        "models/tiny/1/model.onnx", "models/tiny/config.pbtxt",
    ]  # fmt: skip
    assert (folder / "1/model.onnx").read_bytes() == exported.path.read_bytes()
    config = triton_schema.parse((folder / "config.pbtxt").read_text(encoding="ascii"))
    assert config.name == folder.name == "tiny"  # Triton asks for it
    assert config.platform == "onnxruntime_onnx"
    assert config.max_batch_size == triton_repository.TRITON_BATCH
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.preferred_batch_size  # of one, Triton would make no larger batch
    graph = onnx.load(exported.path).graph
    for (field,), (value,) in ((config.input, graph.input), (config.output, graph.output)):
        assert field.name == value.name
        assert triton_schema.data_type(field) == "TYPE_UINT8"
        # The first dimension is Triton's batch; -1 is one that varies.
        assert list(field.dims) == [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim[1:]]
    stored = triton_schema.parameters(config)[METADATA_KEY]
    assert ModelSpec.from_json(stored, "config.pbtxt") == exported.spec
    with pytest.raises(OutputError, match="tiny: exists already"):
        triton_repository.triton(exported.path, tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"]


def test_the_schema_is_strict(exported: Exported) -> None:
    text = triton_repository.triton_config(exported.spec, 8, is_plan=False)
    for wrong in (
        text.replace("max_batch_size", "max_batch"),
        text.replace("TYPE_UINT8", "UINT8"),
        text.replace("[ -1,", '[ "-1",'),
        text.replace("}", "", 1),
    ):
        with pytest.raises(text_format.ParseError):
            triton_schema.parse(wrong)


def test_triton_text_is_quoted(exported: Exported) -> None:
    name = 'a "b"\\ \u00b5'
    spec = exported.spec.model_copy(update={"name": name})
    assert triton_schema.parse(triton_repository.triton_config(spec, 8, is_plan=False)).name == name
    assert (
        triton_schema.parse(triton_repository.triton_config(spec, 8, is_plan=True)).platform
        == "tensorrt_plan"
    )


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", ".hidden", ""])
def test_a_name_must_be_a_folders(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    spec = exported.spec.model_copy(update={"name": name})
    monkeypatch.setattr(triton_repository, "load_spec", lambda path: spec)
    with pytest.raises(UsageError, match="export it with another --name"):
        triton_repository.triton(exported.path, tmp_path / "models")
    assert not list(tmp_path.iterdir())


def test_triton_gets_plans_that_it_can_run(exported: Exported, tmp_path: Path) -> None:
    plan = tmp_path / "tiny.plan"
    plan.write_bytes(b"a plan")
    values = {
        "spec": exported.spec,
        "onnx": "tiny.onnx",
        "onnx_sha256": "",
        "plan_sha256": plans.sha256(plan),
        "release": "10.13",
        "gpu": None,
        "capabilities": ("8.9",),
        "profile": plans.Profile(batch=(1, 4, 16), tile=(128, 256, 512)),
        "precision": "fp32",
        "build_seconds": 1.0,
    }
    record = plans.PlanRecord(flavour="tensorrt", **values)
    plans.sidecar(plan).write_text(record.sealed().model_dump_json())
    folder = triton_repository.triton(plan, tmp_path / "models")
    assert (folder / "1/model.plan").read_bytes() == b"a plan"
    assert [path.name for path in (folder / "1").iterdir()] == ["model.plan"]
    config = triton_schema.parse((folder / "config.pbtxt").read_text())
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 16)  # no more than its profile has
    record = plans.PlanRecord(flavour="tensorrt_rtx", **values)
    plans.sidecar(plan).write_text(record.sealed().model_dump_json())
    with pytest.raises(UsageError, match="Triton runs plans of TensorRT, this one is TensorRT-RTX"):
        triton_repository.triton(plan, tmp_path / "others")


def test_a_place_that_cannot_be_written(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        triton_repository.triton(exported.path, tmp_path / "file" / "models")
