"""How good is a segmentation: figures from pairs of instance label images.

A label image holds 0 for background and one number per cell; the numbers need not follow on. Two
things happen here. :func:`score` counts what one pair of images shows, and :func:`summarise` turns
the counts of many images into figures: *pooled* (all cells of all images in one ratio, so a crowded
image weighs more) and *per image* (the mean of each image's own figure).

With T true cells, P predicted cells and the intersection over union ``IoU(t, p) = |t ∩ p| / |t ∪ p|``:

====================== ========================================================================
``ap50`` … ``ap95``    TP / (TP + FP + FN) at IoU ≥ 0.50, 0.55 … 0.95 [1]_
``ap_mean_50_90``      mean of the nine from ``ap50`` to ``ap90`` [1]_
``precision_object``   TP / (TP + FP) at IoU ≥ 0.5, of cells
``sensitivity_object`` TP / (TP + FN) at IoU ≥ 0.5, of cells
``pq``                 panoptic quality: sum of the IoU of matches / (TP + FP/2 + FN/2) [2]_
``aji``                aggregated Jaccard index: sum over t of ``|t ∩ p(t)|``, divided by the sum over
                       t of ``|t ∪ p(t)|`` and the area of the predictions that no t chose, p(t)
                       being the prediction of highest IoU with t; a t that meets none adds ``|t|``
                       below [3]_
``dice``               ``2 |T ∩ P| / (|T| + |P|)`` of foreground pixels [4]_
``iou``                ``|T ∩ P| / |T ∪ P|`` of foreground pixels [5]_
``precision``          ``|T ∩ P| / |P|`` of foreground pixels, as the MC-UNet paper reports it
``sensitivity``        ``|T ∩ P| / |T|`` of foreground pixels, likewise
``count_mae``          mean over images of ``|cells predicted − cells true|``
====================== ========================================================================

``merged``, ``missed``, ``split``, ``inexact`` and ``spurious`` count the cells without a partner at
IoU 0.5 by what happened to them: see :class:`~cellseg.runtime.evaluation.contingency.Mistakes`. Matching is
one to one: see :meth:`Contingency.match <cellseg.runtime.evaluation.contingency.Contingency.match>`. PQ is
defined for IoU > 0.5; here, as in AP, an IoU of exactly 0.5 is a match too.

**Nothing there**: an image without cells in which none is predicted scores 1; any other 0 / 0 is 0.

References
----------
.. [1] Schmidt et al., "Cell Detection with Star-convex Polygons", MICCAI 2018, section 3; the
   threshold series is that of the 2018 Data Science Bowl.
.. [2] Kirillov et al., "Panoptic Segmentation", CVPR 2019, eq. 1.
.. [3] Kumar et al., "A Dataset and a Technique for Generalized Nuclear Segmentation for
   Computational Pathology", IEEE TMI 36(7), 2017, algorithm 1.
.. [4] Dice, "Measures of the Amount of Ecologic Association Between Species", Ecology 26(3), 1945.
.. [5] Jaccard, "The Distribution of the Flora in the Alpine Zone", New Phytologist 11(2), 1912.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from ..errors import DataError
from .contingency import Contingency, Labels, Mistakes

#: IoU thresholds of average precision; quotients of integers, so that 7/10 reaches 0.70 exactly.
THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))


@dataclass(frozen=True, slots=True)
class Score:
    """What one image, or several taken together, shows: counts that add up."""

    images: int
    #: Cells in truth and prediction, and the sum over images of the absolute difference.
    cells_true: int
    cells_pred: int
    count_error: int
    #: Matched cells at each of :data:`THRESHOLDS`.
    matched: tuple[int, ...]
    #: Sum of the IoU of the matches at 0.5.
    matched_iou: float
    #: Numerator and denominator of the aggregated Jaccard index in pixels.
    aji_intersection: int
    aji_union: int
    #: Foreground pixels in truth, in prediction, in both.
    pixels_true: int
    pixels_pred: int
    pixels_both: int
    #: Cells without a partner, by what happened to them.
    mistakes: Mistakes

    def __add__(self, other: Score) -> Score:
        """Pool two scores."""
        matched = tuple(a + b for a, b in zip(self.matched, other.matched, strict=True))
        mistakes = Mistakes(**_sums(self.mistakes, other.mistakes))
        return Score(**_sums(self, other) | {"matched": matched, "mistakes": mistakes})

    def figures(self) -> dict[str, float]:
        """Return the figures of the module's table, except ``count_mae``'s mean over images."""
        cells = self.cells_true + self.cells_pred
        pixels = self.pixels_true + self.pixels_pred
        nothing = cells == 0

        def ratio(numerator: float, denominator: float) -> float:
            if denominator:
                return numerator / denominator
            return 1.0 if nothing else 0.0

        precision = [ratio(matched, cells - matched) for matched in self.matched]
        figures = {f"ap{round(100 * t)}": value for t, value in zip(THRESHOLDS, precision, strict=True)}
        upto_90 = [figures[f"ap{percent}"] for percent in range(50, 95, 5)]
        return figures | {
            "ap_mean_50_90": sum(upto_90) / len(upto_90),
            "precision_object": ratio(self.matched[0], self.cells_pred),
            "sensitivity_object": ratio(self.matched[0], self.cells_true),
            "pq": ratio(self.matched_iou, cells / 2),
            "aji": ratio(self.aji_intersection, self.aji_union),
            "dice": ratio(2 * self.pixels_both, pixels),
            "iou": ratio(self.pixels_both, pixels - self.pixels_both),
            "precision": ratio(self.pixels_both, self.pixels_pred),
            "sensitivity": ratio(self.pixels_both, self.pixels_true),
        }


def _sums(one: Score | Mistakes, other: Score | Mistakes) -> dict[str, Any]:
    """Add two records field by field, those that are numbers."""
    names = [field.name for field in fields(one) if field.name not in ("matched", "mistakes")]
    return {name: getattr(one, name) + getattr(other, name) for name in names}


def score(truth: Labels, predicted: Labels) -> Score:
    """Count how a predicted label image agrees with the true one.

    Parameters
    ----------
    truth, predicted
        Label images of one shape, any integer type; 0 is background.

    Raises
    ------
    DataError
        Shapes differ, or an array is not an integer image.
    """
    overlap = Contingency.of(truth, predicted)
    matches = [overlap.match(threshold) for threshold in THRESHOLDS]
    aji_intersection, aji_union = _aggregated_jaccard(overlap)
    cells_true, cells_pred = len(overlap.true_area), len(overlap.predicted_area)
    return Score(
        images=1,
        cells_true=cells_true,
        cells_pred=cells_pred,
        count_error=abs(cells_pred - cells_true),
        matched=tuple(len(match) for match in matches),
        matched_iou=float(overlap.iou[matches[0]].sum()),
        aji_intersection=aji_intersection,
        aji_union=aji_union,
        pixels_true=int(overlap.true_area.sum()),
        pixels_pred=int(overlap.predicted_area.sum()),
        pixels_both=int(overlap.pixels.sum()),
        mistakes=Mistakes.of(overlap),
    )


def _aggregated_jaccard(overlap: Contingency) -> tuple[int, int]:
    """Numerator and denominator of the aggregated Jaccard index, in pixels."""
    # Best pair of each true cell: the last by IoU within it, ties to the lower predicted number.
    order = np.lexsort((-overlap.predicted, overlap.iou, overlap.true))
    last = np.flatnonzero(np.diff(overlap.true[order], append=-1))
    best = order[last]
    chosen = np.zeros(len(overlap.predicted_area), bool)
    chosen[overlap.predicted[best]] = True
    intersection = int(overlap.pixels[best].sum())
    # |t ∪ p| = |t| + |p| − |t ∩ p|; a cell that meets no prediction adds only |t|.
    union = (
        int(overlap.true_area.sum() + overlap.predicted_area[overlap.predicted[best]].sum()) - intersection
    )
    return intersection, union + int(overlap.predicted_area[~chosen].sum())


def summarise(scores: Sequence[Score]) -> dict[str, float]:
    """Turn the scores of single images into figures.

    Parameters
    ----------
    scores
        One for each image, at least one.

    Returns
    -------
    dict
        The pooled figures of the module's table, each also as ``NAME_per_image``; ``count_mae``;
        ``images``, ``cells_true``, ``cells_pred``; the mistakes.

    Raises
    ------
    DataError
        There are no scores.
    """
    if not scores:
        raise DataError("there is no image to score")
    pooled = scores[0]
    for each in scores[1:]:
        pooled += each
    single = [each.figures() for each in scores]
    figures = pooled.figures()
    means = {f"{name}_per_image": sum(each[name] for each in single) / len(single) for name in figures}
    return (
        {"images": pooled.images, "cells_true": pooled.cells_true, "cells_pred": pooled.cells_pred}
        | figures
        | {"count_mae": pooled.count_error / pooled.images}
        | asdict(pooled.mistakes)
        | means
    )


def evaluate(pairs: Iterable[tuple[Labels, Labels]]) -> dict[str, float]:
    """Score pairs of (true, predicted) label images; see :func:`summarise` for the result."""
    return summarise([score(truth, predicted) for truth, predicted in pairs])
