"""Tables of scores: text with one line an organ, CSV with one line a case and organ."""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Mapping, Sequence

from ..data.tolerances import tolerance_of
from ..runtime.shown_text import spreadsheet_cell
from ..runtime.text_table import aligned, wrapped
from ..schema import Score
from .components import MATCH_IOU
from .counts import nan_mean
from .masks import TOLERANCE_MM
from .metrics import METRICS, Metric, find_metric, has_value, value_of
from .summaries import summary

DEFINITIONS = {
    "surface": "surface: distances between surface elements, weighted by their area, as in the package surface-distance",
    "border": "border: distances between border voxels, as in the CHAOS challenge (whose score uses them too)",
}
"""Second line of a column's title -> what it means."""

MEANS = "Means over the cases. A missed organ is as far away as the image is large."

ABSENT = "absent: cases without the organ in both, left out of the means"


SHOWN_METRICS = ("dice", "nsd_surface", "hd95_surface")
"""Columns of a table that is not asked for others: overlap, surfaces, and the distance of the worst of them."""


def table(
    scores: Sequence[Score],
    *,
    tolerance_mm: float | Mapping[str, float] | None = None,
    metrics: Sequence[str] | None = SHOWN_METRICS,
    width: int | None = None,
) -> str:
    """The means as text: one line an organ, the mean of the organs below, ``-`` where there is no value, and what the columns mean.

    Args:
        tolerance_mm: The one that the scores were made with, for the caption; None where it is not known.
        metrics: The columns, as far as the scores hold them; None: all that they hold, and the number of cases without the organ.
        width: Characters a line; None: `shown_width`.
    """
    summaries = summary(scores)
    held = list(dict.fromkeys(name for one in summaries.values() for name in one.means))
    shown = held if metrics is None else [name for name in metrics if name in held]
    columns = [_title(name) for name in shown]
    absent = ["absent"] if metrics is None or any(one.absent for one in summaries.values()) else []
    rows = [["organ", *(title for title, _, _ in columns), "cases", *absent, "worst case (Dice)"]]
    rows += [
        ["", *line, "", *("" for _ in absent), ""] for line in zip(*((unit, kind) for _, unit, kind in columns), strict=True) if any(line)
    ]
    for organ, one in summaries.items():
        numbers = [number(one.means.get(name, math.nan), name) for name in shown]
        worst = f"{number(one.worst, 'dice')} {one.worst_case}".strip()
        rows.append([organ, *numbers, str(one.cases), *(str(one.absent) for _ in absent), worst])
    if len(summaries) > 1:
        overall = [number(nan_mean(one.means.get(name, math.nan) for one in summaries.values()), name) for name in shown]
        rows.append(["mean of organs", *overall, "", *("" for _ in absent), ""])
    notes = [*caption(shown, list(summaries), tolerance_mm), *([ABSENT] if absent else [])]
    return "\n".join([aligned(rows, width), *(wrapped(line, width) for line in notes)])


def caption(metrics: Sequence[str], organs: Sequence[str], tolerance_mm: float | Mapping[str, float] | None) -> list[str]:
    """Lines that say how these metrics are defined; none where there is nothing to say."""
    known = {name: METRICS[name] for name in metrics if name in METRICS}
    kinds = {_title(name)[2] for name in known} | ({"border"} if "chaos" in known else set())
    lines = [text for kind, text in DEFINITIONS.items() if kind in kinds]
    if any(name.startswith("nsd_") for name in known) and tolerance_mm is not None:
        lines.append(f"NSD: share within {_tolerances(organs, tolerance_mm)}")
    if any(name.startswith("lesion_") for name in known):
        lines.append(f"lesions: components that touch by a corner at least; two match from an IoU of {MATCH_IOU:g} on")
    return [*lines, MEANS] if lines else []


def csv_text(scores: Mapping[str, Sequence[Score]]) -> str:
    """One line a case and organ with every metric, its unit in the header, for a spreadsheet; empty cells where there is no value.

    `scores` are those of each prediction by its name; the names are a column of their own where there are several.
    """
    everything = [(name, score) for name, some in scores.items() for score in some]
    metrics = list(dict.fromkeys(["dice", "iou", *(name for _, score in everything for name in score.other)]))
    several = ["prediction"] if len(scores) > 1 else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*several, "case", "organ", *map(with_unit, metrics), "n_prediction (voxels)", "n_reference (voxels)"])
    for name, score in everything:
        values = [value_of(score, metric) if has_value(score, metric) else math.nan for metric in metrics]
        cells = ["" if math.isnan(value) else repr(value) for value in values]
        names = map(spreadsheet_cell, [*([name] if several else []), score.case, score.organ])
        writer.writerow([*names, *cells, score.n_prediction, score.n_reference])
    return text.getvalue()


def number(value: float, metric: str) -> str:
    """A metric's value with as many digits as make sense; ``-`` for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if _metric(metric).unit or metric == "chaos" else f"{value:.4f}"


def with_unit(name: str) -> str:
    """A metric's name with its unit, if it has one."""
    unit = _metric(name).unit
    return f"{name} ({unit})" if unit else name


def _title(name: str) -> tuple[str, str, str]:
    """Title, unit and definition of a metric, for the lines of a table's head."""
    metric = _metric(name)
    title, _, kind = (metric.title or name).partition(" (")
    return title, metric.unit, kind.removesuffix(")")


def _metric(name: str) -> Metric:
    """The metric of a name; of one that is no longer known, as in old scores, one without a unit."""
    with contextlib.suppress(ValueError):
        return find_metric(name)
    return Metric("")


def _tolerances(organs: Sequence[str], tolerance_mm: float | Mapping[str, float]) -> str:
    """Such as ``1 mm (liver 3 mm)``."""
    each = {organ: tolerance_of(organ, tolerance_mm, TOLERANCE_MM) for organ in organs}
    default = tolerance_of("", tolerance_mm, TOLERANCE_MM)
    named = [f"{organ} {value:g} mm" for organ, value in each.items() if value != default]
    return f"{default:g} mm" + (f" ({', '.join(named)})" if named else "")
