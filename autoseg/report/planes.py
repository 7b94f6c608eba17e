"""Slices of a case for the report: grey values as an embedded picture, outlines as SVG paths over it, both in mm."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from .content import Plane

MAX_PIXELS = 512
"""Pixels of the longer side of an embedded slice; finer ones are averaged down."""
LOSSLESS_BELOW = 160 * 160
"""Slices of fewer pixels are embedded without loss: they are drawn much larger than they are."""
TOLERANCE = 0.12
"""How far a contour may be moved to need fewer points, pixels."""


def plane_view(case: str, plane: Plane) -> dict[str, Any]:
    """What the template of a slice needs: size in mm, embedded image, outlines of the organs, and a description in words."""
    rows, columns = plane.grey.shape[:2]
    height, width = rows * plane.pixel[0], columns * plane.pixel[1]
    seen = ", ".join(sorted({*plane.reference, *plane.prediction})) or "no organ"
    return {
        "title": plane.title,
        "edges": [(place, side) for place, side in zip(("top", "bottom", "left", "right"), plane.edges, strict=True) if side],
        "width": round(width, 2),
        "height": round(height, 2),
        "share": round(width / height, 4),
        "image": embedded(plane.grey),
        "prediction": _outlines_of(plane.prediction, plane.pixel),
        "reference": _outlines_of(plane.reference, plane.pixel),
        "label": f"{case}, {plane.title}: {seen}; prediction filled, reference dashed",
    }


def _outlines_of(masks: Mapping[str, np.ndarray], pixel: tuple[float, float]) -> dict[str, str]:
    return {organ: path for organ, mask in masks.items() if (path := outlines(mask, pixel))}


def outlines(mask: np.ndarray, pixel: tuple[float, float]) -> str:
    """The outlines of a mask as the ``d`` of an SVG path, mm; empty where the mask is.

    Args:
        mask: ``(rows, columns)`` bool.
        pixel: mm from row to row and from column to column.
    """
    from skimage.measure import approximate_polygon, find_contours

    pieces = []
    for contour in find_contours(np.pad(mask.astype(np.float32), 1), 0.5):
        points = approximate_polygon(contour, TOLERANCE) - 0.5  # the padding, and pixel centres lie half a pixel inside
        if len(points) > 2:
            x, y = points[:-1, 1] * pixel[1], points[:-1, 0] * pixel[0]
            pieces.append("M" + "L".join(f"{a:.4g} {b:.4g}" for a, b in zip(x, y, strict=True)) + "Z")
    return "".join(pieces)


def embedded(grey: np.ndarray) -> str:
    """A picture as a ``data:`` address: PNG where it is small, JPEG where it is large.

    Args:
        grey: ``(rows, columns)`` or ``(rows, columns, 3)`` uint8.
    """
    from matplotlib.image import imsave

    small = _shrunk(grey)
    kind, options = ("png", {"optimize": True}) if small.shape[0] * small.shape[1] < LOSSLESS_BELOW else ("jpeg", {"quality": 82})
    coloured = small if small.ndim == 3 else np.repeat(small[..., None], 3, axis=2)
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(coloured), format=kind, pil_kwargs=options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _shrunk(grey: np.ndarray) -> np.ndarray:
    """At most `MAX_PIXELS` pixels a side, by averaging blocks; each axis by itself, as pixels need not be square."""
    for axis in (0, 1):
        factor = -(-grey.shape[axis] // MAX_PIXELS)
        if factor > 1:
            even = grey.shape[axis] // factor * factor
            taken = np.moveaxis(np.take(grey, range(even), axis=axis), axis, 0)
            means = taken.reshape(even // factor, factor, *taken.shape[1:]).mean(axis=1)
            grey = np.moveaxis(means, 0, axis).round().astype(np.uint8)
    return grey
