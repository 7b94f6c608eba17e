"""Target spacing, order of the axes, and the median shape of the cases at that spacing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..preprocessing.orientation import orientation_transform
from ..preprocessing.resampling import resampled_shape
from ..schema import CaseFingerprint

ANISOTROPY = 3.0
"""An axis this many times coarser (and with this many times fewer voxels) than the others makes a dataset anisotropic."""

NEVER_COARSER = 1e-5
"""Millimetres by which the worst axis stays above the others, so that the order of the axes does not depend on rounding."""


def common_orientation(cases: Sequence[CaseFingerprint]) -> str:
    """The orientation of most cases, of the first such case where several are equally frequent; empty where most have none."""
    return Counter(case.orientation for case in cases).most_common(1)[0][0]


def in_orientation(case: CaseFingerprint, orientation: str) -> CaseFingerprint:
    """Reorients the measurements of a case to `orientation`; unchanged where one of the two is empty."""
    if case.orientation in ("", orientation) or not orientation:
        return case
    order, _ = orientation_transform(case.orientation, orientation)
    shape, spacing = tuple(case.shape[axis] for axis in order), tuple(case.spacing[axis] for axis in order)
    return replace(case, shape=shape, spacing=spacing, lateral_axis=order.index(case.lateral_axis), orientation=orientation)


def target_spacing(median: Sequence[float], tenth: Sequence[float], shape: Sequence[float]) -> tuple[tuple[float, ...], str]:
    """Target spacing of the full-resolution configurations (nnU-Net's rule, Isensee et al. 2021).

    The median over the cases; but where one axis is much coarser than the others, the 10th percentile of that axis, so that the cases
    with thin slices do not lose most of their detail. 2D images always get the median.

    Args:
        median: Of the spacing over the cases, mm, array order.
        tenth: 10th percentile of the same.
        shape: Median shape over the cases after cropping, voxels.

    Returns:
        The spacing in mm, array order, and the reason.
    """
    target = [float(value) for value in median]
    worst, *others = transpose_order(target)
    coarsest_other = max(target[axis] for axis in others)
    few_voxels = shape[worst] * ANISOTROPY < min(shape[axis] for axis in others)
    if len(target) < 3 or not (target[worst] > ANISOTROPY * coarsest_other and few_voxels):
        return tuple(target), "median over the cases"
    target[worst] = float(tenth[worst]) if tenth[worst] >= coarsest_other else coarsest_other + NEVER_COARSER
    return tuple(target), (
        f"median over the cases; axis {worst} (median {median[worst]:g} mm) is more than {ANISOTROPY:g} times coarser than the others, "
        f"so there the 10th percentile, not finer than the others: {target[worst]:g} mm"
    )


def transpose_order(spacing: Sequence[float]) -> tuple[int, ...]:
    """Order of the axes, for `numpy.transpose`, in which the coarsest comes first (2D images stay as they are)."""
    worst = int(np.argmax(spacing)) if len(spacing) > 2 else 0
    return (worst, *(axis for axis in range(len(spacing)) if axis != worst))


def median_resampled_shape(cases: Sequence[CaseFingerprint], target: Sequence[float]) -> tuple[float, ...]:
    """Median over the cases of the shape at `target` (mm, file order); halves are possible with an even number of cases."""
    shapes = [resampled_shape(case.shape, case.spacing, target) for case in cases]
    return tuple(float(value) for value in np.median(np.array(shapes), axis=0))


def spacing_statistics(cases: Sequence[CaseFingerprint]) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Median spacing, its 10th percentile (mm) and the median shape after cropping (voxels), each per axis in file order."""
    median, tenth = np.percentile([case.spacing for case in cases], (50, 10), axis=0).tolist()
    shape = np.percentile([case.shape for case in cases], 50, axis=0).tolist()
    return tuple(median), tuple(tenth), tuple(shape)
