import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cellseg.runtime.errors import OutputError
from cellseg.train.config import TrainConfig
from cellseg.train.data.crops import CropSource
from cellseg.train.data.samples import read_dataset
from cellseg.train.models import build_model
from cellseg.train.running import pictures
from cellseg.train.running.device import open_fabric
from cellseg.train.running.validate import MARGIN, evaluate, predict

Configure = Callable[..., TrainConfig]


def test_a_preview_shows_four_panels_a_sample(configure: Configure) -> None:
    config = configure()
    picture = pictures.preview(CropSource(read_dataset(config)[0], config), 3)
    assert picture.dtype == np.uint8
    assert picture.shape == (3 * (32 + pictures.BAR + 2), 4 * (32 + 2), 3)
    assert np.unique(picture.reshape(-1, 3), axis=0).shape[0] > 20


def test_an_overlay_shows_outlines_and_every_head(configure: Configure) -> None:
    config = configure()
    fabric = open_fabric(config)
    torch.manual_seed(0)
    predictions = list(predict(build_model(config), read_dataset(config)[1], config, fabric))
    picture = pictures.overlay(predictions, config.heads)
    assert picture.shape == (2 * (64 + pictures.BAR + 2), 4 * (64 + 2), 3)
    colours = {tuple(colour) for colour in np.unique(picture.reshape(-1, 3), axis=0)}
    assert pictures.TRUE in colours
    panels = np.hsplit(picture[pictures.BAR : pictures.BAR + 64], 4)
    for panel, plane in zip(panels[1:], predictions[0].planes, strict=True):
        shown = panel[:64, :64, 0].astype(int)
        np.testing.assert_array_equal(shown.argmax(), plane.argmax())
    assert shown.max() == 255 > predictions[0].planes[2].max()  # the density's, stretched


def test_large_images_are_cut_to_their_middle() -> None:
    labels = np.zeros((600, 530), np.int32)
    labels[44:48, 9:13] = 1
    windowed = pictures._outlines(labels)
    assert windowed.sum() == 12


def test_curves_show_every_column(tmp_path: Path) -> None:
    names = ["step", "lr", "train_loss", "val_loss", "train_mask", "val_mask", "val_dice", "val_ap50"]
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        pictures.curves(tmp_path / "metrics.csv", tmp_path / "none.png")
        writer.writerows([[i, 0.1, 1 / i, 2 / i, 1 / i, 2 / i, 0.5, 0.4] for i in (1, 2, 3)])
    pictures.curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")) is not None
    assert not (tmp_path / "none.png").exists()


def test_a_place_that_takes_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        pictures.write(tmp_path / "file" / "x.png", np.zeros((2, 2, 3), np.uint8))


def test_a_perfect_network_scores_one(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is handed the truth: losses fall to nothing, every figure is at its best."""
    config = configure(use_corner=0, use_density=0)
    samples = read_dataset(config)[1]

    class Oracle(torch.nn.Module):
        multiple = 2

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            labels = next(queue).labels
            after = (size - MARGIN - edge for size, edge in zip(x.shape[2:], labels.shape, strict=True))
            truth = np.pad(labels, [(MARGIN, more) for more in after], mode="reflect")
            logit = torch.from_numpy(np.where(truth > 0, 40.0, -40.0).astype(np.float32))
            return {"mask": torch.stack((-logit, logit))[None]}

    queue = iter(samples)
    figures = evaluate(Oracle(), samples, config, open_fabric(config))
    assert figures["loss"] == pytest.approx(0, abs=1e-3)
    assert figures["dice"] == figures["iou"] == figures["precision"] == figures["sensitivity"] == 1
