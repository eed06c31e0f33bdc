"""The mean of checkpoints.

Trainings that began with the same weights, or stages of one training, lie close enough for the mean of their
weights to be a network too, and often a better one than each: "Model soups: averaging weights of multiple
fine-tuned models improves accuracy without increasing inference time" (Wortsman et al., ICML 2022).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cellseg.runtime.errors import ModelError

from .. import checkpoint


def average(paths: Sequence[Path], shares: Sequence[float]) -> dict[str, Any]:
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
    states = [checkpoint.weights(each) for each in saved]
    shapes = {name: value.shape for name, value in states[0].items()}
    for path, state in zip(paths, states, strict=True):
        if {name: value.shape for name, value in state.items()} != shapes:
            raise ModelError(f"{path}: its network is not that of {paths[0]}; only equal ones have a mean")
    weights = torch.tensor(shares, dtype=torch.float64)
    weights /= weights.sum()
    together: checkpoint.State = {}
    for name, first in states[0].items():
        stack = torch.stack([state[name] for state in states])
        together[name] = torch.tensordot(weights, stack.double(), 1).to(first.dtype) if first.ndim else first
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return {
        "config": saved[0]["config"],
        "model": together,
        "ema": None,
        "step": max(each["step"] for each in saved),
        "inherited": saved[0].get("inherited", {}),
        "mean_of": [
            {"checkpoint": f"{path.resolve().parent.name}/{path.name}", "sha256": digest, "share": share}
            for path, digest, share in zip(paths, digests, weights.tolist(), strict=True)
        ],
    }
