"""Packages for the bioimage.io model zoo."""

import importlib.util
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from cellseg.export import bioimage_package
from cellseg.export.assemble import Exported
from cellseg.runtime.errors import UsageError


@pytest.fixture(scope="module")
def package(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bio") / "tiny.bioimageio.zip"
    return bioimage_package.bioimageio(
        exported.path, path, exported.images[0], authors=["A Person"], license_id="CC0-1.0"
    )


def test_only_an_onnx_model_is_packaged(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds an ONNX model"):
        bioimage_package.bioimageio(tmp_path / "m.plan", tmp_path / "m.zip", exported.images[0])


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
