"""Checkpoints: written atomically, loaded with ``weights_only``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from cellseg.runtime.errors import ModelError

#: Version of the record; a reader refuses any other by name.
FORMAT = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` under `path`; a reader sees the old file or the new one, never a part."""
    partial = path.with_suffix(path.suffix + ".part")
    try:
        torch.save({"cellseg_checkpoint": FORMAT, **state}, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
        raise ModelError(f"{path}: cannot be read as a checkpoint ({type(error).__name__}); train it again") from None
    version = state.get("cellseg_checkpoint") if isinstance(state, dict) else None
    if version != FORMAT:
        raise ModelError(
            f"{path}: found {'no cellseg checkpoint' if version is None else f'format {version}'}, "
            f"wanted a checkpoint of format {FORMAT} as written by cellseg-train"
        )
    return state
