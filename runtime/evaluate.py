"""How good is a segmentation: figures from pairs of instance label images.

A label image holds 0 for background and one number per cell; the numbers need not follow on. Two
things happen here. :func:`score` counts what one pair of images shows, and :func:`summarise` turns
the counts of many images into figures: *pooled* (all cells of all images in one ratio, so a crowded
image weighs more) and *per image* (the mean of each image's own figure).

With T true cells, P predicted cells and the intersection over union IoU(t, p) = |t ∩ p| / |t ∪ p|:

==================== =========================================================================
``ap50`` … ``ap95``   TP / (TP + FP + FN) at IoU ≥ 0.50, 0.55 … 0.95 [1]_
``ap_mean_50_90``     mean of the nine from ``ap50`` to ``ap90`` [1]_
``precision_object``  TP / (TP + FP) at IoU ≥ 0.5, of cells
``sensitivity_object`` TP / (TP + FN) at IoU ≥ 0.5, of cells
``pq``                panoptic quality: sum of the IoU of matches / (TP + FP/2 + FN/2) [2]_
``aji``               aggregated Jaccard index: sum over t of |t ∩ p(t)| / (sum over t of |t ∪ p(t)| + area of
                      the predictions that no t chose), p(t) being the prediction of highest IoU
                      with t; a t that meets none adds |t| below [3]_
``dice``              2 |T ∩ P| / (|T| + |P|) of foreground pixels [4]_
``iou``               |T ∩ P| / |T ∪ P| of foreground pixels [5]_
``precision``         |T ∩ P| / |P| of foreground pixels, as the MC-UNet paper reports it
``sensitivity``       |T ∩ P| / |T| of foreground pixels, likewise
``count_mae``         mean over images of | cells predicted − cells true |
==================== =========================================================================

**Matching** is one to one. Above an IoU of 0.5 that needs no search: a cell can have only one such
partner [2]_. At exactly 0.5 a cell can have two, and only if they are its two halves, lying wholly
inside it (3|t ∩ p| ≥ |t| + |p| for both forces |p| = |t ∩ p| = |t| / 2). Such halves meet nothing
else, so keeping any one of the two is already the largest matching, and both have the same IoU. PQ
is defined for IoU > 0.5; here it counts that boundary case as a match too, like AP.

**Nothing there**: an image without cells in which none is predicted scores 1; any other 0 / 0 is 0.

References
----------
.. [1] Schmidt et al., "Cell Detection with Star-convex Polygons", MICCAI 2018, section 3; the
   threshold series is that of the 2018 Data Science Bowl.
.. [2] Kirillov et al., "Panoptic Segmentation", CVPR 2019, eq. 1 and its proof of unique matching.
.. [3] Kumar et al., "A Dataset and a Technique for Generalized Nuclear Segmentation for
   Computational Pathology", IEEE TMI 36(7), 2017, algorithm 1.
.. [4] Dice, "Measures of the Amount of Ecologic Association Between Species", Ecology 26(3), 1945.
.. [5] Jaccard, "The Distribution of the Flora in the Alpine Zone", New Phytologist 11(2), 1912.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

#: IoU thresholds of average precision; quotients of integers, so that 7/10 reaches 0.70 exactly.
THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Which true cell shares how many pixels with which predicted cell: the sparse contingency table.

    Cells are counted from 0 in the order of their label numbers; background is left out.
    """

    #: Area of each true and each predicted cell in pixels, int64[T] and int64[P].
    true_area: NDArray[np.int64]
    predicted_area: NDArray[np.int64]
    #: The pairs that share pixels, sorted by true, then predicted cell: indices and pixels, int64[M].
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    pixels: NDArray[np.int64]
    #: Intersection over union of these pairs, float64[M].
    iou: NDArray[np.float64]

    @classmethod
    def of(cls, truth: Labels, predicted: Labels) -> Overlap:
        """Count the pixels that the cells of two label images share.

        Parameters
        ----------
        truth, predicted
            Label images of one shape, any integer type.

        Raises
        ------
        DataError
            Shapes differ, or an array is not an integer image.
        """
        for name, labels in (("true", truth), ("predicted", predicted)):
            if labels.dtype.kind not in "iu" or labels.ndim != 2:
                raise DataError(
                    f"{name} labels must be a two-dimensional integer image with one number per cell, "
                    f"found {labels.dtype} of shape {labels.shape}"
                )
        if truth.shape != predicted.shape:
            raise DataError(f"label images must be of one size, found {truth.shape} and {predicted.shape}")
        true_index, true_area = _consecutive(truth)
        predicted_index, predicted_area = _consecutive(predicted)
        both = (true_index >= 0) & (predicted_index >= 0)
        width = max(1, len(predicted_area))
        pair, pixels = np.unique(true_index[both] * width + predicted_index[both], return_counts=True)
        of_true, of_predicted = pair // width, pair % width
        iou = pixels / (true_area[of_true] + predicted_area[of_predicted] - pixels)
        return cls(true_area, predicted_area, of_true, of_predicted, pixels.astype(np.int64), iou)

    def match(self, threshold: float) -> NDArray[np.intp]:
        """Return the pairs of a largest one-to-one matching with IoU ≥ ``threshold``.

        Parameters
        ----------
        threshold
            0.5 or more: below, a matching would need a search (see the module).
        """
        if threshold < 0.5:
            raise ValueError(f"threshold must be at least 0.5, found {threshold}")
        pairs = np.flatnonzero(self.iou >= threshold)
        # At exactly 0.5 two halves may claim one cell, or one cell two halves: the first stays.
        for side in (self.true, self.predicted):
            _, first = np.unique(side[pairs], return_index=True)
            pairs = pairs[first]
        return pairs


def _consecutive(labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Renumber the cells of a label image from 0 and measure them; background becomes -1."""
    if labels.size == 0:
        return labels.astype(np.int64), np.zeros(0, np.int64)
    if labels.min() < 0:
        raise DataError(f"labels must be 0 or more, found {labels.min()}")
    if labels.max() > 2 * labels.size:  # too thinly numbered for a table: count through the sorted values
        values, dense = np.unique(labels, return_inverse=True)
        dense = dense.reshape(labels.shape) + int(values[0] > 0)
    else:
        dense = labels.astype(np.int64)
    area = np.bincount(dense.ravel())
    present = area > 0
    present[0] = False
    index = np.where(present, np.cumsum(present) - 1, -1)
    return index[dense], area[present]


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

    def __add__(self, other: Score) -> Score:
        """Pool two scores."""
        matched = tuple(a + b for a, b in zip(self.matched, other.matched, strict=True))
        rest = (field.name for field in fields(self) if field.name != "matched")
        summed: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in rest}
        return Score(matched=matched, **summed)

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
    overlap = Overlap.of(truth, predicted)
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
    )


def _aggregated_jaccard(overlap: Overlap) -> tuple[int, int]:
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
        ``images``, ``cells_true``, ``cells_pred``.

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
        | means
    )


def evaluate(pairs: Iterable[tuple[Labels, Labels]]) -> dict[str, float]:
    """Score pairs of (true, predicted) label images; see :func:`summarise` for the result."""
    return summarise([score(truth, predicted) for truth, predicted in pairs])
