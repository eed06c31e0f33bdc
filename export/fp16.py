"""Half precision: which parts of a network take it, by measurement.

A part is an encoder, an upsampling or a decoder of one level, or the heads. Half precision is
emulated as engines compute it: products are summed in single precision, and tensors and weights are
rounded to half between operations. Input scaling and the activation that makes bytes always stay in
single precision: they cost next to nothing, and a byte needs more digits than half has left there.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .graph import Deployable

Bytes = NDArray[np.uint8]
#: Values above this in any tensor keep a part in single precision; half ends at 65504.
RANGE = 65504 / 8
#: Mean difference of a plane's bytes that half precision may make.
EFFECT = 0.1
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which parts stay in single precision."""

    single: tuple[str, ...]
    #: Largest value in any tensor of the network.
    largest: float
    #: Mean difference of the bytes with the other parts in half.
    effect: float


def parts(network: nn.Module) -> dict[str, nn.Module]:
    """Return the parts of a network that have weights, by name, for example ``encoders.0``."""
    found: dict[str, nn.Module] = {}
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList):
            found |= {f"{name}.{index}": each for index, each in child.named_children()}
        else:
            found[name] = child
    return {name: part for name, part in found.items() if any(True for _ in part.parameters())}


def choose(deployable: Deployable, images: Bytes) -> Choice:
    """Find the parts that must stay in single precision, on tiles uint8 (n, T, T, C)."""
    network = deployable.network
    wanted, largest = _watch(deployable, images)
    single = [name for name, value in largest.items() if value > RANGE]
    tried = [name for name in parts(network) if name not in single]
    effect = _effect(deployable, tried, images, wanted)
    if effect > EFFECT:
        alone = _alone(deployable, tried, images, wanted)
        for name in sorted(tried, key=lambda name: -alone[name]):
            single.append(name)
            tried.remove(name)
            effect = _effect(deployable, tried, images, wanted)
            if effect <= EFFECT:
                break
    return Choice(tuple(sorted(single)), max(largest.values()), effect)


def effects(deployable: Deployable, images: Bytes) -> dict[str, float]:
    """Return by how much the bytes differ in the mean with each part alone in half precision."""
    return _alone(deployable, parts(deployable.network), images, _run(deployable, images))


def to_half(deployable: Deployable, single: Iterable[str]) -> Deployable:
    """Return a copy whose parts compute in half precision, except those named."""
    converted = copy.deepcopy(deployable)
    single = set(single)
    for name, part in parts(converted.network).items():
        dtype = torch.float32 if name in single else torch.float16
        parent, _, last = name.rpartition(".")
        converted.network.get_submodule(parent).add_module(last, _InType(part, dtype))
    return converted


class _InType(nn.Module):
    """A part in its own floating-point type; what enters is cast to it."""

    def __init__(self, part: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.part, self.dtype = part.to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.part(x.to(self.dtype))
        return out


def _watch(deployable: Deployable, images: Bytes) -> tuple[Bytes, dict[str, float]]:
    """Return the planes and the largest value in each part."""
    largest: dict[str, float] = {}
    handles: list[RemovableHandle] = []

    def watch(name: str, module: nn.Module) -> None:
        def note(_: nn.Module, __: Any, out: Tensor) -> None:
            # NaN would get lost in max()
            value = float(out.abs().max()) if torch.isfinite(out).all() else float("inf")
            largest[name] = max(largest.get(name, 0.0), value)

        handles.append(module.register_forward_hook(note))

    for name, part in parts(deployable.network).items():
        for module in (part, *(m for m in part.modules() if isinstance(m, _CONVOLUTIONS))):
            watch(name, module)
    planes = _run(deployable, images)
    for handle in handles:
        handle.remove()
    return planes, largest


def _alone(deployable: Deployable, names: Iterable[str], images: Bytes, wanted: Bytes) -> dict[str, float]:
    return {name: _effect(deployable, [name], images, wanted) for name in names}


def _effect(deployable: Deployable, names: Iterable[str], images: Bytes, wanted: Bytes) -> float:
    chosen = [part for name, part in parts(deployable.network).items() if name in set(names)]
    with contextlib.ExitStack() as stack:
        for part in chosen:
            stack.enter_context(_rounded(part))
        found = _run(deployable, images)
    return float(np.abs(wanted.astype(np.int16) - found).mean(axis=(0, 2, 3)).max())


@contextlib.contextmanager
def _rounded(part: nn.Module) -> Iterator[None]:
    """Round the weights of a part, and what enters and leaves its convolutions, to half precision."""
    before = copy.deepcopy(part.state_dict())
    handles = [part.register_forward_hook(lambda _, __, out: _half(out))]
    for module in part.modules():
        if isinstance(module, _CONVOLUTIONS):
            handles.append(module.register_forward_pre_hook(lambda _, args: tuple(map(_half, args))))
            handles.append(module.register_forward_hook(lambda _, __, out: _half(out)))
    part.load_state_dict({name: _half(tensor) for name, tensor in before.items()})
    try:
        yield
    finally:
        part.load_state_dict(before)
        for handle in handles:
            handle.remove()


def _half(tensor: Tensor) -> Tensor:
    return tensor.half().float()


def _run(module: nn.Module, images: Bytes) -> Bytes:
    with torch.inference_mode():
        return np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in images])
