"""Find and rebuild a trained network; knows nothing of graphs or engines."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cellseg.runtime.errors import ConfigError, ModelError
from cellseg.train import checkpoint
from cellseg.train.config import TrainConfig, parse
from cellseg.train.models import build_model
from cellseg.train.models.nets import UNet


@dataclass(frozen=True, slots=True)
class Trained:
    """A network with its weights, in evaluation mode on the CPU, and where it came from."""

    network: UNet
    config: TrainConfig
    path: Path
    #: Optimiser steps it was trained for.
    step: int
    #: Whether the weights are the exponential moving average.
    averaged: bool
    #: The checkpoints that it is the mean of, as ``cellseg-train mean`` records them.
    mean_of: tuple[dict[str, Any], ...] = ()
    #: Share of the weights that it started from in these, see :mod:`cellseg.train.weights.keep`.
    kept: float = 0.0
    #: What it keeps of the model that it started from, see :mod:`cellseg.train.weights.inherit`.
    inherited: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the training run, which is the name of its folder."""
        return self.path.resolve().parent.name or self.path.stem


def newest(work_dir: Path = Path("work_dirs")) -> Path:
    """Return the most recently written ``best.pt`` below `work_dir`.

    Raises
    ------
    ModelError
        There is none.
    """
    found = [path for path in work_dir.glob("**/best.pt") if path.is_file()]
    if not found:
        raise ModelError(
            f"{work_dir}: holds no best.pt; name a checkpoint, or train one first: cellseg-train cfg.yml"
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def load(path: Path) -> Trained:
    """Rebuild the network of a checkpoint; averaged weights are used where it has them.

    Raises
    ------
    ModelError
        The file is not a checkpoint of this release, or its weights do not fit its configuration.
    """
    state = checkpoint.load(path)
    try:
        config = parse(dict(state["config"]), f"{path}: configuration")
        weights = checkpoint.weights(state)
        network = build_model(config)
    except (KeyError, TypeError, ConfigError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ModelError(f"{path}: {what}; train it again with this release of cellseg-train") from None
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = [line.strip() for line in str(error).splitlines()][1:2]
        raise ModelError(
            f"{path}: its weights do not fit the network that its configuration names "
            f"({config.model}, depth {config.model_deep}, width {config.init_channel_number}): "
            f"{''.join(first)[:160]}"
        ) from None
    bad = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ModelError(f"{path}: weight {bad[0]} holds NaN or infinity; export an earlier checkpoint")
    network.requires_grad_(False).eval()
    mean_of = tuple(state.get("mean_of", ()))
    return Trained(
        network=network,
        config=config,
        path=path,
        step=int(state.get("step", 0)),
        averaged=state.get("ema") is not None,
        mean_of=mean_of,
        kept=float(state.get("keep", 0.0)),
        inherited=dict(state.get("inherited", {})),
    )
