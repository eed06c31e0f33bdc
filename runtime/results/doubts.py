"""What a run says where its cells are not to be trusted: few cells must not look like a success."""

from __future__ import annotations

import math

from ..common.spelling import option
from ..model.spec import CellDiameter

#: Below this mean score of its cells a picture is unlike those that the model has learned from.
UNSURE = 0.6

#: Cells outside of the sizes that the model serves by more than this factor are not its own.
BEYOND = 1.25


def doubts(
    cells: int, dropped: int, scores: float, *, areas: int = 0, known: CellDiameter | None = None
) -> tuple[str, ...]:
    """Return one line where a picture seems unlike what the model has seen.

    Parameters
    ----------
    cells
        How many were found.
    dropped
        How many more were dropped as too small or too doubtful.
    scores
        Sum of the scores of the cells that were found.
    areas
        Sum of their pixels, as the model saw them.
    known
        The cells that the model knows.
    """
    more = f" ({dropped} were dropped as too small or too doubtful)" if dropped else ""
    if not cells:
        return (f"no cell was found{more}: {_advice()}",)
    unlike = f"this picture may be unlike those that it has learned from: {_advice()}"
    mean = scores / cells
    if mean < UNSURE or dropped > cells:
        return (f"the model is unsure: the mean score of {cells} cells is {mean:.2f}{more}; {unlike}",)
    across = 2 * math.sqrt(areas / cells / math.pi)
    if known is not None and not known.low / BEYOND <= across <= known.high * BEYOND:
        return (
            f"the model saw cells of {across:.3g} pixels, and those that it knows have {known.low:g} to "
            f"{known.high:g}; {unlike}",
        )
    return ()


def _advice() -> str:
    channels, diameter, pixel_size, min_score = map(
        option, ("channels", "diameter", "pixel_size", "min_score")
    )
    return (
        f"look at the overview; if cells are missing or wrong, say which channels show them ({channels}) "
        f"and how large they ({diameter}) or the pixels ({pixel_size}) are, lower {min_score}, or teach the "
        "model with pictures of your own (cellseg-train finetune)"
    )
