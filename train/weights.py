"""Where a network's weights come from: a checkpoint, several, or an exported model, of its width or narrower.

An exported model has its batch norms folded into the convolutions before them. Here they are unfolded:
each convolution gets a norm again that changes nothing, with the statistics that its outputs have on
some training crops, so that training goes on as from a checkpoint.

Checkpoints of trainings that began alike can be averaged, as in "Model soups: averaging weights of multiple
fine-tuned models improves accuracy without increasing inference time" (Wortsman et al., ICML 2022).

A narrower network is widened as in "Net2Net: Accelerating Learning via Knowledge Transfer" (Chen,
Goodfellow and Shlens, ICLR 2016): it computes what it did before, and has room to learn more.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cellseg.runtime.catalog import default_model, model_names
from cellseg.runtime.errors import ModelError
from cellseg.runtime.onnx_metadata import load_spec
from cellseg.runtime.spec import ModelSpec

from . import checkpoint
from .config import TrainConfig
from .models.nets import UNet

State = dict[str, Tensor]

#: How the weights of a head are named, before its own name.
HEADS_PREFIX = "heads.heads."
#: Standard deviation of a copied channel's share in what follows, as a part of its even share.
SPREAD = 0.5


def adopt(model: UNet, config: TrainConfig, images: Tensor) -> list[str]:
    """Give `model` the weights that ``weights`` names; of a checkpoint, the averaged ones.

    Parameters
    ----------
    model
        Afterwards it computes, in evaluation mode, what the other network does, but for heads that are new.
    config
        What `model` was built from.
    images
        Training crops, float (N, C, H, W) in 0…1, for the statistics of an exported model's norms.

    Returns
    -------
    Names of the heads that the source does not have, or has in another width; they stay as they are.

    Raises
    ------
    ModelError
        It cannot be read, or its network is another one than width and heads account for.
    """
    source = config.weights or ""
    path = default_model(source) if source in model_names() else Path(source)
    exported = path.suffix == ".onnx"
    other, channels = _exported(path, model) if exported else _trained(path)
    unfolded = _unfold(model, other) if exported else []

    own = model.state_dict()
    fits = {name: value for name, value in other.items() if name in own and _fits(name, value, own[name])}
    missing = [name for name in own if name not in fits]
    strangers = ["in_channels"] if channels != config.in_channels else []
    strangers += [name for name in missing if not name.startswith(HEADS_PREFIX)]
    strangers += [name for name in other if name not in own and not name.startswith(HEADS_PREFIX)]
    if strangers:
        raise ModelError(
            f"{path}: its network is not the one that the configuration names ({strangers[0]} differs); "
            "set model, in_channels, model_deep, M_channel, M_R, norm and interpolate as its own "
            "configuration has them, and init_channel_number as it has it or larger"
        )
    wide = {
        name: _widened(value, own[name].shape, *_layout(name, model, config)) for name, value in fits.items()
    }
    model.load_state_dict(wide, strict=False)
    if unfolded:
        _settle(model, unfolded, images)
    return sorted({name.removeprefix(HEADS_PREFIX).split(".")[0] for name in missing})


def mean(paths: Sequence[Path], shares: Sequence[float]) -> dict[str, Any]:
    """Return a checkpoint whose weights are the mean of others' (of their averaged ones).

    Norms get the mean of the statistics. It holds no optimiser: a training can start from it
    (``weights``), and not go on.

    Parameters
    ----------
    paths
        Checkpoints of one network, from trainings that began with the same weights.
    shares
        How much each counts; positive, any sum.

    Raises
    ------
    ModelError
        A checkpoint cannot be read, or is of another network than the first.
    """
    saved = [checkpoint.load(path) for path in paths]
    states: list[State] = [each["ema"] or each["model"] for each in saved]
    shapes = {name: value.shape for name, value in states[0].items()}
    for path, state in zip(paths, states, strict=True):
        if {name: value.shape for name, value in state.items()} != shapes:
            raise ModelError(f"{path}: its network is not that of {paths[0]}; only equal ones have a mean")
    weights = torch.tensor(shares, dtype=torch.float64)
    weights /= weights.sum()
    together: State = {}
    for name, first in states[0].items():
        stack = torch.stack([state[name] for state in states])
        together[name] = torch.tensordot(weights, stack.double(), 1).to(first.dtype) if first.ndim else first
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return {
        "config": saved[0]["config"],
        "model": together,
        "ema": None,
        "step": max(each["step"] for each in saved),
        "mean_of": [
            {"checkpoint": f"{path.resolve().parent.name}/{path.name}", "sha256": digest, "share": share}
            for path, digest, share in zip(paths, digests, weights.tolist(), strict=True)
        ],
    }


# -- reading ------------------------------------------------------------------------------------


def _trained(path: Path) -> tuple[State, int]:
    """Return the weights of a checkpoint, and the channels of its input."""
    saved = checkpoint.load(path)
    return saved["ema"] or saved["model"], saved["config"]["in_channels"]


def _exported(path: Path, model: UNet) -> tuple[State, int]:
    """Return the weights of an exported model by their names in `model`, norms folded, and its channels."""
    spec = load_spec(path)
    if spec.architecture != model.name:
        raise ModelError(f"{path}: its network is {spec.architecture}, the configuration names {model.name}")
    if spec.precision == "int8":
        raise ModelError(f"{path}: is rounded to INT8; start from its checkpoint, or an FP32 or FP16 export")
    try:
        import onnx
    except ImportError:
        raise ModelError(f"{path}: an exported model is read with onnx; install cellseg[export]") from None
    state: State = {}
    for tensor in onnx.load(path).graph.initializer:
        # Parts of an FP16 export are wrapped, which shows in the names.
        prefix, _, name = tensor.name.replace(".part.", ".").partition(".")
        if prefix == "network":
            state[name] = torch.from_numpy(onnx.numpy_helper.to_array(tensor).astype("float32"))
    _part_heads(state, spec, model)
    return state, spec.channels


def _part_heads(state: State, spec: ModelSpec, model: UNet) -> None:
    """Take the one convolution for all heads apart; a softmax's two maps get half their difference each."""
    own = model.state_dict()
    for kind in ("weight", "bias"):
        for head, row in zip(spec.head_names, state.pop(f"heads.{kind}"), strict=True):
            name = f"{HEADS_PREFIX}{head}.{kind}"
            state[name] = torch.stack((-row / 2, row / 2)) if len(own.get(name, ())) == 2 else row[None]


# -- unfolding norms ------------------------------------------------------------------------------


def _unfold(model: UNet, state: State) -> list[tuple[str, str]]:
    """Give every convolution that lacks its norm one that only adds its bias; return these pairs by name."""
    own = model.state_dict()
    pairs = [
        (conv, norm)
        for conv, norm in _normed(model)
        if f"{norm}.weight" not in state and f"{conv}.bias" in state
    ]
    for conv, norm in pairs:
        module = model.get_submodule(norm)
        assert isinstance(module, nn.BatchNorm2d)
        bias = state.pop(f"{conv}.bias")
        if f"{conv}.bias" in own:
            state[f"{conv}.bias"] = torch.zeros_like(bias)
        state[f"{norm}.weight"], state[f"{norm}.bias"] = torch.ones_like(bias), bias
        state[f"{norm}.running_mean"] = torch.zeros_like(bias)
        state[f"{norm}.running_var"] = torch.full_like(bias, 1 - module.eps)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(0)
    return pairs


def _normed(model: UNet) -> Iterator[tuple[str, str]]:
    """Names of every convolution with a batch norm right behind it, and of that."""
    for name, parent in model.named_modules():
        if isinstance(parent, nn.Sequential):
            for (first, conv), (second, norm) in itertools.pairwise(parent.named_children()):
                if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
                    yield f"{name}.{first}", f"{name}.{second}"


@torch.no_grad()
def _settle(model: UNet, pairs: list[tuple[str, str]], images: Tensor) -> None:
    """Give norms that only add a bias the statistics of what comes in; what they compute stays."""
    seen: dict[str, list[Tensor]] = {norm: [] for _, norm in pairs}

    def watch(norm: str) -> RemovableHandle:
        def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
            values = inputs[0].double()
            seen[norm].append(torch.stack((values.mean((0, 2, 3)), values.square().mean((0, 2, 3)))))

        return model.get_submodule(norm).register_forward_pre_hook(note)

    handles = [watch(norm) for _, norm in pairs]
    training = model.training
    model.eval()
    for image in images:
        model(image[None])
    model.train(training)
    for handle in handles:
        handle.remove()

    for before, name in pairs:
        conv, norm = model.get_submodule(before), model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # A norm takes any scale of what comes in; step sizes are made for that of a new convolution.
        new = copy.deepcopy(conv)
        new.reset_parameters()
        axes = (0, 2, 3) if isinstance(conv, nn.ConvTranspose2d) else (1, 2, 3)
        wanted, found = (each.weight.square().sum(axes, keepdim=True).sqrt() for each in (new, conv))
        factor = wanted / found.clamp(min=1e-12)  # a dead filter stays one
        conv.weight.mul_(factor)
        scale = factor.flatten()
        mean, square = torch.stack(seen[name]).mean(0)
        variance = scale.square() * (square - mean.square()).clamp(min=0)
        norm.running_mean.copy_(scale * mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt() / scale)
        norm.bias.add_(mean)


# -- widening -------------------------------------------------------------------------------------


def _fits(name: str, value: Tensor, own: Tensor) -> bool:
    """Whether a weight can become `own`'s: as it is, or by copying channels; heads keep their maps."""
    old, new = value.shape, own.shape
    if len(old) != len(new) or old[2:] != new[2:] or (name.startswith(HEADS_PREFIX) and old[0] != new[0]):
        return False
    return all(few <= many for few, many in zip(old, new, strict=True))


def _layout(name: str, model: UNet, config: TrainConfig) -> tuple[int, int]:
    """Return which axis of a weight counts its inputs, and how many tensors these are joined from."""
    module = model.get_submodule(name.rpartition(".")[0])
    if isinstance(module, nn.ConvTranspose2d):
        return 0, 1
    part, level, _ = name.split(".", 2)
    if part == "decoders" and isinstance(module, nn.Conv2d):  # upsampled and skipped features, side by side
        return 1, 2 if module.in_channels == 2 * config.init_channel_number * 2 ** int(level) else 1
    return 1, 1


def _widened(value: Tensor, shape: torch.Size, axis: int, joined: int) -> Tensor:
    """Copy channels, in turn, until `value` has a shape; what is summed over copies stays the same.

    The copies of an input share its weight unevenly, for each output in another way: with equal shares
    they would get equal gradients, and stay equal.
    """
    if value.shape == shape:
        return value
    for dim in sorted(range(value.ndim), key=lambda dim: dim == axis):  # the inputs last
        blocks = joined if dim == axis else 1
        old, new = value.shape[dim] // blocks, shape[dim] // blocks
        source = torch.cat([torch.arange(new) % old + block * old for block in range(blocks)])
        value = value.index_select(dim, source)
        if dim == axis and value.ndim > 1:
            share = (1 + SPREAD * torch.randn_like(value)).clamp(min=0.1)
            total = torch.zeros_like(value).narrow(dim, 0, blocks * old).index_add(dim, source, share)
            value = value * share / total.index_select(dim, source)
    return value
