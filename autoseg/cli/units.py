"""Argument types in the units that people write: durations, memory sizes, windows, ``name=value``."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float:
    """Converts ``90s``, ``20m``, ``2h`` or ``1h30m`` to seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text.strip().lower())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().lower():
        raise argparse.ArgumentTypeError(f"expected a duration like 90s, 20m, 2h or 1h30m, got {text!r}")
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def gigabytes(text: str) -> float:
    """Converts ``8GB``, ``8``, ``6000MB``, ``7.5GiB`` or kilobytes to GB of 1e9 bytes; a number alone is GB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([gmk]?)(i?)b?", text.strip().lower())
    if not match or float(match[1]) <= 0 or (match[3] and not match[2]):
        raise argparse.ArgumentTypeError(f"expected a memory size like 8GB, 7.5GiB or 6000MB, got {text!r}")
    power = "kmg".index(match[2] or "g") + 1
    return float(match[1]) * (1024 if match[3] else 1000) ** power / 1e9


def assignment(text: str) -> tuple[str, Any]:
    """Splits ``name=value``; the value is read as JSON (``3``, ``true``, ``[1, 2]``) where it is JSON, else as text."""
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name.strip(), json.loads(value)
    except json.JSONDecodeError:
        return name.strip(), value


def window(words: list[str]) -> tuple[float, float] | str | None:
    """Converts the words after ``--window`` to width and level in HU, or to ``auto``; None where there are none.

    Raises:
        ValueError: They are neither.
    """
    if not words:
        return None
    if words == ["auto"]:
        return "auto"
    try:
        width, level = map(float, words)
    except ValueError as error:
        raise ValueError(f"--window: expected WIDTH LEVEL in HU (400 50) or auto, got {' '.join(words)}") from error
    return width, level


def steps(values: list[float] | None) -> float | tuple[float, float] | None:
    """Converts the numbers after ``--step``: one for all models, or two, for a cascade's first stage and for all others; None for none.

    Raises:
        ValueError: There are more than two.
    """
    if not values:
        return None
    if len(values) > 2:
        raise ValueError(f"--step: expected one number, or two for the stages of a cascade, got {' '.join(map(str, values))}")
    return values[0] if len(values) == 1 else (values[0], values[1])


def spacing(words: list[str] | None) -> tuple[float, ...] | str | None:
    """Converts the words after ``--spacing`` to millimetres, or keeps a multiple like ``x2``; None where there are none.

    Raises:
        ValueError: They are neither.
    """
    if not words:
        return None
    if len(words) == 1 and words[0].startswith("x"):
        return words[0]
    try:
        return tuple(map(float, words))
    except ValueError as error:
        raise ValueError(
            f"--spacing: expected millimetres (2 1 1), or a multiple of the planned spacing (x2), got {' '.join(words)}"
        ) from error
