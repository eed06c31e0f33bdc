"""Checkpoints: written atomically, loaded with ``weights_only``."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellseg.runtime.errors import ModelError, OutputError

#: Weights by their names.
State = dict[str, Tensor]

#: Version of the record; a reader refuses any other by name.
FORMAT = 1


def save(
    path: Path,
    state: dict[str, Any],
    otherwise: str = "choose another work_dir, then go on with --resume",
) -> None:
    """Write `state` under `path`; a reader sees the old file or the new one, never a part.

    Killed while it writes, it leaves one file next to `path` that the next time overwrites.

    Parameters
    ----------
    path
        The file.
    state
        Tensors and plain values by name.
    otherwise
        What a user can do where it cannot be written, for the message.

    Raises
    ------
    OutputError
        The disk is full or does not take it; the old file, where there is one, is untouched.
    """
    partial = path.with_suffix(path.suffix + ".part")
    buffer = io.BytesIO()  # torch's own writer hides what went wrong on a full disk
    torch.save({"cellseg_checkpoint": FORMAT, **state}, buffer)
    try:
        with partial.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        kept = "; the checkpoint before it is kept" if path.is_file() else ""
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}){kept}; free {len(buffer.getbuffer()) >> 20} MB or "
            f"{otherwise}"
        ) from None


def weights(saved: dict[str, Any]) -> State:
    """Return the weights of a checkpoint, averaged ones if it has them, with what it keeps of its start."""
    return blend(trained(saved), saved.get("start") or {}, saved.get("keep", 0.0))


def trained(saved: dict[str, Any]) -> State:
    """Return the weights that the training came to, the averaged ones where there are such."""
    state: State = saved.get("ema") or saved["model"]
    return state


@torch.no_grad()
def blend(state: State, start: Mapping[str, Tensor], share: float) -> State:
    """Return weights, and statistics of norms, that are `start`'s by `share` and `state`'s by the rest."""
    if not share:
        return state
    return {
        name: torch.lerp(value, start[name].to(value.device), share) if value.is_floating_point() else value
        for name, value in state.items()
    }


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises
    ------
    ModelError
        The file is missing, damaged, not a checkpoint of ours, or of another version.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint; cellseg-train writes them as work_dirs/NAME/best.pt")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for damaged files
        raise ModelError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}); train it again"
        ) from None
    version = state.get("cellseg_checkpoint") if isinstance(state, dict) else None
    if version != FORMAT:
        raise ModelError(
            f"{path}: found {'no cellseg checkpoint' if version is None else f'format {version}'}, "
            f"wanted a checkpoint of format {FORMAT} as written by cellseg-train"
        )
    return state
