"""The mean of the weights that a training came to and of those that it started from.

A network that is trained on with a few pictures learns their kind and forgets others. The mean of its weights
and of those from before has most of what was learned, and is better than both on what neither has seen:
"Robust fine-tuning of zero-shot models" (Wortsman et al., CVPR 2022). How much of the start may stay is seen
on the validation images: nothing, where they are of a kind that the start knows nothing of.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Of several shares of the start, the largest is taken that loses at most this part of the best score.
TOLERANCE = 0.1


def shares(largest: float) -> tuple[float, ...]:
    """Return the shares of the start that are tried, the largest first."""
    return (largest, largest / 2, 0.0)


def choose(scores: Mapping[float, float]) -> float:
    """Return the largest share whose score is about as good as the best; higher scores are better."""
    best = max(scores.values())
    return max(share for share, score in scores.items() if score >= best - TOLERANCE * abs(best))
