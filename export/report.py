"""What an export tells people, line by line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from . import parity
from .graph import Deployable, cost
from .to_onnx import node_counts, parameters

if TYPE_CHECKING:
    import onnx

    from cellseg.train.models.nets import UNet

Say = Callable[[str], None]
#: Width of the words that start a line.
INDENT = 12


def line(topic: str, text: str) -> str:
    """Return ``topic`` and `text` in their columns."""
    return f"{topic:{INDENT}}{text}"


def savings(trained: UNet, deployable: Deployable, model: onnx.ModelProto, channels: int, say: Say) -> None:
    """Tell what was stripped, and what the graph saves against the trained network."""
    kept = [head.name for head in deployable.heads]
    gone = [name for name in trained.heads.heads if name not in kept] or ["none"]
    edge = 8 * trained.multiple
    before, after = cost(_Bytes(trained), channels, edge), cost(deployable, channels, edge)
    rows: list[tuple[str, float, float, str]] = [
        ("operations", operations(trained, channels), sum(node_counts(model).values()), ",.0f"),
        ("parameters", before.parameters, parameters(model), ",.0f"),
        ("GFLOP/Mpx", before.gflop_per_megapixel, after.gflop_per_megapixel, ",.1f"),
    ]
    say(line("heads", f"kept {', '.join(kept)}; stripped {', '.join(gone)}"))
    say(line("saved", f"{'':14}{'trained':>12}{'exported':>12}"))
    for label, one, two, form in rows:
        say(line("", f"{label:14}{one:>12{form}}{two:>12{form}}"))


def comparison(figures: dict[str, parity.Figures], source: str, say: Say) -> set[str]:
    """Tell what the comparison with PyTorch found; return the rows that are beyond their limits."""
    names = list(parity.Limits.__dataclass_fields__)
    say(line("parity", f"with PyTorch, on {source}"))
    say(line("", f"{'':6}" + "".join(f"{name:>17}" for name in names)))
    failed = set()
    for row, found in figures.items():
        limits = parity.LIMITS[row]
        for label, values in ((row, found), ("limit", limits.among(found.cells))):
            say(line("", f"{label:6}" + "".join(f"{getattr(values, name):>17.5g}" for name in names)))
        for phrase in found.beyond(limits):
            say(line("", f"{row} fails: {phrase}"))
            failed.add(row)
    return failed


def operations(trained: UNet, channels: int) -> int:
    """Count the tensor operations of the trained network, as PyTorch sees them."""
    image = torch.zeros(1, channels, 4 * trained.multiple, 4 * trained.multiple)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(trained, (image,))
    return sum(node.op == "call_function" for node in program.graph.nodes)


class _Bytes(torch.nn.Module):
    """The trained network as it stands, all heads, fed with bytes so that it can be counted alike."""

    def __init__(self, trained: UNet) -> None:
        super().__init__()
        self.trained = trained

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.trained((image / 255.0).permute(0, 3, 1, 2))
        return torch.cat(list(logits.values()), dim=1)
