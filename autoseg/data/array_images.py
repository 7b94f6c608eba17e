"""Arrays in memory as images, and what is made of them back in the arrays' own order of axes.

An array says nothing of its voxels, so something goes with it: their spacing in mm, for the axes ``(Z, Y, X)``, or, where its place in the
patient is known too, an affine matrix as nibabel and MONAI have it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..schema import Geometry, Image
from ..schema.values import check_spacing

LPS_OF_RAS = np.diag([-1.0, -1.0, 1.0])
"""nibabel's world axes grow to right, anterior, superior; ITK's to left, posterior, superior."""

PERPENDICULAR = 1e-3
"""Largest cosine between two axes of an affine that counts as none."""


def is_array_with_place(image: Any) -> bool:
    """Whether something is a pair of an array (of NumPy, torch ...) and what goes with it."""
    return isinstance(image, tuple) and len(image) == 2 and hasattr(image[0], "ndim") and hasattr(image[0], "shape")


def is_affine(place: Any) -> bool:
    """Whether what goes with an array is a matrix; otherwise it is the spacing."""
    return np.ndim(np.asarray(place)) == 2


def from_array(array: Any, place: Any) -> Image:
    """An image of an array, with channels in front where it has an axis more than space.

    Args:
        array: With a spacing ``(Z, Y, X)`` or ``(C, Z, Y, X)``, or ``(Y, X)`` or ``(C, Y, X)``; with an affine ``(X, Y, Z)`` or
            ``(C, X, Y, Z)``, as nibabel and MONAI have them.
        place: Spacing in mm, two or three numbers in the order of the array's axes; or an affine ``(4, 4)`` from the indices of the
            array's axes to mm, growing to right, anterior and superior.

    Raises:
        ValueError: Axes and spacing do not fit together, or an affine is sheared or flat.
    """
    try:
        values, numbers = np.asarray(array), np.asarray(place, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"image: expected an array and its spacing in mm, such as (2.5, 0.8, 0.8), found {place!r} with it") from error
    if numbers.ndim == 2:
        return _with_affine(values, numbers)
    if numbers.ndim != 1:
        raise ValueError(f"image: expected one spacing an axis in mm, such as (2.5, 0.8, 0.8), or an affine (4, 4), found {place!r}")
    dim = numbers.size
    check_spacing("image: spacing", numbers.tolist())
    values = _with_channels(values, dim, f"a spacing of {dim} numbers")
    geometry = Geometry(values.shape[1:], tuple(numbers.tolist()), (0.0,) * dim, tuple(np.eye(dim).ravel().tolist()), oriented=False)
    return Image(values.astype(np.float32), geometry)


def in_order_of_array(volume: np.ndarray, place: Any) -> np.ndarray:
    """What was made of such an image, ``(Z, Y, X)``, in the order of the array's axes."""
    return np.ascontiguousarray(volume.T) if is_affine(place) else volume


def _with_channels(values: np.ndarray, dim: int, given: str) -> np.ndarray:
    if values.ndim not in (dim, dim + 1):
        raise ValueError(f"image: expected {dim} or {dim + 1} axes (channels in front) for {given}, found shape {values.shape}")
    return values if values.ndim == dim + 1 else values[None]


def _with_affine(values: np.ndarray, affine: np.ndarray) -> Image:
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], (0, 0, 0, 1)):
        raise ValueError(f"image: expected an affine of four rows and columns, the last row 0 0 0 1, found {affine.tolist()}")
    values = _with_channels(values, 3, "an affine")
    columns = LPS_OF_RAS @ affine[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    check_spacing("image: affine: spacing", spacing.tolist())
    cosines = columns / spacing
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > PERPENDICULAR:
        raise ValueError(f"image: expected an affine with perpendicular axes, found {affine.tolist()}; resample the image first")
    origin = LPS_OF_RAS @ affine[:3, 3]
    turned = values.transpose(0, 3, 2, 1).astype(np.float32)
    direction = tuple(cosines.ravel().tolist())
    return Image(turned, Geometry(turned.shape[1:], tuple(spacing[::-1].tolist()), tuple(origin.tolist()), direction))
