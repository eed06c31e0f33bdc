from pathlib import Path

import pytest
import torch

from cellseg.runtime.errors import ModelError
from cellseg.train import checkpoint
from cellseg.train.config import TrainConfig, parse
from cellseg.train.models import build_model
from cellseg.train.models.nets import UNet
from cellseg.train.weights.average import average


def configure(width: int = 2) -> TrainConfig:
    return parse({"model_deep": 1, "init_channel_number": width}, "test")


def save(path: Path, network: UNet, config: TrainConfig, average: UNet | None = None, step: int = 7) -> Path:
    ema = None if average is None else average.state_dict()
    state = {"config": config.model_dump(), "model": network.state_dict(), "ema": ema, "step": step}
    checkpoint.save(path, state)
    return path


def test_the_mean_of_checkpoints(tmp_path: Path) -> None:
    config = configure()
    first, second = build_model(config), build_model(config)
    second.encoders[0].branches[0][0][1].num_batches_tracked += 3
    paths = [save(tmp_path / "a.pt", first, config), save(tmp_path / "b.pt", first, config, second, 9)]
    found = average(paths, [1, 3])
    for name, value in found["model"].items():
        one, other = first.state_dict()[name], second.state_dict()[name]
        assert value.dtype == one.dtype
        torch.testing.assert_close(value, 0.25 * one + 0.75 * other if one.ndim else one)
    assert (found["step"], found["ema"], found["config"]) == (9, None, config.model_dump())
    assert [(part["checkpoint"], part["share"]) for part in found["mean_of"]] == [
        (f"{tmp_path.name}/a.pt", 0.25),
        (f"{tmp_path.name}/b.pt", 0.75),
    ]


def test_different_networks_have_no_mean(tmp_path: Path) -> None:
    two, four = configure(2), configure(4)
    paths = [save(tmp_path / "2.pt", build_model(two), two), save(tmp_path / "4.pt", build_model(four), four)]
    with pytest.raises(ModelError, match=r"4\.pt: its network is not that of .*2\.pt"):
        average(paths, [1, 1])
