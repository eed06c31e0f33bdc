"""Batch norms of an exported model, which has them folded into the convolutions before them.

Each convolution gets a norm again that changes nothing, with the statistics that its outputs have on some
training crops. So training goes on as from a checkpoint.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..checkpoint import State
from ..models.blocks import normed
from ..models.nets import UNet


def unfold_norms(model: UNet, state: State) -> list[tuple[str, str]]:
    """Give every convolution that lacks its norm one that only adds its bias.

    Parameters
    ----------
    model
        The network with norms.
    state
        Weights of the same network without; changed in place.

    Returns
    -------
    Names of the convolutions and of their new norms, for :func:`settle`.
    """
    own = model.state_dict()
    pairs = [
        (conv, norm)
        for conv, norm in normed(model)
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


@torch.no_grad()
def settle(model: UNet, pairs: list[tuple[str, str]], images: Tensor) -> None:
    """Give norms that only add a bias the statistics of what comes in; what they compute stays.

    Parameters
    ----------
    model
        The network, with what :func:`unfold_norms` made loaded.
    pairs
        As :func:`unfold_norms` returns them.
    images
        What the network will see, float (N, C, H, W) in 0…1.
    """
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
