import pytest
import torch
from torch import nn

from cellseg.export.graph import Deployable, Reference, choose_heads, cost, fold_norms
from cellseg.export.network import Trained
from cellseg.runtime.errors import UsageError
from cellseg.train.models import build_model

from .conftest import HEADS, small_config

ARCHITECTURES = ["MCUNET", "UNET", "RESUNET", "VGGEncodeUnet", "MCLinkNet"]


def scrambled(**changes: object) -> nn.Module:
    """A random network whose norms do something."""
    torch.manual_seed(1)
    network = build_model(small_config(**changes))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    return network.eval().requires_grad_(False)


def bytes_of(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_folding_norms_changes_nothing(model: str) -> None:
    network = scrambled(model=model).double()
    image = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    before = network(image)
    assert fold_norms(network) > 0
    assert not [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for name, logits in network(image).items():
        torch.testing.assert_close(logits, before[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("changes", [{}, {"final_sigmoid": True}, {"norm": "group"}, {"interpolate": True}])
@pytest.mark.parametrize("names", [("mask",), HEADS, ("mask", "density")])
def test_deployable_gives_the_bytes_of_the_trained_network(
    names: tuple[str, ...], changes: dict[str, object]
) -> None:
    network = scrambled(**changes)
    heads = choose_heads(network.heads.heads.keys(), names)
    image = bytes_of(2, 32, 48, 3)
    wanted = Reference(network, heads)(image)
    found = Deployable(network, heads)(image)
    assert found.shape == (2, len(names), 32, 48)
    assert found.dtype == torch.uint8
    assert (wanted.int() - found.int()).abs().max() <= 1


def test_deployable_leaves_the_network_alone(trained: Trained) -> None:
    before = {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}
    Deployable(trained.network, choose_heads(HEADS, ("mask",)))
    for name, tensor in trained.network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_heads_are_chosen_by_name() -> None:
    assert [head.name for head in choose_heads(HEADS, None)] == ["mask"]
    assert [head.name for head in choose_heads(HEADS, ("density", "mask"))] == ["mask", "density"]
    with pytest.raises(UsageError, match="'density': this network has mask, boundary"):
        choose_heads(("mask", "boundary"), ("mask", "density"))
    with pytest.raises(UsageError, match="'mask' must be among them"):
        choose_heads(HEADS, ("boundary",))


def test_stripping_saves_work(trained: Trained) -> None:
    one, three = (
        cost(Deployable(trained.network, choose_heads(HEADS, names)), 3, 64) for names in (("mask",), HEADS)
    )
    assert one.parameters == three.parameters - 2 * (4 + 1)
    # One 1×1 convolution from 4 maps: 8 operations a pixel and head.
    assert three.gflop_per_megapixel - one.gflop_per_megapixel == pytest.approx(2 * 8e-3)
