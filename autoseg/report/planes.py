"""Slices with contours: the grey values as a small embedded picture, the contours as lines over it, both in mm, so proportions are true."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import numpy as np

from .content import CasePicture, Plane
from .markup import number, tag, text

LARGEST = 512
"""Pixels of the longer side of an embedded slice; finer ones are averaged down."""
LOSSLESS = 160 * 160
"""Slices of fewer pixels are embedded without loss: they are drawn much larger than they are."""
TOLERANCE = 0.12
"""How far a contour may be moved to need fewer points, pixels."""


def plane_svg(plane: Plane, colours: Mapping[str, str], about: str) -> str:
    """A slice as SVG: image, predicted organs (filled, solid outline), and the reference's outlines (dashed).

    Args:
        plane: To draw.
        colours: Organ to the CSS colour of it.
        about: What is to be seen, for those who cannot.
    """
    rows, columns = plane.grey.shape[:2]
    height, width = rows * plane.pixel[0], columns * plane.pixel[1]
    box = {"x": 0, "y": 0, "width": round(width, 2), "height": round(height, 2)}
    parts = [tag("image", href=embedded(plane.grey), preserveAspectRatio="none", **box)]
    for maps, kind in ((plane.prediction, "found"), (plane.reference, "truth")):
        for organ, mask in maps.items():
            outline = outlines(mask, plane.pixel)
            if outline:
                look = f"--organ:{colours[organ]}"
                if kind == "truth":  # white is lost on bright tissue without it
                    parts.append(tag("path", d=outline, class_="truth halo", vector_effect="non-scaling-stroke"))
                parts.append(tag("path", tag("title", text(organ)), d=outline, class_=kind, style=look, vector_effect="non-scaling-stroke"))
    return tag("svg", *parts, viewBox=f"0 0 {width:.2f} {height:.2f}", role="img", aria_label=about, class_="plane")


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
    kind, options = ("png", {"optimize": True}) if small.shape[0] * small.shape[1] < LOSSLESS else ("jpeg", {"quality": 82})
    coloured = small if small.ndim == 3 else np.repeat(small[..., None], 3, axis=2)
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(coloured), format=kind, pil_kwargs=options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _shrunk(grey: np.ndarray) -> np.ndarray:
    """At most `LARGEST` pixels a side, by averaging blocks; each axis by itself, as pixels need not be square."""
    for axis in (0, 1):
        factor = -(-grey.shape[axis] // LARGEST)
        if factor > 1:
            even = grey.shape[axis] // factor * factor
            taken = np.moveaxis(np.take(grey, range(even), axis=axis), axis, 0)
            means = taken.reshape(even // factor, factor, *taken.shape[1:]).mean(axis=1)
            grey = np.moveaxis(means, 0, axis).round().astype(np.uint8)
    return grey


def picture_figure(picture: CasePicture, colours: Mapping[str, str]) -> str:
    """A case: its planes side by side at one height, and the Dice of its organs below."""
    planes = []
    for plane in picture.planes:
        rows, columns = plane.grey.shape[:2]
        share = columns * plane.pixel[1] / (rows * plane.pixel[0])
        seen = ", ".join(sorted({*plane.reference, *plane.prediction})) or "no organ"
        about = f"{picture.case}, {plane.title}: {seen}; prediction filled, reference dashed"
        inner = plane_svg(plane, colours, about) + tag("span", text(plane.title), class_="plane-name")
        planes.append(tag("div", inner, class_="plane-box", style=f"--share:{share:.4f}"))
    chips = [
        tag("span", tag("i", style=f"background:{colours[organ]}"), text(f"{organ} "), tag("b", number(value)), class_="chip")
        for organ, value in picture.values.items()
    ]
    where = f"held out in fold {picture.fold}" if picture.fold else ""
    said = "; ".join(part for part in (where, picture.window) if part)
    head = tag("span", text(picture.why), class_="why") + tag("strong", text(picture.case))
    caption = tag("div", head, class_="case-name") + tag("div", tag("span", "Dice", class_="quiet"), *chips, class_="chips")
    caption += tag("div", text(said), class_="quiet") if said else ""
    return tag("figure", tag("div", *planes, class_="planes"), tag("figcaption", caption), class_="case")
