"""Matching of the connected components of two masks: lesions, or other separate parts of an organ.

Voxels that touch by a face, an edge or a corner belong to one component. A component of the prediction and one of the reference match if
their intersection over union is at least `MATCH_IOU`; each matches one at most, the best agreement first. A low threshold is usual, since
the question is whether a lesion was found, not how well it was outlined (Maier-Hein et al., Metrics reloaded, Nature Methods 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

MATCH_IOU = 0.1
"""Least intersection over union of two components that match."""


@dataclass(frozen=True)
class ComponentMatches:
    """The Dice of each match of two components, best first, and the number of components of both masks."""

    dice: tuple[float, ...]
    n_prediction: int
    n_reference: int


def match_components(reference: np.ndarray, prediction: np.ndarray, *, threshold: float = MATCH_IOU) -> ComponentMatches:
    """Matches the components of two masks, ``(Z, Y, X)`` or ``(Y, X)`` bool; `threshold` is above 0."""
    everywhere = np.ones((3,) * reference.ndim, bool)
    (true, n_true), (found, n_found) = (ndimage.label(mask, everywhere) for mask in (reference, prediction))
    both = (true > 0) & (found > 0)
    pairs, shared = np.unique(true[both].astype(np.int64) * (n_found + 1) + found[both], return_counts=True)
    true_sizes, found_sizes = np.bincount(true.ravel(), minlength=n_true + 1), np.bincount(found.ravel(), minlength=n_found + 1)
    rows, columns = pairs // (n_found + 1), pairs % (n_found + 1)
    total = true_sizes[rows] + found_sizes[columns]
    iou = shared / (total - shared)
    dice, used_rows, used_columns = [], set(), set()
    for index in np.lexsort((columns, rows, -iou)):
        if iou[index] >= threshold and rows[index] not in used_rows and columns[index] not in used_columns:
            used_rows.add(rows[index])
            used_columns.add(columns[index])
            dice.append(float(2 * shared[index] / total[index]))
    return ComponentMatches(tuple(dice), n_found, n_true)
