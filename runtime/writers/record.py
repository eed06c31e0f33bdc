"""``run.json``: the machine's record of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.files import writing


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as indented JSON.

    Parameters
    ----------
    path
        The file; written in full and then renamed, so that it is never half there.
    record
        What JSON can say, also NumPy numbers and paths; NaN becomes null.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    text = json.dumps(_plain(record), indent=1, ensure_ascii=False, allow_nan=False)
    part = path.with_name(f".{path.name}.partial")
    with writing(path):
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(path)


def _plain(value: Any) -> Any:
    """Reduce a value to what JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and not isinstance(value, str | bytes):  # NumPy numbers
        value = value.item() if getattr(value, "ndim", 0) == 0 else value.tolist()
        return _plain(value)
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return None
    return value
