from pathlib import Path
from typing import Any, get_args

import onnx
import pytest
import torch
from torch import Tensor, nn

from cellseg.export.graph import Deployable, choose_heads
from cellseg.runtime.errors import ModelError
from cellseg.runtime.model.catalog import default_model
from cellseg.runtime.model.spec import METADATA_KEY, ModelSpec
from cellseg.train import checkpoint
from cellseg.train.config import ModelName, TrainConfig, parse
from cellseg.train.models import build_model
from cellseg.train.models.nets import UNet
from cellseg.train.weights.start import adopt

MODELS = get_args(ModelName)
SMALL = {"model_deep": 2, "use_corner": 1.0, "use_density": 1.0, "crop": 32}


def configure(**changes: Any) -> TrainConfig:
    return parse({**SMALL, **changes}, "test")


def images(count: int = 2, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def seasoned(config: TrainConfig) -> UNet:
    """A network whose norms are not those of a new one."""
    torch.manual_seed(3)
    network = build_model(config)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        for seed in range(3):
            network(images(seed=seed))
    return network.eval()


def save(path: Path, network: UNet, config: TrainConfig) -> str:
    state = {"config": config.model_dump(), "model": network.state_dict(), "ema": None, "step": 7}
    checkpoint.save(path, state)
    return str(path)


def export(path: Path, network: UNet, config: TrainConfig, **changes: Any) -> str:
    """Write the weights as the exporter does, without a graph: what it makes is tried in tests/export."""
    heads = choose_heads(config.heads, config.heads)
    values = {"name": "small", "architecture": config.model, "channels": 3, "heads": heads, "multiple": 4}
    spec = ModelSpec.model_validate({**values, "halo": 0, "receptive_field": 0, **changes})
    weights = [
        onnx.numpy_helper.from_array(value.numpy(), name)
        for name, value in Deployable(network, heads).state_dict().items()
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "small", [], [], weights))
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, path)
    return str(path)


def started(config: TrainConfig, source: str, shown: Tensor | None = None) -> tuple[UNet, list[str]]:
    torch.manual_seed(5)
    network = build_model(config)
    new = adopt(
        network, config.model_copy(update={"weights": source}), images if shown is None else lambda: shown
    )
    return network, new


@torch.no_grad()
def logits(network: UNet) -> dict[str, Tensor]:
    out: dict[str, Tensor] = network.eval()(images(seed=9))
    # What a softmax over two maps knows is their difference.
    return {name: value[:, 1] - value[:, 0] if value.shape[1] == 2 else value for name, value in out.items()}


def same(one: UNet, other: UNet, tolerance: float = 1e-4) -> None:
    for name, value in logits(one).items():
        torch.testing.assert_close(logits(other)[name], value, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("width", [4, 6, 8])
def test_a_wider_network_computes_what_a_narrow_one_did(model: str, width: int, tmp_path: Path) -> None:
    narrow = configure(model=model, init_channel_number=4)
    network = seasoned(narrow)
    source = save(tmp_path / "last.pt", network, narrow)
    wide, new = started(configure(model=model, init_channel_number=width), source)
    assert new == []
    same(network, wide)


@pytest.mark.parametrize("changes", [{"norm": "group"}, {"interpolate": True}, {"M_R": 1}, {"M_channel": 2}])
def test_widening_with_other_blocks(changes: dict[str, Any], tmp_path: Path) -> None:
    narrow = configure(init_channel_number=2, **changes)
    network = seasoned(narrow)
    source = save(tmp_path / "last.pt", network, narrow)
    same(network, started(configure(init_channel_number=6, **changes), source)[0])


def test_copied_channels_learn_different_things(tmp_path: Path) -> None:
    narrow = configure(init_channel_number=4)
    source = save(tmp_path / "last.pt", seasoned(narrow), narrow)
    wide, _ = started(configure(init_channel_number=8), source)
    sum((value**2).mean() for value in wide(images()).values()).backward()
    for name, parameter in wide.named_parameters():
        if parameter.ndim == 4 and not name.startswith("heads."):
            outputs = 1 if name.startswith("ups.") else 0
            assert parameter.grad is not None
            one, other = parameter.grad.transpose(0, outputs).chunk(2)
            assert (one - other).norm() > 0.05 * one.norm(), name


@pytest.mark.parametrize("model", MODELS)
def test_an_exported_model_goes_on_as_it_was(model: str, tmp_path: Path) -> None:
    config = configure(model=model, init_channel_number=4)
    network = seasoned(config)
    source = export(tmp_path / "small.onnx", network, config)
    same(network, started(config, source)[0], 1e-3)
    same(network, started(configure(model=model, init_channel_number=8), source)[0], 1e-3)


@pytest.mark.parametrize("changes", [{"interpolate": True}, {"final_sigmoid": True}, {"norm": "group"}])
def test_exported_models_with_other_blocks(changes: dict[str, Any], tmp_path: Path) -> None:
    config = configure(init_channel_number=4, **changes)
    network = seasoned(config)
    same(network, started(config, export(tmp_path / "small.onnx", network, config))[0], 1e-3)


def test_unfolded_norms_have_the_statistics_of_what_comes_in(tmp_path: Path) -> None:
    config = configure(init_channel_number=4)
    source = export(tmp_path / "small.onnx", seasoned(config), config)
    shown = images(4)
    network, _ = started(config, source, shown)
    still = logits(network)
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(shown)  # the statistics of these images replace the stored ones
    # One image at a time and all at once give the same means; only the variance's divisor differs.
    for name, value in logits(network).items():
        torch.testing.assert_close(value, still[name], atol=2e-2, rtol=2e-2)
    lengths = network.encoders[1].branches[1][0][0].weight.flatten(1).norm(dim=1)
    new = build_model(config).encoders[1].branches[1][0][0].weight.flatten(1).norm(dim=1)
    assert 0.5 < (lengths.mean() / new.mean()).item() < 2


def test_a_dead_filter_stays_a_number(tmp_path: Path) -> None:
    config = configure(init_channel_number=4)
    network = seasoned(config)
    with torch.no_grad():
        network.encoders[0].branches[1][0][0].weight[1] = 0
    same(network, started(config, export(tmp_path / "small.onnx", network, config))[0], 1e-3)


def test_packaged_models_by_name() -> None:
    own = {"init_channel_number": 16, "model_deep": 3}
    network, new = started(configure(**own), "nuclei")
    assert new == []
    by_path, _ = started(configure(**own), str(default_model("nuclei")))
    same(network, by_path)


def test_heads_that_a_source_lacks_begin_anew(tmp_path: Path) -> None:
    config = configure(init_channel_number=4, use_density=0.0)
    network = seasoned(config)
    for source in (save(tmp_path / "a.pt", network, config), export(tmp_path / "a.onnx", network, config)):
        assert started(configure(init_channel_number=4), source)[1] == ["density"]
        assert started(configure(init_channel_number=4, use_corner=0.0), source)[1] == ["density"]


def test_another_network_is_refused(tmp_path: Path) -> None:
    config = configure(init_channel_number=4)
    network = seasoned(config)
    for source in (save(tmp_path / "a.pt", network, config), export(tmp_path / "a.onnx", network, config)):
        for changes in (
            {"in_channels": 1},
            {"init_channel_number": 2},
            {"model_deep": 1},
            {"M_channel": 2},
            {"norm": "group"},
        ):
            with pytest.raises(ModelError, match=r"its network is not the one.*differs\); set model"):
                started(configure(**{"init_channel_number": 4, **changes}), source)
    with pytest.raises(ModelError, match=r"a\.onnx: its network is MCUNET, the configuration names UNET"):
        started(configure(init_channel_number=4, model="UNET"), source)


def test_models_that_hold_no_such_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(init_channel_number=4)
    network = seasoned(config)
    with pytest.raises(ModelError, match="rounded to INT8; start from its checkpoint"):
        started(config, export(tmp_path / "a.onnx", network, config, precision="int8"))
    foreign = tmp_path / "b.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])), foreign)
    with pytest.raises(ModelError, match="not one of ours"):
        started(config, str(foreign))
    with pytest.raises(ModelError, match=r"c\.onnx: no such model file"):
        started(config, str(tmp_path / "c.onnx"))
    source = export(tmp_path / "a.onnx", network, config)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ModelError, match=r"install cellseg\[export\]"):
        started(config, source)
