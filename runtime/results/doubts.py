"""What a run says where its cells are not to be trusted: few cells must not look like a success."""

from __future__ import annotations

#: Below this mean score of its cells a picture is unlike those that the model has learned from.
UNSURE = 0.6

_ADVICE = (
    "look at the overview; if cells are missing or wrong, say which channels show them (--channels) and how "
    "large a pixel is (--mpp), lower --min-score, or teach the model with pictures of your own "
    "(cellseg-train finetune)"
)


def doubts(cells: int, dropped: int, scores: float) -> tuple[str, ...]:
    """Return one line where a picture seems unlike what the model has seen.

    Parameters
    ----------
    cells
        How many were found.
    dropped
        How many more were dropped as too small or too doubtful.
    scores
        Sum of the scores of the cells that were found.
    """
    more = f" ({dropped} were dropped as too small or too doubtful)" if dropped else ""
    if not cells:
        return (f"no cell was found{more}: {_ADVICE}",)
    mean = scores / cells
    if mean >= UNSURE and dropped <= cells:
        return ()
    what = f"the model is unsure: the mean score of {cells} cells is {mean:.2f}{more}"
    return (f"{what}; this picture may be unlike those that it has learned from: {_ADVICE}",)
