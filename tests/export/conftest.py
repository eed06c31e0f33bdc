"""A small network that has really learned something, trained once in a few seconds and traced once."""

import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from cellseg.export import to_onnx
from cellseg.export.assemble import Exported, Request, export
from cellseg.export.network import Trained, load
from cellseg.export.tiles import generate
from cellseg.train import checkpoint as checkpoints
from cellseg.train.config import TrainConfig
from cellseg.train.data import targets
from cellseg.train.models import build_model
from cellseg.train.models.heads import density, foreground_logit

HEADS = ("mask", "boundary", "density")


def small_config(**changes: object) -> TrainConfig:
    values = {"model_deep": 2, "init_channel_number": 4, "use_density": 0.5, "in_channels": 3, "crop": 64}
    return TrainConfig.model_validate({**values, **changes})


def write_checkpoint(path: Path, config: TrainConfig, network: torch.nn.Module, **more: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"config": config.model_dump(), "model": network.state_dict(), "ema": None, "step": 7, **more}
    checkpoints.save(path, state)
    return path


def learn(config: TrainConfig, steps: int) -> torch.nn.Module:
    """Train a network of three heads on generated nuclei."""
    torch.manual_seed(0)
    network = build_model(config).train()
    drawn = list(generate(24, 64, 3, seed=5))
    images = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2) / 255.0
    mask = torch.from_numpy(np.stack([labels > 0 for _, labels in drawn])).float()
    edges = torch.from_numpy(np.stack([targets.boundary_band(labels) for _, labels in drawn])).float()
    dense = torch.from_numpy(np.stack([targets.density_map(labels) for _, labels in drawn]))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for step in range(steps):
        some = torch.arange(6) + 6 * (step % 4)
        logits = network(images[some])
        entropy = functional.binary_cross_entropy_with_logits
        loss = entropy(foreground_logit(logits["mask"]), mask[some])
        loss = loss + entropy(logits["boundary"][:, 0], edges[some])
        loss = loss + ((density(logits["density"]) - dense[some]) ** 2).mean() * 1e4
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def identity(network: torch.nn.Module) -> str:
    """What a graph is made of: the modules, and every weight."""
    found = hashlib.sha256(f"{type(network).__qualname__} {network}".encode())
    for name, value in network.state_dict().items():
        found.update(f"{name} {value.dtype}".encode())
        found.update(value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


@pytest.fixture(scope="session", autouse=True)
def _traced_once() -> Iterator[None]:
    """Trace what has the same modules and weights only once: it is most of an export's time."""
    trace = to_onnx.trace
    traced: dict[object, onnx.ModelProto] = {}

    def remember(network: torch.nn.Module, **settings: object) -> onnx.ModelProto:
        key = (identity(network), *sorted(settings.items()))
        if key not in traced:
            traced[key] = trace(network, **settings)  # type: ignore[arg-type]
        return copy.deepcopy(traced[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_onnx, "trace", remember)
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a checkpoint of MCUNET, width 4, depth 2, that finds generated nuclei."""
    folder = tmp_path_factory.mktemp("work_dirs")
    return write_checkpoint(folder / "tiny" / "best.pt", small_config(), learn(small_config(), 60))


@pytest.fixture(scope="session")
def trained(checkpoint: Path) -> Trained:
    return load(checkpoint)


@pytest.fixture(scope="session")
def said() -> list[str]:
    """What the export of `exported` told."""
    return []


@pytest.fixture(scope="session")
def exported(checkpoint: Path, said: list[str], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The checkpoint as an fp32 model with all heads."""
    output = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    return export(Request(checkpoint=checkpoint, output=output, heads=HEADS), said.append)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of generated pictures, stained and fluorescent, to calibrate with."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, (image, _) in enumerate(generate(12, 256, 3, seed=9)):
        cv2.imwrite(str(folder / f"{index:02}.png"), image[..., ::-1])
    return folder


@pytest.fixture(scope="session")
def exported_half(checkpoint: Path, said: list[str], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    output = tmp_path_factory.mktemp("half") / "tiny.onnx"
    return export(Request(checkpoint=checkpoint, output=output, heads=HEADS, precision="fp16"), said.append)
