"""What changes as training goes on: the learning rate, and the running average of the weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..models.nets import UNet

#: What a plateau does to the learning rate, as in the original project.
DECAY = 0.1


class Schedule:
    """Learning rate by step: warm-up, then cosine to zero, or a tenth on a plateau; and when to stop.

    A plateau is half the patience without a better score; it acts once until the next better score.
    """

    def __init__(self, config: TrainConfig, steps: int) -> None:
        self.config, self.steps = config, steps
        self.factor, self.best, self.waited = 1.0, math.inf, 0

    def rate(self, step: int) -> float:
        """Learning rate of `step`."""
        cfg = self.config
        rate = cfg.learning_rate * min(1.0, (step + 1) / (cfg.warmup + 1))
        if cfg.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / max(1, self.steps)))
        return rate * self.factor

    def observe(self, score: float) -> bool:
        """Take the score of a validation (higher is better) and return whether it is the best so far."""
        if -score < self.best:
            self.best, self.waited = -score, 0
            return True
        self.waited += 1
        patience = self.config.patience
        if self.config.schedule == "plateau" and self.waited == patience - patience // 2:
            self.factor *= DECAY
        return False

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.waited >= self.config.patience

    def state(self) -> dict[str, float]:
        """State for a checkpoint."""
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def load(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state`."""
        self.factor, self.best, self.waited = state["factor"], state["best"], state["waited"]


class Ema:
    """Exponential moving average of the weights; batch-norm statistics are averaged alike.

    Attributes
    ----------
    model
        The averaged network, in evaluation mode.
    """

    def __init__(self, model: UNet, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._mine, self._counts = _split(self.model)
        self._theirs, self._their_counts = _split(model)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the trained network; early steps count for more, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._mine, self._theirs, 1 - decay)
        if self._counts:
            torch._foreach_copy_(self._counts, self._their_counts)


def _split(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Floating-point tensors of the state and the others (counters), sharing memory with the model."""
    tensors = list(model.state_dict().values())
    return [t for t in tensors if t.is_floating_point()], [t for t in tensors if not t.is_floating_point()]
