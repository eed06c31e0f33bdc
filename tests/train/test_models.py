"""The conformance suite: every network that a configuration may name passes all of it."""

import copy
from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cellseg.runtime.errors import ImageError
from cellseg.train.config import ModelName, parse
from cellseg.train.models import build_model
from cellseg.train.models.heads import ENCODINGS, to_planes
from cellseg.train.models.nets import DESIGNS, UNet

MODELS = get_args(ModelName)
SMALL = {"init_channel_number": 4, "model_deep": 2, "use_corner": 1.0, "use_density": 1.0, "crop": 32}


def build(model: str, **changes: Any) -> UNet:
    torch.manual_seed(0)
    return build_model(parse({**SMALL, "model": model, **changes}, "test"))


def image(edge: int = 16, channels: int = 3, count: int = 2) -> torch.Tensor:
    return torch.rand(count, channels, edge, edge, generator=torch.Generator().manual_seed(1))


def test_every_name_has_a_design() -> None:
    assert set(DESIGNS) == set(MODELS)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("depth", [1, 3, 5])
def test_shapes(model: str, depth: int) -> None:
    net = build(model, model_deep=depth, init_channel_number=2).eval()
    assert net.multiple == 2**depth
    with torch.inference_mode():
        for size in ((32, 64), (2**depth, 2**depth)):
            logits = net(torch.rand(1, 3, *size))
            assert {name: tuple(value.shape) for name, value in logits.items()} == {
                "mask": (1, 2, *size),
                "boundary": (1, 1, *size),
                "density": (1, 1, *size),
            }


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_gradients_reach_every_parameter(model: str, norm: str) -> None:
    net = build(model, norm=norm)
    sum((value**2).mean() for value in net(image(32)).values()).backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert not silent


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("interpolate", [False, True])
def test_every_batch_norm_folds_into_its_convolution(model: str, interpolate: bool) -> None:
    net = build(model, interpolate=interpolate)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        for _ in range(3):
            net(image(32))  # running statistics that are not 0 and 1
    net.eval()
    folded = copy.deepcopy(net)
    for parent in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        for i in range(1, len(parent)):
            if isinstance(parent[i], nn.BatchNorm2d):
                transposed = isinstance(parent[i - 1], nn.ConvTranspose2d)
                parent[i - 1] = fuse_conv_bn_eval(parent[i - 1], parent[i], transposed)
                parent[i] = nn.Identity()
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.inference_mode():
        for name, value in net(image()).items():
            torch.testing.assert_close(folded(image())[name], value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_the_seed_decides_everything(model: str) -> None:
    first, second = build(model), build(model)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, atol=0, rtol=0)
    first.eval()
    with torch.inference_mode():
        for name, value in first(image()).items():
            torch.testing.assert_close(first(image())[name], value, atol=0, rtol=0)
            alone = first(image()[:1])[name]
            torch.testing.assert_close(alone, value[:1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_an_odd_size_is_refused_with_the_size_to_use(model: str) -> None:
    net = build(model)
    with pytest.raises(ImageError, match=f"{model}: got .* 18×16 pixels, .* multiples of 4; pad it to 20×16"):
        net(torch.rand(1, 3, 18, 16))


@pytest.mark.parametrize("model", MODELS)
def test_it_becomes_one_graph_for_any_batch_and_size(model: str) -> None:
    """What the exporter needs: no Python left, no size written into it."""
    net = build(model, model_deep=1, init_channel_number=2).eval()
    sizes = {0: torch.export.Dim("batch"), **{a: n * torch.export.Dim(f"n{a}") for a, n in ((2, 2), (3, 2))}}
    program = torch.export.export(net, (image(16),), dynamic_shapes=(sizes,)).module()
    other = torch.rand(3, 3, 32, 8)
    with torch.inference_mode():
        for name, value in net(other).items():
            torch.testing.assert_close(program(other)[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_it_learns_a_step(model: str) -> None:
    net = build(model)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    x, losses = image(32), []
    for _ in range(3):
        loss = nn.functional.cross_entropy(net(x)["mask"], (x[:, 0] > 0.5).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_m_channel_counts_the_kernels_and_m_r_adds_shortcuts() -> None:
    def kernels(**changes: Any) -> set[int]:
        net = build("MCUNET", **changes)
        return {m.kernel_size[0] for m in net.encoders[1].modules() if isinstance(m, nn.Conv2d)}

    assert kernels(M_channel=3) == {1, 3, 5}
    assert kernels(M_channel=2) == {1, 3}
    plain, residual = (sum(p.numel() for p in build("MCUNET", M_R=r).parameters()) for r in (0, 1))
    assert residual > plain


@pytest.mark.parametrize(
    ("out", "sigmoid", "maps"), [(2, False, 2), (1, False, 1), (2, True, 1), (1, True, 1)]
)
def test_the_semantic_head_has_the_maps_it_needs(out: int, sigmoid: bool, maps: int) -> None:
    net = build("UNET", out_channels=out, final_sigmoid=sigmoid, use_corner=0, use_density=0).eval()
    logits = net(image())
    assert {name: value.shape[1] for name, value in logits.items()} == {"mask": maps}


def test_group_norm_is_one_group_and_batch_norm_the_default() -> None:
    norms = [m for m in build("UNET", norm="group").modules() if isinstance(m, nn.GroupNorm)]
    assert norms
    assert {norm.num_groups for norm in norms} == {1}
    assert any(isinstance(m, nn.BatchNorm2d) for m in build("UNET").modules())


def test_the_default_model_has_the_names_and_size_its_checkpoints_know() -> None:
    net = build_model(parse({"init_channel_number": 16, "use_corner": 5.0, "use_density": 0.5}, "test"))
    state = net.state_dict()
    assert state["encoders.0.branches.2.0.0.weight"].shape == (8, 3, 5, 5)
    assert state["ups.2.up.weight"].shape == (128, 64, 2, 2)
    assert state["decoders.0.branches.1.2.1.running_var"].shape == (16,)
    assert state["heads.heads.density.bias"].shape == (1,)


def test_planes_are_the_bytes_that_the_specification_describes() -> None:
    logits = {
        "mask": torch.tensor([[0.0, -50, 50], [0.0, 50, -50]])[None, :, None],
        "boundary": torch.tensor([[2.0, -50, 50]])[None, :, None],
        "density": torch.tensor([[-50.0, 10.0, 2.5]])[None, :, None],
    }
    planes = to_planes(logits)
    assert planes.dtype == torch.uint8
    assert planes.shape == (1, 3, 1, 3)
    assert planes[0, 0, 0].tolist() == [128, 255, 0]
    assert planes[0, 1, 0].tolist() == [round(255 / (1 + 2.718281828**-2)), 0, 255]
    head, byte = ENCODINGS["density"], planes[0, 2, 0]
    assert byte[:2].tolist() == [0, 255]
    value = head.full_scale * (float(byte[2]) / 255) ** head.power
    assert value == pytest.approx(float(nn.functional.softplus(torch.tensor(2.5))) / 100, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_it_is_exported_with_its_norms_folded(model: str) -> None:
    """The whole way to ONNX, any head, any size: within a byte of PyTorch."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from cellseg.export.graph import Deployable, Reference, choose_heads
    from cellseg.export.to_onnx import trace

    net = build(model, init_channel_number=2)
    with torch.no_grad():
        for _ in range(3):
            net(image(32))
    net.eval()
    heads = choose_heads(("mask", "boundary", "density"), ("mask", "boundary", "density"))
    graph = trace(Deployable(net, heads), channels=3, multiple=net.multiple)
    assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = torch.randint(
        0, 256, (3, 24, 40, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8
    )
    planes = torch.from_numpy(session.run(None, {"image": pixels.numpy()})[0])
    with torch.inference_mode():
        expected = Reference(net, heads)(pixels)
    assert (planes.int() - expected.int()).abs().max() <= 1


def test_one_output_for_all_losses_is_one_head() -> None:
    net = build("MCUNET", separate_heads=False)
    assert set(net(image())) == {"mask"}
    assert not any("boundary" in name or "density" in name for name in net.state_dict())
