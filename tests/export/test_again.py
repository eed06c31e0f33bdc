"""What has been exported can be trained on."""

from pathlib import Path

import pytest
import torch

from cellseg.export.assemble import Exported, Request, export
from cellseg.export.network import Trained
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
