"""What has been exported can be trained on."""

from pathlib import Path

import pytest
import torch

from cellseg.export.assemble import Exported, Request, export
from cellseg.export.network import Trained
from cellseg.runtime.model.spec import CellDiameter, ScoreRule, SplitSettings
from cellseg.train import checkpoint as checkpoints
from cellseg.train.models import build_model
from cellseg.train.models.heads import to_planes
from cellseg.train.weights.average import average
from cellseg.train.weights.start import adopt


@pytest.mark.parametrize("precision", ["exported", "exported_half"])
def test_a_training_starts_where_the_exported_model_is(
    precision: str, trained: Trained, request: pytest.FixtureRequest
) -> None:
    exported: Exported = request.getfixturevalue(precision)
    images = torch.from_numpy(exported.images[:4]).permute(0, 3, 1, 2) / 255
    network = build_model(trained.config)
    assert (
        adopt(network, trained.config.model_copy(update={"weights": str(exported.path)}), lambda: images)
        == []
    )
    with torch.no_grad():
        planes = to_planes(network.eval()(images)).numpy()
        seen = to_planes(network.train()(images)).numpy()  # by the statistics of these images
    wanted = exported.planes[:4].astype(int)
    assert abs(planes - wanted).mean() < 0.2
    assert abs(seen - wanted).mean() < 4


def test_an_export_names_the_checkpoints_that_it_is_the_mean_of(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / "mean.pt"
    path.parent.mkdir()
    checkpoints.save(path, average([checkpoint, checkpoint], [1, 3]))
    told: list[str] = []
    request = Request(checkpoint=path, output=tmp_path / "mean.onnx")
    spec = export(request, told.append).spec
    assert "mean of 2" in told[0]
    one, other = spec.provenance["mean_of"].split("; ")
    assert (one[:18], other[:18]) == ("0.25 tiny/best.pt ", "0.75 tiny/best.pt ")


def test_an_export_has_the_rules_and_the_sizes_of_the_model_that_its_training_started_from(
    checkpoint: Path, tmp_path: Path
) -> None:
    rule = ScoreRule(constant=1.0, inside={"mask": 1.0, "boundary": -1.0}, area=0.5, minimum=0.2)
    split = SplitSettings(mask_threshold=150, score=rule)
    size = CellDiameter(median=20.0, low=10.0, high=50.0)
    inherited = {"from": "parent", "split": split.model_dump_json(), "diameter": size.model_dump_json()}
    path = tmp_path / "run" / "best.pt"
    path.parent.mkdir()
    saved = checkpoints.load(checkpoint)
    start = {name: value + 0.001 for name, value in saved["model"].items()}
    checkpoints.save(path, saved | {"inherited": inherited, "start": start, "keep": 0.5})
    told: list[str] = []
    request = Request(checkpoint=path, output=tmp_path / "all.onnx", heads=("mask", "boundary"))
    spec = export(request, told.append).spec
    assert (spec.split, spec.diameter) == (split, size)
    assert "as those of parent" in "".join(told)
    assert "with 50% of those it started from" in told[0]
    assert spec.provenance["kept"] == "0.5"
    # A plane that the rules weigh is stripped, or other settings are asked for.
    told.clear()
    spec = export(Request(checkpoint=path, output=tmp_path / "mask.onnx"), told.append).spec
    assert (spec.split, spec.diameter) == (SplitSettings.suited(("mask",)), size)
    assert "parent" not in "".join(told)
