import importlib.util
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from google.protobuf import text_format

from cellseg.export import bundle, to_onnx
from cellseg.export.assemble import Exported
from cellseg.runtime.backends.trt import plans
from cellseg.runtime.errors import OutputError, UsageError
from cellseg.runtime.model.spec import METADATA_KEY, ModelSpec

from . import triton_schema
from .test_cli import ALL, run


@pytest.fixture(scope="module")
def package(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bio") / "tiny.bioimageio.zip"
    return bundle.bioimageio(
        exported.path, path, exported.images[0], authors=["A Person"], license_id="CC0-1.0"
    )


def test_triton_repository(exported: Exported, tmp_path: Path) -> None:
    folder = bundle.triton(exported.path, tmp_path / "models")
    assert sorted(str(path.relative_to(tmp_path)) for path in folder.rglob("*") if path.is_file()) == [
        "models/tiny/1/model.onnx", "models/tiny/config.pbtxt",
    ]  # fmt: skip
    assert (folder / "1/model.onnx").read_bytes() == exported.path.read_bytes()
    config = triton_schema.parse((folder / "config.pbtxt").read_text(encoding="ascii"))
    assert config.name == folder.name == "tiny"  # Triton asks for it
    assert config.platform == "onnxruntime_onnx"
    assert config.max_batch_size == bundle.TRITON_BATCH
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
        bundle.triton(exported.path, tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"]


def test_the_schema_is_strict(exported: Exported) -> None:
    text = bundle.triton_config(exported.spec, 8, is_plan=False)
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
    assert triton_schema.parse(bundle.triton_config(spec, 8, is_plan=False)).name == name
    assert triton_schema.parse(bundle.triton_config(spec, 8, is_plan=True)).platform == "tensorrt_plan"


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", ".hidden", ""])
def test_a_name_must_be_a_folders(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    spec = exported.spec.model_copy(update={"name": name})
    monkeypatch.setattr(bundle, "load_spec", lambda path: spec)
    with pytest.raises(UsageError, match="export it with another --name"):
        bundle.triton(exported.path, tmp_path / "models")
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
    folder = bundle.triton(plan, tmp_path / "models")
    assert (folder / "1/model.plan").read_bytes() == b"a plan"
    assert [path.name for path in (folder / "1").iterdir()] == ["model.plan"]
    config = triton_schema.parse((folder / "config.pbtxt").read_text())
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 16)  # no more than its profile has
    record = plans.PlanRecord(flavour="tensorrt_rtx", **values)
    plans.sidecar(plan).write_text(record.sealed().model_dump_json())
    with pytest.raises(UsageError, match="Triton runs plans of TensorRT, this one is TensorRT-RTX"):
        bundle.triton(plan, tmp_path / "others")


def test_places_that_cannot_be_written(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        bundle.triton(exported.path, tmp_path / "file" / "models")
    with pytest.raises(UsageError, match="holds an ONNX model"):
        bundle.bioimageio(tmp_path / "m.plan", tmp_path / "m.zip", exported.images[0])


def test_bioimageio_package_describes_the_model(exported: Exported, package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        description = yaml.safe_load(archive.read("rdf.yaml"))
        wanted = np.load(io.BytesIO(archive.read("test_output.npy")))
        given = np.load(io.BytesIO(archive.read("test_input.npy")))
        assert archive.read("weights.onnx") == exported.path.read_bytes()
    spec = exported.spec
    assert description["config"]["cellseg"]["name"] == "tiny"
    assert description["authors"] == [{"name": "A Person"}]
    assert description["license"] == "CC0-1.0"
    assert description["weights"]["onnx"]["opset_version"] == 20
    (source,), (target,) = description["inputs"], description["outputs"]
    assert [axis["type"] for axis in source["axes"]] == ["batch", "space", "space", "channel"]
    assert source["axes"][1]["size"]["step"] == spec.multiple
    assert target["axes"][2]["halo"] == spec.halo
    assert target["axes"][1]["channel_names"] == ["mask", "boundary", "density"]
    assert (given.shape, given.dtype) == ((1, 256, 256, 3), np.uint8)
    assert (wanted.shape, wanted.dtype) == ((1, 3, 256, 256), np.float32)
    assert 0 <= wanted.min() < wanted.max() <= 1


def test_bioimageio_core_validates_and_runs_the_package(package: Path) -> None:
    """In this interpreter, or in the one named by CELLSEG_BIOIMAGEIO_PYTHON: it may want other versions."""
    python = os.environ.get("CELLSEG_BIOIMAGEIO_PYTHON")
    if python is None and importlib.util.find_spec("bioimageio") is None:
        pytest.skip("bioimageio.core is not installed; set CELLSEG_BIOIMAGEIO_PYTHON to a python that has it")
    code = """
import sys
from bioimageio.core import test_model
summary = test_model(sys.argv[1], weight_format="onnx")
print([(d.name, [e.msg for e in d.errors]) for d in summary.details if d.status != "passed"])
sys.exit(summary.status != "passed")
"""
    done = subprocess.run(
        [python or sys.executable, "-c", code, str(package)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_writes_both(
    checkpoint: Path, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_onnx, "trace", lambda *_, **__: onnx.load(exported.path))
    output = tmp_path / "m.onnx"
    code, text = run(checkpoint, "-o", output, "--triton", tmp_path / "repo", "--bioimageio", *ALL)
    assert code == 0, text
    assert "(serves m.onnx)" in text
    assert (tmp_path / "repo" / "tiny" / "config.pbtxt").is_file()
    assert (tmp_path / "m.bioimageio.zip").is_file()
