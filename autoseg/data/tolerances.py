"""How far apart two surfaces may lie and still count as the same: by organ, where the dataset or the user says so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..runtime.registry import unknown_name_error
from ..schema import Labels


def parse_tolerances(info: Mapping[str, Any], labels: Labels, file: Path) -> dict[str, float]:
    """The ``tolerances`` entry of a ``dataset.json``: organ to mm, such as what two experts differ by.

    Raises:
        ValueError: It names what is no organ, or has other than a distance.
    """
    entry = info.get("tolerances") or {}
    if not isinstance(entry, dict):
        raise ValueError(f'{file}: tolerances: expected an object such as {{"liver": 3.0}}, found {entry!r}')
    for organ in entry:
        if organ not in labels.names:
            raise unknown_name_error(f"{file}: tolerances: organ", organ, labels.names)
    return {organ: _millimetres(value, f"{file}: tolerances: {organ}") for organ, value in entry.items()}


def read_tolerances(words: Sequence[str], usual: float, known: Mapping[str, float]) -> dict[str, float]:
    """What a user says on the command line: ``2`` for every organ, ``liver=3`` for one.

    Args:
        words: As typed.
        usual: Where nobody says anything.
        known: The dataset's own; what the user says goes before.

    Returns:
        Organ to mm; the key ``""`` is for the organs that are not named.

    Raises:
        ValueError: A word is neither.
    """
    every = [word for word in words if "=" not in word]
    if len(every) > 1:
        raise ValueError(f"tolerance: expected one number for all organs, found {' '.join(every)}")
    number = _millimetres(every[0], "tolerance") if every else usual
    named = {} if every else dict(known)
    for word in words:
        organ, equals, value = word.rpartition("=")
        if equals and not organ:
            raise ValueError(f"tolerance: expected a number, or an organ with its own such as liver=3, found {word}")
        if equals:
            named[organ] = _millimetres(value, f"tolerance: {organ}")
    return {**named, "": number}


def tolerance_of(organ: str, tolerance_mm: float | Mapping[str, float], usual: float) -> float:
    """The tolerance of an organ, mm: its own, else that of the key ``""``, else the usual one."""
    if not isinstance(tolerance_mm, Mapping):
        return float(tolerance_mm)
    return float(tolerance_mm.get(organ, tolerance_mm.get("", usual)))


def _millimetres(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number < 0:
        raise ValueError(f"{what}: expected a distance in mm, found {value!r}")
    return number
