"""Scores of a case: all metrics of each organ, from voxel counts (`counts`) and from masks (`masks`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from scipy import ndimage

from ..data.labels import organ_mask
from ..data.tolerances import tolerance_of
from ..schema import Labels, Score
from .counts import ConfusionCounts, confusion, dice, iou, organ_counts
from .masks import TOLERANCE_MM, MaskPair, diagonal, grow_box
from .metrics import DEFAULT_METRICS, METRICS, Metric, find_metric, metric_function

Box = tuple[slice, ...]


def score_case(
    case: str,
    prediction: np.ndarray,
    reference: np.ndarray,
    labels: Labels,
    *,
    ignore: int | None = None,
    metrics: Sequence[str] | None = None,
    organs: Collection[str] | None = None,
    spacing_mm: Sequence[float] | None = None,
    tolerance_mm: float | Mapping[str, float] = TOLERANCE_MM,
) -> list[Score]:
    """Scores every organ of a case.

    Args:
        case: For the scores and for messages.
        prediction: ``(Z, Y, X)`` or ``(Y, X)``, *internal* values (`autoseg.schema.conventions`); `OUTSIDE` counts as background.
        reference: Same shape, internal values.
        labels: The organs; of regions each is the union of its members.
        ignore: Internal value of reference voxels to leave out; None means the dataset's own, `Labels.internal_ignore`. What is predicted
            there is left out of the masks as well.
        metrics: Names in `METRICS`, ``module:function`` or ``module:metric`` (`metrics.find_metric`); Dice and IoU are always there. None
            means `DEFAULT_METRICS`, of which only those that count voxels can be computed without a spacing.
        organs: Names of those that were annotated in the case; None means all. The others have no score.
        spacing_mm: Of the voxels, array order.
        tolerance_mm: For the metrics that count what lies within a tolerance: one number, or organ to number (others: `TOLERANCE_MM`).

    Returns:
        One score an organ, in the order of `Labels.names`.

    Raises:
        ValueError: Shapes differ, a map is not of integers or holds a value that the labels do not have, a metric is unknown, or one needs
            the spacing, which is not given or has another number of axes.
    """
    ignore = labels.internal_ignore if ignore is None else ignore
    n_values = max(len(labels.base_values), ignore or 0) + 1
    _check(case, prediction, reference, n_values)
    chosen_metrics = _wanted(case, metrics, spacing_mm, reference.shape)
    counts = confusion(prediction, reference, n_values, ignore=ignore)
    boxes = _boxes(prediction, reference, labels) if any(metric.needs == "masks" for metric in chosen_metrics.values()) else {}
    scores = []
    for index, organ in enumerate(labels.names):
        if organs is not None and organ not in organs:
            continue
        overlap = organ_counts(counts, labels.internal_members[index])
        evidence: dict[str, ConfusionCounts | MaskPair] = {"overlap": overlap}
        if boxes:
            true, found = (organ_mask(array[boxes[organ]], labels, index) for array in (reference, prediction))
            found &= True if ignore is None else reference[boxes[organ]] != ignore  # ignored voxels are in neither mask
            spacing = () if spacing_mm is None else tuple(float(value) for value in spacing_mm)
            tolerance = tolerance_of(organ, tolerance_mm, TOLERANCE_MM)
            evidence["masks"] = MaskPair(true, found, spacing, diagonal(reference.shape, spacing), tolerance)
        other = {name: float(metric_function(metric)(evidence[metric.needs])) for name, metric in chosen_metrics.items()}
        scores.append(Score(case, organ, dice(overlap), iou(overlap), overlap.n_prediction, overlap.n_reference, other))
    return scores


def _wanted(case: str, names: Sequence[str] | None, spacing_mm: Sequence[float] | None, shape: Sequence[int]) -> dict[str, Metric]:
    """The metrics to compute besides Dice and IoU."""
    if spacing_mm is not None and len(spacing_mm) != len(shape):
        raise ValueError(f"case {case}: expected a spacing for each axis of the shape {tuple(shape)}, found {tuple(spacing_mm)}")
    if names is None:
        names = [name for name in DEFAULT_METRICS if spacing_mm is not None or METRICS[name].needs == "overlap"]
    chosen = {name: find_metric(name) for name in names if name not in ("dice", "iou")}
    lacking = [name for name, metric in chosen.items() if metric.needs == "masks" and spacing_mm is None]
    if lacking:
        raise ValueError(
            f"case {case}: {', '.join(lacking)} cannot be computed without the spacing of the voxels, which nobody knows; expected it,"
            " or, of pictures, a file beside them that says it (docs/data.md), or the images of the dataset (-d)"
        )
    return chosen


def _boxes(prediction: np.ndarray, reference: np.ndarray, labels: Labels) -> dict[str, Box]:
    """Organ to the box that holds it in both maps and a voxel more where the image has one; an empty box where it is in neither."""
    found = [ndimage.find_objects(array, len(labels.base_values)) for array in (prediction, reference)]
    boxes = {}
    for organ, members in zip(labels.names, labels.internal_members, strict=True):
        parts = [some[member - 1] for some in found for member in members if some[member - 1] is not None]
        sides = [slice(min(one.start for one in along), max(one.stop for one in along)) for along in zip(*parts, strict=True)]
        boxes[organ] = grow_box(tuple(sides), reference.shape) if parts else (slice(0, 0),) * reference.ndim
    return boxes


def _check(case: str, prediction: np.ndarray, reference: np.ndarray, n_values: int) -> None:
    if prediction.shape != reference.shape:
        raise ValueError(f"case {case}: the prediction has shape {prediction.shape}, the reference {reference.shape}; expected the same")
    for what, array in (("prediction", prediction), ("reference", reference)):
        if array.dtype.kind not in "iu":
            raise ValueError(f"case {case}: the {what} has type {array.dtype}, expected integers")
        if array.size and array.max() >= n_values:
            raise ValueError(f"case {case}: the {what} holds the internal value {array.max()}, expected at most {n_values - 1}")
