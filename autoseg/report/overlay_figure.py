"""Overlays of label maps on an image as pictures: three planes through the organs. The file's ending decides the format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..runtime.plotting import new_figure, organ_colours
from ..runtime.shown_text import figure_text
from .directions import Directions
from .views import UNKNOWN, Cut, best_cut, grey_window

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

RADIOLOGICAL = "radiological view: the patient's right (R) is on the left"
"""Said beside the letters at the edges."""

HEIGHT = 4.6
"""Inches of the first plane."""

LEGEND_CELL = (1.6, 0.22)
"""Inches that an organ's name takes in the legend."""


class Organ(NamedTuple):
    """An organ's name, its label values and its colour."""

    name: str
    label_values: Sequence[int]
    colour: tuple[float, float, float]


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
    directions: Directions = UNKNOWN,
    case: str = "",
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
        directions: Of the volume's axes in the patient, for the letters at the planes' edges.
        case: Its name, above the planes.

    Raises:
        ValueError: A label map's shape is not the image's.
    """
    members = members or [(value,) for value in range(1, len(names) + 1)]
    for kind, labels in (("reference", reference), ("prediction", prediction)):
        if labels is not None and labels.shape != image.shape:
            raise ValueError(f"{path}: expected a {kind} of shape {image.shape}, got {labels.shape}")
    maps = [labels for labels in (prediction, reference) if labels is not None]
    either = np.max(maps, axis=0) if maps else np.zeros(image.shape, np.int16)
    window = window or grey_window(image, either > 0)
    box = tuple(box or [(0, n) for n in image.shape])
    planes = [best_cut(either, axis, spacing, box, directions) for axis in (range(3) if image.ndim == 3 else [None])]
    organs = [Organ(*values) for values in zip(names, members, organ_colours(len(names)), strict=True)]
    drawn = {
        kind: [cut.of(one) for cut in planes] for kind, one in (("prediction", prediction), ("reference", reference)) if one is not None
    }
    handles = _legend_handles(organs, drawn)
    figure, grid = _laid_out(planes, handles, case)
    for column, cut in enumerate(planes):
        axes = figure.add_subplot(grid[column])
        label_planes = [drawn[kind][column] if kind in drawn else None for kind in ("prediction", "reference")]
        _draw_plane(axes, cut.of(image), label_planes, window, cut.size_mm, organs)
        axes.set_title(cut.title.replace(", ", "\n"), fontsize=9)
        _draw_edges(axes, cut.edges)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, facecolor="white")


def _laid_out(planes: Sequence[Cut], handles: Sequence[Artist], case: str) -> tuple[Figure, GridSpec]:
    """A figure with the case's name, the convention and the legend, and a grid with a cell for each plane."""
    width = max(4.0, sum(cut.size_mm[1] for cut in planes) * HEIGHT / planes[0].size_mm[0])
    columns = max(1, min(len(handles), int(width / LEGEND_CELL[0])))
    above, below = _head_lines(case, planes) * 0.2 + 0.1, 0.25 + LEGEND_CELL[1] * -(-len(handles) // columns)
    height = HEIGHT + 0.05 + above + below
    figure = new_figure((width, height))
    edges = {"left": 0.01, "right": 0.99, "top": 1 - above / height, "bottom": below / height}
    if case:
        figure.text(0.01, 1 - 0.06 / height, figure_text(case), ha="left", va="top", fontsize=10, fontweight="bold")
    if any(any(cut.edges) for cut in planes):
        figure.text(0.99, 1 - 0.06 / height, RADIOLOGICAL, ha="right", va="top", fontsize=8, color="0.35")
    if handles:
        figure.legend(handles=list(handles), loc="lower center", ncols=columns, fontsize=9, frameon=False)
    return figure, figure.add_gridspec(1, len(planes), width_ratios=[cut.size_mm[1] for cut in planes], wspace=0.03, **edges)


def _head_lines(case: str, planes: Sequence[Cut]) -> int:
    """Lines of text above the planes: case and convention, the planes' names, where they lie."""
    titles = max(cut.title.count(", ") + bool(cut.title) for cut in planes)
    return titles + bool(case or any(any(cut.edges) for cut in planes))


def _draw_edges(axes: Axes, edges: Sequence[str]) -> None:
    """Writes the patient's sides at the edges of a plane: top, bottom, left, right."""
    from matplotlib.patheffects import withStroke

    places = (
        (0.5, 0.985, "center", "top"),
        (0.5, 0.015, "center", "bottom"),
        (0.012, 0.5, "left", "center"),
        (0.988, 0.5, "right", "center"),
    )
    for side, (x, y, horizontal, vertical) in zip(edges, places, strict=True):
        outline = [withStroke(linewidth=2, foreground="black")]
        axes.text(
            *(x, y, side),
            transform=axes.transAxes,
            ha=horizontal,
            va=vertical,
            fontsize=10,
            color="white",
            path_effects=outline,
            clip_on=True,
        )


def _draw_plane(
    axes: Axes,
    image: np.ndarray,
    label_planes: Sequence[np.ndarray | None],
    window: tuple[float, float],
    size_mm: tuple[float, float],
    organs: Sequence[Organ],
) -> None:
    """Draws the image, and over it prediction and reference."""
    height, width = size_mm
    prediction, reference = label_planes
    extent = (0, width, height, 0)
    axes.imshow(image, cmap="gray", vmin=window[0], vmax=window[1], extent=extent, interpolation="bilinear", aspect="equal")
    rows, columns = image.shape
    x, y = (np.arange(columns) + 0.5) * width / columns, (np.arange(rows) + 0.5) * height / rows
    for organ in organs:
        for labels, style in ((prediction, "solid"), (reference, "dashed" if prediction is not None else "solid")):
            if labels is None or min(image.shape) < 2 or not np.isin(labels, organ.label_values).any():
                continue
            mask, colour = np.isin(labels, organ.label_values).astype(float), organ.colour
            if style == "solid":
                axes.contourf(x, y, mask, levels=[0.5, 1.5], colors=[colour], alpha=0.2)
            axes.contour(x, y, mask, levels=[0.5], colors=[colour if style == "solid" else "white"], linewidths=1.3, linestyles=style)
    axes.set_xticks([])
    axes.set_yticks([])


def _legend_handles(organs: Sequence[Organ], drawn: Mapping[str, Sequence[np.ndarray]]) -> list[Artist]:
    """The entries of the legend: the organs in the planes that are drawn, and the dashed line of a reference beside a prediction.

    `drawn`: ``prediction`` and ``reference`` to their planes, those that there are.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    values = {kind: {int(value) for plane in planes for value in np.unique(plane)} for kind, planes in drawn.items()}
    present = set[int]().union(*values.values())
    handles: list[Artist] = [
        Patch(color=organ.colour, label=figure_text(organ.name)) for organ in organs if present.intersection(organ.label_values)
    ]
    if "prediction" in drawn and any(value > 0 for value in values.get("reference", ())):
        handles.append(Line2D([], [], color="black", linestyle="dashed", linewidth=1.3, label="reference (dashed)"))
    return handles
