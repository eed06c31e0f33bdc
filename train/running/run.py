"""The folder of a run: what it may start from, and what it keeps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from cellseg.runtime.errors import ModelError, OutputError, UsageError

from .. import checkpoint
from ..config import TrainConfig

#: Everything a run writes.
KEPT = (
    "last.pt",
    "best.pt",
    "config.yml",
    "metrics.csv",
    "metrics_before.csv",
    "curves.png",
    "train.log",
    "tensorboard",
    "overlays",
)


def starting_point(folder: Path, config: TrainConfig, overwrite: bool) -> dict[str, Any] | None:
    """Return the checkpoint to continue from, or None to start from scratch.

    Raises
    ------
    UsageError
        The folder holds a run that is neither to be continued nor to be overwritten.
    ModelError
        The checkpoint cannot be used.
    """
    last = folder / "last.pt"
    source = Path(config.resume) if isinstance(config.resume, str) else last
    continues = bool(config.resume) and source.resolve() == last.resolve()
    if not continues and not overwrite and any((folder / name).exists() for name in ("last.pt", "best.pt")):
        raise UsageError(
            f"{folder}: holds a run already; go on with --resume, start over with --overwrite, or name "
            "another folder with --set work_dir=…"
        )
    if isinstance(config.resume, str) or (config.resume and last.is_file()):
        saved = checkpoint.load(source)
        if "optimizer" not in saved:
            raise ModelError(
                f"{source}: is a mean of checkpoints, which has no training to go on with; start one from it "
                f"with --set weights={source}"
            )
        return saved
    return None


def prepare(folder: Path, config: TrainConfig, *, fresh: bool) -> None:
    """Make the folder, empty it of an earlier run where this one is fresh, and copy the configuration.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / name for name in KEPT):
            if fresh and path.is_dir():
                shutil.rmtree(path)
            elif fresh:
                path.unlink(missing_ok=True)
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        (folder / "config.yml").write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror}); choose another with --set work_dir=…"
        ) from None
