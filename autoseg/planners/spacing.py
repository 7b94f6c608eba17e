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
        median: Median spacing over the cases, mm, array order.
        tenth: 10th percentile of the spacing over the cases, mm, array order.
        shape: Median shape over the cases after cropping, voxels.

    Returns:
        The spacing in mm, array order, and the reason.
    """
    target = [float(value) for value in median]
    why = "median over the cases"
    if len(target) < 3:
        return tuple(target), why
    worst = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != worst]
    coarsest_other = max(target[axis] for axis in others)
    few_voxels = shape[worst] * ANISOTROPY < min(shape[axis] for axis in others)
    if not (target[worst] > ANISOTROPY * coarsest_other and few_voxels):
        return tuple(target), why
    original = target[worst]
    target[worst] = float(tenth[worst])
    if target[worst] < coarsest_other:
        target[worst] = coarsest_other + NEVER_COARSER
    why = (
        f"median over the cases; axis {worst} (median {original:g} mm) is more than {ANISOTROPY:g} times coarser than the others, "
        f"so there the 10th percentile, not finer than the others: {target[worst]:g} mm"
    )
    return tuple(target), why


def transpose_order(spacing: Sequence[float]) -> tuple[int, ...]:
    """Order of the axes in which the coarsest comes first (2D images stay as they are).

    Args:
        spacing: Target spacing, mm, array order of the files.

    Returns:
        Indices for `numpy.transpose`.
    """
    axes = tuple(range(len(spacing)))
    if len(axes) < 3:
        return axes
    worst = int(np.argmax(spacing))
    return (worst, *(axis for axis in axes if axis != worst))


def median_resampled_shape(cases: Sequence[CaseFingerprint], target: Sequence[float]) -> tuple[float, ...]:
    """Median over the cases of the shape at `target` (mm, file order); halves are possible with an even number of cases."""
    shapes = [resampled_shape(case.shape, case.spacing, target) for case in cases]
    return tuple(float(value) for value in np.median(np.array(shapes), axis=0))


def spacing_statistics(cases: Sequence[CaseFingerprint]) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Median spacing, its 10th percentile (mm) and the median shape after cropping (voxels), each per axis in file order."""
    spacings = np.array([case.spacing for case in cases], dtype=float)
    shapes = np.array([case.shape for case in cases], dtype=float)
    columns = (np.percentile(spacings, 50, axis=0), np.percentile(spacings, 10, axis=0), np.percentile(shapes, 50, axis=0))
    median, tenth, shape = (tuple(float(value) for value in column) for column in columns)
    return median, tenth, shape
