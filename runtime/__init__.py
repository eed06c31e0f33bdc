"""Runtime: stream images of any size through an engine and turn its planes into cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .common.privacy import forbid_reports

if TYPE_CHECKING:
    from .cluster.many import segment_many
    from .pipeline import segment
    from .results.result import Result

__all__ = ["Result", "segment", "segment_many"]

forbid_reports()


def __getattr__(name: str) -> Any:
    # Imported when asked for: every command imports this package, and `--help` must not wait for NumPy.
    if name == "segment":
        from .pipeline import segment

        return segment
    if name == "segment_many":
        from .cluster.many import segment_many

        return segment_many
    if name == "Result":
        from .results.result import Result

        return Result
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
