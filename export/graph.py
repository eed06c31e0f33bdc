"""The deployable module: what a trained network becomes before it is written to a graph.

::

    uint8 (N, H, W, C) ─▶ /255 ─▶ network ─▶ one 1×1 convolution for all kept heads
                       ─▶ sigmoid, softplus ─▶ round to bytes ─▶ uint8 (N, K, H, W)

:class:`Reference` is the trained network untouched, with the same input and output; every export is
compared with it. This module knows nothing of ONNX.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cellseg.runtime.errors import UsageError
from cellseg.runtime.model.spec import Head
from cellseg.train.models.blocks import normed
from cellseg.train.models.heads import DENSITY_UNIT, ENCODINGS, Heads, to_planes
from cellseg.train.models.nets import UNet


def choose_heads(available: tuple[str, ...], wanted: tuple[str, ...] | None) -> tuple[Head, ...]:
    """Return the heads to keep, mask first.

    Parameters
    ----------
    available
        Heads of the network.
    wanted
        Names to keep; ``None`` keeps the mask alone.

    Raises
    ------
    UsageError
        A head is unknown to this network, or the mask is not among them.
    """
    names = ("mask",) if wanted is None else wanted
    for name in names:
        if name not in available:
            raise UsageError(f"head '{name}': this network has {', '.join(available)}")
    if "mask" not in names:
        raise UsageError(f"heads {', '.join(names)}: 'mask' must be among them")
    return tuple(ENCODINGS[name] for name in available if name in names)


def to_bytes(value: Tensor, head: Head) -> Tensor:
    """Encode values as ``head`` says: 255 · (value / full_scale) ** (1 / power), rounded, as float."""
    if head.power != 1.0 or head.full_scale != 1.0:
        scaled = (value * (1.0 / head.full_scale)).clamp(max=1.0)
        value = scaled.sqrt() if head.power == 2.0 else scaled ** (1 / head.power)
    return torch.round(value * 255.0)


class Reference(nn.Module):
    """The trained network as it is, from bytes to bytes, in the floating-point type of its weights."""

    def __init__(self, network: UNet, heads: tuple[Head, ...]) -> None:
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, image: Tensor) -> Tensor:
        """Map uint8 (N, H, W, C) to uint8 (N, K, H, W)."""
        dtype = next(self.network.parameters()).dtype
        logits = self.network((image.to(dtype) / 255.0).permute(0, 3, 1, 2))
        return to_planes({head.name: logits[head.name] for head in self.heads})


class Deployable(nn.Module):
    """The network with its auxiliary heads stripped, its norms folded and its heads fused.

    Parameters
    ----------
    network
        Any network whose forward ends in ``self.heads(features)``; a copy is taken.
    heads
        Heads to keep, mask first.
    """

    def __init__(self, network: UNet, heads: tuple[Head, ...]) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        self.network.add_module("heads", _fuse_heads(self.network.heads, heads))
        fold_norms(self.network)
        self.heads = heads

    def forward(self, image: Tensor) -> Tensor:
        """Map uint8 (N, H, W, C) to uint8 (N, K, H, W)."""
        # Cast first: TensorRT takes bytes at a cast only, not at a transposition. And to single precision
        # even where the network is in half, which would hold 1/255 to three digits.
        x = (image.float() * (1.0 / 255.0)).permute(0, 3, 1, 2)
        logits: Tensor = self.network(x).float()  # (N, K, H, W)
        probabilities = [head for head in self.heads if head.name != "density"]
        planes = to_bytes(torch.sigmoid(logits[:, : len(probabilities)]), probabilities[0])
        if len(probabilities) < len(self.heads):
            cells = nn.functional.softplus(logits[:, len(probabilities) :])
            # In units of full_scale at once, which saves a pass over the plane.
            head = self.heads[-1].model_copy(update={"full_scale": self.heads[-1].full_scale * DENSITY_UNIT})
            planes = torch.cat((planes, to_bytes(cells, head)), dim=1)
        return planes.to(torch.uint8)


def _fuse_heads(heads: Heads, kept: tuple[Head, ...]) -> nn.Conv2d:
    """One 1×1 convolution with a single logit for each kept head.

    The two maps of a softmax meet in their difference: softmax((a, b))_1 = sigmoid(b - a).
    """
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for head in kept:
        conv = heads.heads[head.name]
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        weight, bias = conv.weight, conv.bias
        if len(weight) == 2:
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        weights.append(weight)
        biases.append(bias)
    fused = nn.Conv2d(weights[0].shape[1], len(kept), 1)
    fused.weight = nn.Parameter(torch.cat(weights), requires_grad=False)
    fused.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    return fused


def fold_norms(network: nn.Module) -> int:
    """Fold every batch norm that follows a convolution in a ``Sequential`` into it, in place.

    Returns the number of norms that went. With s = γ / sqrt(var + ε) the pair is the convolution
    s · w, s · (b − mean) + β.
    """
    pairs = list(normed(network))
    for before, behind in pairs:
        conv, norm = network.get_submodule(before), network.get_submodule(behind)
        assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
        assert isinstance(norm, nn.BatchNorm2d)
        transposed = isinstance(conv, nn.ConvTranspose2d)
        network.set_submodule(before, fuse_conv_bn_eval(conv, norm, transpose=transposed))
        network.set_submodule(behind, nn.Identity())
    return len(pairs)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network holds and does."""

    parameters: int
    #: 10⁹ multiplications and additions for a megapixel (10⁶ pixels).
    gflop_per_megapixel: float


def cost(network: nn.Module, channels: int, edge: int) -> Cost:
    """Count the parameters and operations of a network that maps uint8 (N, H, W, C)."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, edge, edge, channels, dtype=torch.uint8))
    parameters = sum(p.numel() for p in network.parameters())
    return Cost(parameters, counter.get_total_flops() / edge**2 / 1e3)
