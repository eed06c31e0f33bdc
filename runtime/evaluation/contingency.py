"""Which true cell shares pixels with which predicted cell, and what went wrong with the rest.

Everything that compares two label images starts from this one sparse table. It knows nothing of
figures, files or models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Contingency:
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
    def of(cls, truth: Labels, predicted: Labels) -> Contingency:
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

        Above 0.5 that needs no search: a cell can have only one such partner [1]_. At exactly 0.5 it
        can have two, and only if they are its two halves, lying wholly inside it: 3|t ∩ p| ≥ |t| + |p|
        for both forces |p| = |t ∩ p| = |t| / 2. Such halves meet nothing else, so keeping any one of
        the two is already the largest matching, and both have the same IoU.

        Parameters
        ----------
        threshold
            0.5 or more: below, a matching would need a search.

        References
        ----------
        .. [1] Kirillov et al., "Panoptic Segmentation", CVPR 2019, section 4.1.
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
class Mistakes:
    """Cells without a partner at IoU ≥ 0.5, by what happened to them; "mostly" is half or more.

    A true cell counts once, under the first that applies; a predicted one only as spurious, the
    others being the other side of these mistakes.
    """

    #: True cells mostly inside a prediction that holds most of another true cell too.
    merged: int
    #: True cells that are not mostly covered by predictions.
    missed: int
    #: True cells with two or more predictions mostly inside.
    split: int
    #: True cells found in the right place, but with too different an outline.
    inexact: int
    #: Predicted cells that are mostly background.
    spurious: int

    @classmethod
    def of(cls, overlap: Contingency) -> Mistakes:
        """Sort the cells without a partner."""
        true, predicted, pixels = overlap.true, overlap.predicted, overlap.pixels
        cells_true, cells_pred = len(overlap.true_area), len(overlap.predicted_area)
        holds_true = 2 * pixels >= overlap.true_area[true]
        held = np.bincount(predicted[holds_true], minlength=cells_pred)
        inside_true = 2 * pixels >= overlap.predicted_area[predicted]
        unmatched = np.ones(cells_true, bool)
        unmatched[true[overlap.match(0.5)]] = False
        is_merged = np.bincount(true[holds_true & (held[predicted] > 1)], minlength=cells_true) > 0
        is_missed = 2 * np.bincount(true, pixels, minlength=cells_true) < overlap.true_area
        is_split = np.bincount(true[inside_true], minlength=cells_true) > 1
        # An IoU of 0.5 covers half of either partner: nothing spurious can be matched.
        is_spurious = 2 * np.bincount(predicted, pixels, minlength=cells_pred) < overlap.predicted_area
        return cls(
            merged=int((unmatched & is_merged).sum()),
            missed=int((unmatched & ~is_merged & is_missed).sum()),
            split=int((unmatched & ~is_merged & ~is_missed & is_split).sum()),
            inexact=int((unmatched & ~is_merged & ~is_missed & ~is_split).sum()),
            spurious=int(is_spurious.sum()),
        )
