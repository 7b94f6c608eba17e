"""Tolerances of surface distances by organ, from ``dataset.json`` or the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..runtime.strict_json import shown
from ..schema import Labels
from .label_names import parse_by_organ


def parse_tolerances(info: Mapping[str, Any], labels: Labels, file: Path) -> dict[str, float]:
    """The ``tolerances`` entry of a ``dataset.json``: organ to mm (the inter-rater distance, say); a ValueError where it is not that."""
    return parse_by_organ(info.get("tolerances"), labels, f"{file}: tolerances", '{"liver": 3.0}', _millimetres)


def read_tolerances(words: Sequence[str], default: float, declared: Mapping[str, float]) -> dict[str, float]:
    """Parses tolerances of the command line, ``2`` for every organ, ``liver=3`` for one; they go before those that the dataset declares.

    Returns:
        Organ to mm; the key ``""`` is for the organs that are not named.

    Raises:
        ValueError: A word is neither.
    """
    general = [word for word in words if "=" not in word]
    if len(general) > 1:
        raise ValueError(f"tolerance: expected one number for all organs, found {' '.join(general)}")
    number = _millimetres(general[0], "tolerance") if general else default
    by_organ = {} if general else dict(declared)
    for word in words:
        organ, equals, value = word.rpartition("=")
        if equals and not organ:
            raise ValueError(f"tolerance: expected a number, or an organ with its own such as liver=3, found {word}")
        if equals:
            by_organ[organ] = _millimetres(value, f"tolerance: {organ}")
    return {**by_organ, "": number}


def tolerance_of(organ: str, tolerance_mm: float | Mapping[str, float], default: float) -> float:
    """Tolerance of an organ in mm: its entry, else that of the key ``""``, else the default."""
    if not isinstance(tolerance_mm, Mapping):
        return float(tolerance_mm)
    return float(tolerance_mm.get(organ, tolerance_mm.get("", default)))


def _millimetres(value: Any, source: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number < 0:
        raise ValueError(f"{source}: expected a distance in mm, found {shown(value)}")
    return number
