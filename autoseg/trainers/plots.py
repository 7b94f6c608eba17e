"""Figures of a training: learning curves, and recall by the radius of a candidate region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..runtime.plotting import new_figure, organ_colours
from ..runtime.shown_text import figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .cascade.candidate_region import RadiusRow


def plot_history(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Plots a training: losses, Dice of held-out cases, and the learning rate, over its validation intervals.

    Args:
        rows: One a validation interval. Plotted are columns with ``loss`` in their name, ``mean_dice``, ``dice_<organ>`` and
            ``learning_rate``.

    Raises:
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError(f"{path}: expected at least one validation interval to plot, got none")
    keys = list(dict.fromkeys(key for row in rows for key in row))
    organs = [key for key in keys if key.startswith("dice_")]
    panels = (("loss", [k for k in keys if "loss" in k]), ("Dice", [*organs, "mean_dice"]), ("learning rate", ["learning_rate"]))
    figure = new_figure((8, 8))
    for position, (title, columns) in enumerate(panels, start=1):
        panel = figure.add_subplot(3, 1, position)
        _draw_curves(panel, rows, [key for key in columns if key in keys], dict(zip(organs, organ_colours(len(organs)), strict=True)))
        panel.set_ylabel(title)
    panel.set_xlabel("validation interval")
    figure.tight_layout()
    figure.savefig(path, dpi=100, facecolor="white")


def plot_recall(rows: Sequence[RadiusRow], names: Sequence[str], chosen: int, path: Path) -> None:
    """Plots recall and false-positive rate of a candidate region against its radius.

    Args:
        chosen: The radius that was taken, marked by a line.
    """
    figure = new_figure((7, 6))
    radii = [row.radius for row in rows]
    recall, false = figure.add_subplot(2, 1, 1), figure.add_subplot(2, 1, 2)
    for index, (name, colour) in enumerate(zip(names, organ_colours(len(names)), strict=True)):
        recall.plot(radii, [row.organs[index] for row in rows], color=colour, linewidth=1.2, label=figure_text(name))
    recall.plot(radii, [row.recall for row in rows], color="#1f4e8c", linewidth=2.2, label="mean")
    recall.plot(radii, [row.worst_recall for row in rows], color="#1f4e8c", linestyle="dotted", label="worst case")
    false.plot(radii, [row.false_positive_rate for row in rows], color="#d1495b", linewidth=2.2)
    for panel, title in ((recall, "recall"), (false, "false-positive rate")):
        panel.axvline(chosen, color="#888888", linestyle="dashed", linewidth=1)
        panel.set_ylabel(title)
        panel.grid(alpha=0.3)
    recall.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    false.set_xlabel("radius, voxels")
    figure.tight_layout()
    figure.savefig(path, dpi=100, facecolor="white")


def _draw_curves(panel: Axes, rows: Sequence[Mapping[str, float]], columns: Sequence[str], colours: Mapping[str, tuple]) -> None:
    intervals = [row.get("validation_interval", i) for i, row in enumerate(rows, start=1)]
    others = iter(("#1f4e8c", "#d1495b", "#444444", "#888888"))
    for key in columns:
        values = [row.get(key, np.nan) for row in rows]
        is_organ = key in colours
        colour = colours[key] if is_organ else next(others, "#bbbbbb")
        label = figure_text(key.removeprefix("dice_").replace("_", " "))
        marker, width = "o" if len(rows) < 3 else None, 1.2 if is_organ else 2.2
        panel.plot(intervals, values, color=colour, linewidth=width, label=label, marker=marker)
    if any(key.endswith("dice") or key in colours for key in columns):
        panel.set_ylim(0, 1)
    if len(columns) > 1:
        panel.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    panel.grid(alpha=0.3)
    panel.margins(x=0.01)
