"""``evaluate()``: how good segmentations are, from pairs of label images, for Python."""

from __future__ import annotations

from .evaluation.metrics import evaluate

__all__ = ["evaluate"]
