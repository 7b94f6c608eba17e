"""Checks of values that a file may hold: numbers that no plan, run or choice can have are refused where the value is made, by field."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any


def expect(holds: bool, field: str, expected: str, found: Any) -> None:
    """Raises a ValueError, ``field: expected ..., found ...``, unless what is expected holds."""
    if not holds:
        text = repr(found)
        raise ValueError(f"{field}: expected {expected}, found {text if len(text) <= 80 else f'{text[:77]}...'}")


def is_finite(*numbers: float) -> bool:
    """Whether all are finite numbers; also of types that JSON does not keep apart."""
    return all(isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one) for one in numbers)


def check_spacing(field: str, spacing: Sequence[float], axes: Iterable[int] = (2, 3)) -> None:
    """Refuses a spacing that is no positive number of mm an axis, for one of the numbers of `axes`."""
    counts = tuple(axes)
    numbers = " or ".join(map(str, counts))
    expect(is_finite(*spacing) and all(one > 0 for one in spacing), field, "millimetres above 0", tuple(spacing))
    expect(len(spacing) in counts, field, f"{numbers} numbers", tuple(spacing))


def check_permutation(field: str, axes: Sequence[int], counts: Iterable[int] = (2, 3)) -> None:
    """Refuses what is no order of all axes of an image, each once."""
    expect(len(axes) in tuple(counts) and sorted(axes) == list(range(len(axes))), field, "each axis of an image once", tuple(axes))


def check_axes(field: str, axes: Sequence[int], count: int) -> None:
    """Refuses what are no axes, each once at most, among `count`."""
    expect(len(set(axes)) == len(axes) and all(0 <= axis < count for axis in axes), field, f"axes of 0 to {count - 1}, each once", axes)


def check_least(field: str, value: float, least: float = 0, *, above: bool = False) -> None:
    """Refuses a number that is not finite, or less than `least` (or not `above` it)."""
    expect(
        is_finite(value) and (value > least if above else value >= least), field, f"a number {'above' if above else 'from'} {least}", value
    )


def check_share(field: str, value: float) -> None:
    """Refuses a number that is no share, 0 to 1."""
    expect(is_finite(value) and 0 <= value <= 1, field, "a share of 0 to 1", value)


def check_fold(fold: str) -> None:
    """Refuses what is no name of a fold."""
    expect(fold == "all" or (fold.isascii() and fold.isdecimal()), "fold", "a number from 0 on, or all", fold)
