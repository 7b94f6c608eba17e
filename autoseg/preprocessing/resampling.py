"""Resampling to another spacing, with the values of `skimage.transform.resize` at a fraction of its time.

Spline interpolation on a regular grid is linear and separable: along one axis it is a matrix of ``n_out x n_in`` whose entries fade away
from the diagonal. The matrix is measured once by resizing the identity, and applied axis by axis in blocks of rows with only the columns
that matter, so the work is a few small matrix products. Where one axis is much coarser than the others (`separate_z_axis`), slices are
interpolated in their plane only and the nearest slice is taken along that axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

SEPARATE_Z_RATIO = 3.0
"""Coarsest over finest spacing above which slices are not mixed."""

BLOCK = 64
"""Output voxels along the axis per matrix product."""

SMALLEST_WEIGHT = 1e-7
"""Entries of the matrices below this (relative to a sum of 1) are left out: float32 would not see them."""

TIE = 1e-6
"""Shares of a voxel closer than this are equal: the difference is rounding."""


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]) -> tuple[int, ...]:
    """Voxels an axis that cover the same extent at `new_spacing`; at least one."""
    return tuple(max(1, int(round(old / new * n))) for n, old, new in zip(shape, spacing, new_spacing, strict=True))


def axis_coordinates(n_in: int, n_out: int) -> np.ndarray:
    """Centres of `n_out` voxels among `n_in` voxels of the same extent: ``(n_out,)`` float64, clamped to the first and last."""
    scale = float(n_in) / n_out
    return np.clip(scale * (np.arange(n_out) + 0.5) - 0.5, 0, n_in - 1)


def nearest_indices(n_in: int, n_out: int) -> np.ndarray:
    """Index of the nearest of `n_in` voxels for each of `n_out`, ``(n_out,)`` integers; a tie goes to the later."""
    return np.minimum(np.floor(axis_coordinates(n_in, n_out) + 0.5).astype(np.int64), n_in - 1)


def separate_z_axis(spacing: Sequence[float], new_spacing: Sequence[float]) -> int | None:
    """The axis along which slices are not mixed, or None.

    It is the coarsest axis of the current spacing if that is anisotropic beyond `SEPARATE_Z_RATIO`, else of the new spacing if that is;
    none where several axes tie for the coarsest. Images of two axes are one slice: axis 0 of ``(1, Y, X)``.
    """
    if len(spacing) == 2:
        return 0
    for candidate in (spacing, new_spacing):
        if max(candidate) / min(candidate) > SEPARATE_Z_RATIO:
            coarsest = [axis for axis, value in enumerate(candidate) if value == max(candidate)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def resample_image(
    array: np.ndarray, new_shape: Sequence[int], *, spacing: Sequence[float], new_spacing: Sequence[float], order: int = 3
) -> np.ndarray:
    """Resizes every channel; no value leaves the range of the channel (with separate slices: of the slice).

    Args:
        array: ``(C, Z, Y, X)``.
        new_shape: Of the three spatial axes.
        spacing: Of `array`, mm, two numbers for one slice of a 2D image; with `new_spacing` it decides on `separate_z_axis`.
        new_spacing: Of the result, mm.
        order: Of the spline, 1 or 3.

    Returns:
        ``(C, *new_shape)`` float32.
    """
    shape = array.shape[1:]
    if tuple(new_shape) == shape:
        return array.astype(np.float32)
    z = separate_z_axis(spacing, new_spacing)
    before, after = _nearest_slices(shape, new_shape, z)
    operators = [None if axis == z else axis_operator(n, m, order) for axis, (n, m) in enumerate(zip(shape, new_shape, strict=True))]
    result = np.empty((array.shape[0], *new_shape), np.float32)
    for channel, source in zip(result, array, strict=True):
        volume = _take(source.astype(np.float32, copy=False), before, z)
        plane = tuple(axis for axis in range(3) if axis != z)
        low, high = volume.min(axis=plane, keepdims=True), volume.max(axis=plane, keepdims=True)
        volume = np.clip(_apply(volume, operators), low, high)
        channel[...] = _take(volume, after, z)
    return result


def resample_labels(
    array: np.ndarray, new_shape: Sequence[int], *, spacing: Sequence[float] | None = None, new_spacing: Sequence[float] | None = None
) -> np.ndarray:
    """Resizes a label map ``(Z, Y, X)``: every label's mask linearly, each voxel to the label with the largest share of it.

    Where labels tie, the label of the nearest voxel decides, else the lowest. Each label is handled within its own bounding box, which
    changes nothing and saves the time and memory of many organs; the share of label 0 is what the others leave. Spacings are as in
    `resample_image`; without them slices are mixed along every axis.
    """
    if tuple(new_shape) == array.shape:
        return array.copy()
    z = None if spacing is None or new_spacing is None else separate_z_axis(spacing, new_spacing)
    before, after = _nearest_slices(array.shape, new_shape, z)
    array = _take(array, before, z)
    shape = [array.shape[axis] if axis == z else n for axis, n in enumerate(new_shape)]
    operators = [None if axis == z else axis_operator(n, m, 1) for axis, (n, m) in enumerate(zip(array.shape, shape, strict=True))]
    nearest = array[np.ix_(*(nearest_indices(n, m) for n, m in zip(array.shape, shape, strict=True)))]
    result = _largest_share(array, nearest, operators)
    return _take(result, after, z)


def _nearest_slices(shape: Sequence[int], new_shape: Sequence[int], z: int | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Slices to take before and after the interpolation in their plane, whichever leaves fewer to interpolate; None takes all."""
    if z is None:
        return None, None
    slices = nearest_indices(shape[z], new_shape[z])
    return (slices, None) if len(slices) < shape[z] else (None, slices)


def _take(array: np.ndarray, slices: np.ndarray | None, axis: int | None) -> np.ndarray:
    return array if slices is None else np.take(array, slices, axis=axis)


def _largest_share(array: np.ndarray, nearest: np.ndarray, operators: Sequence[np.ndarray | None]) -> np.ndarray:
    """The label with the largest linearly interpolated share of each voxel, `nearest` where labels tie."""
    best = np.zeros(nearest.shape, np.float32)
    rest = np.ones(nearest.shape, np.float32)
    result = np.zeros_like(nearest)
    lowest = int(array.min())
    for index, box in enumerate(ndimage.find_objects(array.astype(np.int32) - (lowest - 1))):
        label = lowest + index
        target = None if box is None or label == 0 else _target_box(box, operators)
        if target is None:
            continue
        parts = [operator if operator is None else operator[to, of] for operator, to, of in zip(operators, target, box, strict=True)]
        share = _apply((array[box] == label).astype(np.float32), parts)
        rest[target] -= share
        _claim(label, share, best[target], result[target], nearest[target])
    _claim(0, rest, best, result, nearest)
    return result


def _target_box(box: tuple[slice, ...], operators: Sequence[np.ndarray | None]) -> tuple[slice, ...] | None:
    """The box of the result that the voxels of `box` reach; None where it is empty."""
    target = []
    for of, operator in zip(box, operators, strict=True):
        if operator is None:
            target.append(of)
            continue
        rows = np.flatnonzero(operator[:, of].any(axis=1))
        if not len(rows):
            return None
        target.append(slice(int(rows[0]), int(rows[-1]) + 1))
    return tuple(target)


def _claim(label: int, share: np.ndarray, best: np.ndarray, result: np.ndarray, nearest: np.ndarray) -> None:
    """Gives `label` the voxels where its share beats the best so far, or equals it and the nearest voxel has that label (in place)."""
    won = (share > best + TIE) | ((nearest == label) & (share > best - TIE) & (share > TIE))
    result[won] = label
    best[won] = share[won]


def axis_operator(n_in: int, n_out: int, order: int) -> np.ndarray | None:
    """The resizing of a line of `n_in` voxels to `n_out` as a matrix ``(n_out, n_in)`` float32, or None where nothing changes."""
    if n_in == n_out:
        return None
    if n_in == 1:
        return np.ones((n_out, 1), np.float32)
    from skimage.transform import resize  # takes a while to load, and images with the planned spacing need none

    identity = np.eye(n_in)
    matrix = resize(identity, (n_out, n_in), order, mode="edge", clip=False, anti_aliasing=False)
    matrix[np.abs(matrix) < SMALLEST_WEIGHT] = 0
    return matrix.astype(np.float32)


def _apply(volume: np.ndarray, operators: Sequence[np.ndarray | None]) -> np.ndarray:
    """Applies one matrix an axis to ``(Z, Y, X)``, those first that shrink it most."""
    growths = [(operator.shape[0] / operator.shape[1], axis, operator) for axis, operator in enumerate(operators) if operator is not None]
    for _, axis, operator in sorted(growths, key=lambda growth: growth[:2]):
        volume = _apply_along(volume, operator, axis)
    return volume


def _apply_along(volume: np.ndarray, operator: np.ndarray, axis: int) -> np.ndarray:
    shape = list(volume.shape)
    shape[axis] = operator.shape[0]
    result = np.empty(shape, np.float32)
    for start in range(0, operator.shape[0], BLOCK):
        rows = operator[start : start + BLOCK]
        used = np.flatnonzero(rows.any(axis=0))
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        weights = np.ascontiguousarray(rows[:, first:last])
        if axis == 0:
            flat = volume[first:last].reshape(last - first, -1)
            np.matmul(weights, flat, out=result[start : start + BLOCK].reshape(len(rows), -1))
        elif axis == 1:
            result[:, start : start + BLOCK] = np.matmul(weights, volume[:, first:last])
        else:
            result[..., start : start + BLOCK] = np.matmul(volume[..., first:last], weights.T)
    return result
