"""Pictures for people: a segmentation over its image, and a training's curves. Drawn off screen; the file's ending says the format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..runtime.figures import new_figure, organ_colours

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

PLANES = ("axial", "coronal", "sagittal")
"""Name of the plane across each array axis of a volume stored head-to-foot, front-to-back, side-to-side."""

HEIGHT = 4.6
"""Inches of the first plane."""

LEGEND_CELL = (1.6, 0.22)
"""Inches that an organ's name takes in the legend."""


def overlay(
    image: np.ndarray,
    reference: np.ndarray | None,
    prediction: np.ndarray | None,
    spacing: Sequence[float],
    path: Path,
    names: Sequence[str],
    *,
    members: Sequence[Sequence[int]] | None = None,
    window: tuple[float, float] | None = None,
    box: Sequence[tuple[int, int]] | None = None,
) -> None:
    """Draws label maps over an image: three planes through the organs in true proportions; the prediction filled, the reference dashed.

    Args:
        image: ``(Z, Y, X)``, or ``(Y, X)`` for one plane. Z is drawn upwards.
        reference: Internal label values of the same shape (only positive ones are drawn), or None.
        prediction: The same, or None.
        spacing: mm, array order.
        path: The picture; its folder is made if missing.
        names: Organ of label 1, 2, ...
        members: Label values of each organ, where they are others than 1, 2, ...: regions have several, and share them.
        window: Intensities drawn black and white; None: `grey_window`.
        box: Part of the volume that is drawn, half open; None: all of it.

    Raises:
        ValueError: A label map's shape is not the image's.
    """
    members = members or [(value,) for value in range(1, len(names) + 1)]
    box = box or [(0, n) for n in image.shape]
    for what, labels in (("reference", reference), ("prediction", prediction)):
        if labels is not None and labels.shape != image.shape:
            raise ValueError(f"{path}: expected a {what} of shape {image.shape}, got {labels.shape}")
    maps = [labels for labels in (prediction, reference) if labels is not None]
    either = np.max(maps, axis=0) if maps else np.zeros(image.shape, np.int16)
    window, colours = window or grey_window(image, either > 0), organ_colours(len(names))
    axes_across = range(3) if image.ndim == 3 else [None]
    shown = tuple(stop - start for start, stop in box)
    sizes = [_extent(shown, spacing, axis) for axis in axes_across]
    width = max(4.0, sum(w for w, _ in sizes) * HEIGHT / sizes[0][1])
    organs = [(name, values, colour) for name, values, colour in zip(names, members, colours, strict=True)]
    handles = _handles(organs, maps, reference is not None and prediction is not None)
    fitting = max(1, min(len(handles), int(width / LEGEND_CELL[0])))
    below = 0.25 + LEGEND_CELL[1] * -(-len(handles) // fitting)
    figure = new_figure((width, HEIGHT + 0.35 + below))
    edges = {"left": 0.01, "right": 0.99, "top": 1 - 0.3 / (HEIGHT + 0.35 + below), "bottom": below / (HEIGHT + 0.35 + below)}
    grid = figure.add_gridspec(1, len(sizes), width_ratios=[w for w, _ in sizes], wspace=0.03, **edges)
    for column, axis in enumerate(axes_across):
        at = None if axis is None else best_slice(either, axis)
        plane = figure.add_subplot(grid[column])
        cut = [None if one is None else _cut(one, axis, at, box) for one in (image, prediction, reference)]
        _draw_plane(plane, cut, window, sizes[column], list(zip(members, colours, strict=True)))
        plane.set_title("" if axis is None else f"{PLANES[axis]} {at + 1} / {image.shape[axis]}", fontsize=10)
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=fitting, fontsize=9, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, facecolor="white")


def best_slice(labels: np.ndarray, axis: int) -> int:
    """Index along `axis` of the slice that shows most of all organs, each measured by its own largest slice; the middle if there are none.

    Args:
        labels: ``(Z, Y, X)``.
        axis: 0, 1 or 2.
    """
    score = np.zeros(labels.shape[axis])
    others = tuple(i for i in range(labels.ndim) if i != axis)
    for value in np.unique(labels[labels > 0]):
        area = (labels == value).sum(axis=others)
        score += area / area.max()
    return int(score.argmax()) if score.any() else labels.shape[axis] // 2


def grey_window(image: np.ndarray, foreground: np.ndarray) -> tuple[float, float]:
    """Intensities drawn black and white: around the organs' median, as wide as their upper half asks for.

    Only the upper half counts, as the lower one may hold air (stomach, lung) that would take the contrast from soft tissue.
    Without organs the whole image decides.
    """
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    values = image[foreground & np.isfinite(image)]
    if values.size:
        middle, bright = (float(value) for value in np.percentile(values, (50, 98)))
        low, high = middle - 4 * (bright - middle), middle + 2 * (bright - middle)
        low, high = max(low, float(finite.min())), min(high, float(finite.max()))
    else:
        low, high = (float(value) for value in np.percentile(finite, (1, 99.5)))
    return low, max(high, low + 1e-6)


def _extent(shape: tuple[int, ...], spacing: Sequence[float], axis: int | None) -> tuple[float, float]:
    """Width and height in mm of the plane across `axis`."""
    rest = [n * s for i, (n, s) in enumerate(zip(shape, spacing, strict=True)) if i != axis]
    return rest[1], rest[0]


def _cut(array: np.ndarray, axis: int | None, at: int | None, box: Sequence[tuple[int, int]]) -> np.ndarray:
    """The plane, rows from top to bottom: Z is turned round so that the head is up."""
    inside = tuple(slice(*span) for i, span in enumerate(box) if i != axis)
    if axis is None:
        return array[inside]
    plane = np.take(array, at, axis=axis)[inside]
    return plane if axis == 0 else plane[::-1]


def _draw_plane(
    plane: Axes,
    cut: Sequence[np.ndarray | None],
    window: tuple[float, float],
    size_mm: tuple[float, float],
    organs: Sequence[tuple[Sequence[int], tuple]],
) -> None:
    """Image, prediction and reference of one plane; of each organ its label values and its colour."""
    image, prediction, reference = cut
    extent = (0, size_mm[0], size_mm[1], 0)
    plane.imshow(image, cmap="gray", vmin=window[0], vmax=window[1], extent=extent, interpolation="bilinear", aspect="equal")
    rows, columns = image.shape
    x, y = (np.arange(columns) + 0.5) * size_mm[0] / columns, (np.arange(rows) + 0.5) * size_mm[1] / rows
    for values, colour in organs:
        for labels, style in ((prediction, "solid"), (reference, "dashed" if prediction is not None else "solid")):
            if labels is None or min(image.shape) < 2 or not np.isin(labels, values).any():
                continue
            mask = np.isin(labels, values).astype(float)
            if style == "solid":
                plane.contourf(x, y, mask, levels=[0.5, 1.5], colors=[colour], alpha=0.2)
            plane.contour(x, y, mask, levels=[0.5], colors=[colour if style == "solid" else "white"], linewidths=1.3, linestyles=style)
    plane.set_xticks([])
    plane.set_yticks([])


def _handles(organs: Sequence[tuple[str, Sequence[int], tuple]], maps: Sequence[np.ndarray], both: bool) -> list[Artist]:
    """What the legend lists: the organs that occur, and what the dashed line means."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    present = {int(value) for labels in maps for value in np.unique(labels)}
    handles: list[Artist] = [Patch(color=colour, label=name) for name, values, colour in organs if present.intersection(values)]
    if both:
        handles.append(Line2D([], [], color="black", linestyle="dashed", linewidth=1.3, label="reference (dashed)"))
    return handles
