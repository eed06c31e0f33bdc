"""Running means between two validations, where the time went, and whether the numbers are still numbers."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from cellseg.runtime.errors import CellsegError

from ..data.crops import CropSource


class Meter:
    """Adds up losses on their device; looks at each step one step later, when waiting costs nothing.

    Parameters
    ----------
    source
        Names the images of a bad batch.
    last
        The checkpoint that a message points to.

    Attributes
    ----------
    losses
        ``loss`` and its parts of the step looked at last.
    """

    def __init__(self, source: CropSource, last: Path) -> None:
        self.source, self.last = source, last
        self.losses: dict[str, float] = {}
        self._since, self._sums = 0, dict[str, Tensor]()
        self._pending: tuple[int, dict[str, Tensor], Tensor | None, Tensor] | None = None
        self._seconds = self._idle = 0.0
        self._timed = 0
        self._mark = time.perf_counter()

    def resume(self) -> None:
        """Start the clock of a step."""
        self._mark = time.perf_counter()

    def waited(self) -> None:
        """Note that the data for a step is here; the time since :meth:`resume` was spent waiting for it."""
        self._idle += time.perf_counter() - self._mark

    def add(self, step: int, losses: dict[str, Tensor], norm: Tensor | None, index: Tensor) -> None:
        """Take what a step gave, and look at the step before.

        Parameters
        ----------
        step
            Its number.
        losses
            ``loss`` and its parts, scalars.
        norm
            Norm of the gradients, or None where fp16 scaling deals with overflows itself.
        index
            Crop indices of the batch.
        """
        self.settle()
        for name, value in losses.items():
            so_far = self._sums.get(name)
            self._sums[name] = value.double() if so_far is None else so_far + value
        self._pending = (step, losses, norm, index)
        self._timed += 1

    def clock(self) -> None:
        """Stop the clock of a step."""
        self._seconds += time.perf_counter() - self._mark

    def settle(self) -> None:
        """Look at the step that was added last.

        Raises
        ------
        CellsegError
            Its loss or gradient is no number.
        """
        if self._pending is None:
            return
        (step, losses, norm, index), self._pending = self._pending, None
        self.losses = {name: float(value) for name, value in losses.items()}
        what = "loss", self.losses["loss"]
        if math.isfinite(what[1]) and norm is not None:
            what = "norm of the gradients", float(norm)
        if not math.isfinite(what[1]):
            names = ", ".join(dict.fromkeys(self.source.sample_of(int(i)).name for i in index))
            self.fail(f"the {what[0]} of step {step} is {what[1]}; its batch shows {names}")

    def fail(self, text: str) -> NoReturn:
        """Stop the training: say what is wrong, what is kept and what may help."""
        kept = (
            f"{self.last} keeps the last good step" if self.last.is_file() else "no checkpoint was saved yet"
        )
        raise CellsegError(
            f"training stopped: {text}; {kept}; lower learning_rate (now "
            f"{self.source.config.learning_rate:g}), use precision: fp32, or look at these images"
        )

    def row(self, step: int, whole_batch: int) -> dict[str, float]:
        """Means since the last :meth:`reset`: losses, images a second, share of the time spent waiting."""
        seconds = max(self._seconds, 1e-9)
        count = step - self._since
        return {
            **{f"train_{name}": float(total) / count for name, total in self._sums.items()},
            "images_s": self._timed * whole_batch / seconds,
            "data_wait": self._idle / seconds,
        }

    def reset(self, step: int) -> None:
        """Start again after a validation."""
        self._since, self._sums = step, {}
        self._seconds, self._idle, self._timed = 0.0, 0.0, 0

    def state(self) -> dict[str, Any]:
        """State for a checkpoint; times are not worth keeping."""
        return {"since": self._since, "sums": {name: float(total) for name, total in self._sums.items()}}

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore :meth:`state`."""
        self._since = state["since"]
        self._sums = {
            name: torch.tensor(total, dtype=torch.float64, device=device)
            for name, total in state["sums"].items()
        }
