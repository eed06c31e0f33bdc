from pathlib import Path

import cv2
import numpy as np
import pytest

from cellseg.runtime.model.catalog import default_model
from cellseg.runtime.model.onnx_metadata import load_spec
from cellseg.runtime.model.spec import CellDiameter, SplitSettings
from cellseg.train import checkpoint
from cellseg.train.weights.inherit import inherit


def discs(radius: int) -> np.ndarray:
    labels = np.zeros((256, 256), np.uint16)
    for number, x in enumerate((64, 192), 1):
        cv2.circle(labels, (x, 128), radius, number, -1)
    return labels


def test_cells_of_about_its_size_bring_its_rules_and_its_diameter() -> None:
    spec = load_spec(default_model("nuclei"))
    kept = inherit("nuclei", [discs(11), discs(9)])
    assert kept["from"] == "nuclei"
    assert spec.split.join is not None
    assert SplitSettings.model_validate_json(kept["split"]) == spec.split
    assert CellDiameter.model_validate_json(kept["diameter"]) == spec.diameter
    assert inherit("nuclei", [np.zeros((8, 8), np.uint16)]) == kept  # no cell says nothing of their size


@pytest.mark.parametrize("radius", [3, 40])
def test_cells_of_another_size_have_rules_of_their_own(radius: int) -> None:
    assert inherit("nuclei", [discs(radius)]) == {}


def test_a_checkpoint_hands_on_what_it_has_inherited(tmp_path: Path) -> None:
    for inherited in ({"from": "nuclei", "split": "{}"}, None):
        saved = {"model": {}} if inherited is None else {"model": {}, "inherited": inherited}
        checkpoint.save(tmp_path / "a.pt", saved)
        assert inherit(str(tmp_path / "a.pt"), [discs(40)]) == (inherited or {})
    assert inherit(None, [discs(11)]) == {}
