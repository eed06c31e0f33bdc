"""The engine benchmark without a GPU: what it reads, compares and writes."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from cellseg.runtime.model.catalog import default_model

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("engines", FOLDER / "gpu" / "engines.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "engines", module)
    spec.loader.exec_module(module)
    return module


def test_samples_are_averaged(engines: ModuleType) -> None:
    found = engines.Utilisation.means("10, 5, 1000, [N/A]\n30, 15, 3000, [N/A]\n50, 2")
    assert found["utilization.gpu"] == 30
    assert found["memory.used"] == 2000
    assert "power.draw" not in found
    assert found["samples"] == 3
    assert engines.Utilisation.means("") == {"samples": 0}


def test_what_is_missing_is_skipped(
    engines: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "list_gpus", tuple)
    for way in ("tensorrt", "onnxruntime", "torch-eager-fp16"):
        done = CliRunner().invoke(engines.main, ["run", way, "--folder", str(tmp_path)])
        assert (done.exit_code, done.output) == (0, "skipped: no GPU\n")
    assert not list(tmp_path.iterdir())


def test_pytorch_computes_what_was_exported(engines: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "COMPARED", 96)
    model = default_model()
    with engines.open_way("torch-eager-fp32", model, "cpu", Path()) as backend:
        found = engines.difference(backend, model)
    assert found["plane_max"] <= 2  # the graph computes in half precision, rounded or not
    assert found["plane_mean"] < 0.05


def test_a_table_of_what_was_measured(engines: ModuleType, tmp_path: Path) -> None:
    assert "no figures yet" in CliRunner().invoke(engines.main, ["table", str(tmp_path)]).output
    record = {
        "gpu": "Make-believe H100", "model": "nuclei", "width": 10, "height": 20,
        "engine": "pytorch on cuda:0", "tile": 512, "batch": 4, "engine_mpx_s": 200.0, "ratio": 0.9,
        "plane_mean": 0.1, "utilisation": {"utilization.gpu": 91.4},
    }  # fmt: skip
    for way, speed in (("torch-eager-fp16", 100.0), ("onnxruntime", 150.0)):
        text = json.dumps({**record, "way": way, "end_to_end_mpx_s": speed})
        (tmp_path / f"{way}.json").write_text(text)
    (tmp_path / "other.json").write_text("{}")
    done = CliRunner().invoke(engines.main, ["table", str(tmp_path)])
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "engines.md").read_text().splitlines()
    assert lines[0] == "Make-believe H100, nuclei, a slide of 10×20 pixels"
    assert [line.split(":")[0] for line in lines[4:]] == ["| onnxruntime", "| torch-eager-fp16"]
    assert lines[4].endswith("| 512 | 4 | 200.0 | 150.0 | 0.90 | 91 | 0.100 |")
