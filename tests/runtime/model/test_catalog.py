from pathlib import Path

import pytest

from cellseg.runtime.model import catalog


def test_a_twin_in_eight_bits_is_no_model_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "MODELS", tmp_path)
    for name in ("nuclei.onnx", "nuclei.int8.onnx", "phase.onnx"):
        (tmp_path / name).touch()
    assert catalog.model_names() == ["nuclei", "phase"]
