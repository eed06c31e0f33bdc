"""What a model keeps of the one that it started from, besides weights: how its planes become cells.

The splitter's settings and the two rules of ``nuclei`` were learned on hundreds of pictures. A network that
was trained on with five still says the same things in its planes, and rules learned anew on these five would
be worse elsewhere. So they go with its weights, into its checkpoints and from there into what is exported.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg.runtime.errors import DataError
from cellseg.runtime.model.catalog import default_model, model_names
from cellseg.runtime.model.onnx_metadata import load_spec
from cellseg.runtime.sizing.measured import OCTAVE, measure_cells

from .. import checkpoint

#: Plain values, as a checkpoint holds them: ``from``, ``split`` and ``diameter``, the latter two as JSON.
Inheritance = dict[str, str]


def inherit(source: str | None, labels: Iterable[NDArray[np.integer]]) -> Inheritance:
    """Return what a training that starts from `source` keeps of it; nothing where its cells are others.

    Parameters
    ----------
    source
        As ``weights`` of the configuration: a packaged model by its name, an exported one, a checkpoint.
    labels
        Label images of what is trained on. Rules and sizes are kept where the median diameter of their
        cells is within a factor of two of those that the source knows.
    """
    if not source:
        return {}
    path = default_model(source) if source in model_names() else Path(source)
    if path.suffix != ".onnx":
        kept: Inheritance = checkpoint.load(path).get("inherited", {})
        return dict(kept)
    spec = load_spec(path)
    if spec.diameter is not None:
        try:
            median = measure_cells(labels).median
        except DataError:  # no cell in any of them says nothing about their size
            median = spec.diameter.median
        if not 1 / OCTAVE <= median / spec.diameter.median <= OCTAVE:
            return {}
    diameter = {} if spec.diameter is None else {"diameter": spec.diameter.model_dump_json()}
    return {"from": spec.name, "split": spec.split.model_dump_json(), **diameter}
