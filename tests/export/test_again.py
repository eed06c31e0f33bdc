"""What has been exported can be trained on."""

import pytest
import torch

from cellseg.export.assemble import Exported
from cellseg.export.network import Trained
from cellseg.train.models import build_model
from cellseg.train.models.heads import to_planes
from cellseg.train.weights import adopt


@pytest.mark.parametrize("precision", ["exported", "exported_half"])
def test_a_training_starts_where_the_exported_model_is(
    precision: str, trained: Trained, request: pytest.FixtureRequest
) -> None:
    exported: Exported = request.getfixturevalue(precision)
    images = torch.from_numpy(exported.images[:4]).permute(0, 3, 1, 2) / 255
    network = build_model(trained.config)
    assert adopt(network, trained.config.model_copy(update={"weights": str(exported.path)}), images) == []
    with torch.no_grad():
        planes = to_planes(network.eval()(images)).numpy()
        seen = to_planes(network.train()(images)).numpy()  # by the statistics of these images
    wanted = exported.planes[:4].astype(int)
    assert abs(planes - wanted).mean() < 0.2
    assert abs(seen - wanted).mean() < 4
