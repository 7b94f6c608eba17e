"""Table of metrics. A new one: write a function of `ConfusionCounts` or of a `MaskPair`, add its line here; contract tests include it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..runtime.registry import import_object, lookup, unknown_name_error
from ..schema import Score


@dataclass(frozen=True)
class Metric:
    """A metric of the agreement of prediction and reference.

    Attributes:
        function: ``module:function`` of ``(ConfusionCounts) -> float`` or ``(MaskPair) -> float``; NaN where the organ is absent from both.
        needs: ``overlap``: three counts of voxels; ``masks``: the masks and the size of a voxel.
        better: ``higher``, ``lower``, ``zero`` for a signed error, or empty where the number is no measure of agreement.
        unit: Of the number, empty where it has none.
        title: What a table calls it; empty: its name.
        pooled: Over several cases it is no mean of theirs, but what it is of all their voxels together (`summaries`).
    """

    function: str
    needs: str = "overlap"
    better: str = "higher"
    unit: str = ""
    title: str = ""
    pooled: bool = False


_COUNTS, _MASKS, _LESIONS = (f"autoseg.evaluation.{module}:" for module in ("counts", "masks", "lesions"))

METRICS: dict[str, Metric] = {
    "dice": Metric(_COUNTS + "dice", title="Dice"),
    "global_dice": Metric(_COUNTS + "dice", title="global Dice", pooled=True),
    "iou": Metric(_COUNTS + "iou", title="IoU"),
    "sensitivity": Metric(_COUNTS + "sensitivity", title="sensitivity"),
    "precision": Metric(_COUNTS + "precision", title="precision"),
    "ravd": Metric(_COUNTS + "ravd", better="lower", unit="%", title="RAVD"),
    "volume": Metric(_MASKS + "volume", needs="masks", better="", unit="ml", title="volume"),
    "reference_volume": Metric(_MASKS + "reference_volume", needs="masks", better="", unit="ml", title="reference volume"),
    "volume_error": Metric(_MASKS + "volume_error", needs="masks", better="zero", unit="ml", title="volume error"),
    "hd_border": Metric(_MASKS + "hd_border", needs="masks", better="lower", unit="mm", title="HD (border)"),
    "hd95_border": Metric(_MASKS + "hd95_border", needs="masks", better="lower", unit="mm", title="HD95 (border)"),
    "assd_border": Metric(_MASKS + "assd_border", needs="masks", better="lower", unit="mm", title="ASSD (border)"),
    "nsd_border": Metric(_MASKS + "nsd_border", needs="masks", title="NSD (border)"),
    "hd_surface": Metric(_MASKS + "hd_surface", needs="masks", better="lower", unit="mm", title="HD (surface)"),
    "hd95_surface": Metric(_MASKS + "hd95_surface", needs="masks", better="lower", unit="mm", title="HD95 (surface)"),
    "assd_surface": Metric(_MASKS + "assd_surface", needs="masks", better="lower", unit="mm", title="ASSD (surface)"),
    "nsd_surface": Metric(_MASKS + "nsd_surface", needs="masks", title="NSD (surface)"),
    "chaos": Metric(_MASKS + "chaos", needs="masks", title="CHAOS score"),
    "lesion_recall": Metric(_LESIONS + "lesion_recall", needs="masks", title="lesion recall"),
    "lesion_precision": Metric(_LESIONS + "lesion_precision", needs="masks", title="lesion precision"),
    "lesion_f1": Metric(_LESIONS + "lesion_f1", needs="masks", title="lesion F1"),
    "lesion_false_positives": Metric(_LESIONS + "lesion_false_positives", needs="masks", better="lower", title="false lesions"),
    "lesion_dice": Metric(_LESIONS + "lesion_dice", needs="masks", title="Dice of lesions"),
}
"""Name to metric; the functions' docstrings define them."""

DEFAULT_METRICS = (
    *("dice", "iou", "sensitivity", "precision", "ravd"),
    *("hd95_surface", "assd_surface", "nsd_surface", "hd_border", "assd_border", "chaos"),
)
"""Metrics that are computed by default."""


def find_metric(name: str) -> Metric:
    """The metric of a name in `METRICS`, or of ``module:name``: a function of `ConfusionCounts`, or a `Metric` that says what it needs.

    Raises:
        ValueError: Neither in the table nor importable.
    """
    found = lookup(METRICS, name, "metric")
    return found if isinstance(found, Metric) else Metric(name)


def metric_function(metric: Metric) -> Callable[[Any], float]:
    """The function that computes a metric, of `ConfusionCounts` or of a `MaskPair` as `Metric.needs` says.

    Raises:
        ValueError: It cannot be imported.
    """
    return import_object(metric.function, "metric")


def check_metrics(names: Iterable[str]) -> None:
    """Refuses metrics that do not exist before anything is computed.

    Raises:
        ValueError: One is neither in the table nor importable.
    """
    for name in names:
        metric_function(find_metric(name))


def value_of(score: Score, name: str) -> float:
    """A metric's value in a score; NaN where the organ is absent from both.

    Raises:
        ValueError: The score does not hold this metric (it was made by an older version, or without it).
    """
    if not has_value(score, name):
        raise unknown_name_error(f"metric of {score.organ} in case {score.case}", name, ["dice", "iou", *score.other])
    return getattr(score, name) if name in ("dice", "iou") else score.other[name]


def has_value(score: Score, name: str) -> bool:
    """Whether a score holds this metric, be it NaN."""
    return name in ("dice", "iou") or name in score.other


def higher_is_better_score(value: Any, name: str) -> Any:
    """A metric's value (or an array of them) turned so that higher is better.

    Raises:
        ValueError: The metric is no measure of agreement, or unknown.
    """
    better = find_metric(name).better
    if not better:
        raise ValueError(f"metric {name}: expected one that says which of two predictions is better; this one only describes them")
    if better == "higher":
        return value
    return -abs(value) if better == "zero" else -value
