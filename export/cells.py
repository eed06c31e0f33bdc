"""How planes become cells in an exported model, and how large these are, where its training inherited it."""

from __future__ import annotations

from collections.abc import Sequence

from cellseg.runtime.model.spec import CellDiameter, SplitSettings

from .network import Trained


def inherited_split(trained: Trained, heads: Sequence[str]) -> SplitSettings | None:
    """Return the settings and rules of the model it started from, unless they weigh a plane that goes."""
    text = trained.inherited.get("split")
    settings = None if text is None else SplitSettings.model_validate_json(text)
    return settings if settings is not None and settings.weighed <= set(heads) else None


def inherited_diameter(trained: Trained) -> CellDiameter | None:
    """Return how large the cells are that the model it started from knows."""
    text = trained.inherited.get("diameter")
    return None if text is None else CellDiameter.model_validate_json(text)
