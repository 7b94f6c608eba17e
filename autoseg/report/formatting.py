"""Numbers and names as readers see them in the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..schema import candidate_members, candidate_name

NO_BREAK = "\N{NO-BREAK SPACE}"
TIMES = f"{NO_BREAK}×{NO_BREAK}"
"""Between the numbers of a size, which stay on one line: a table that is too wide scrolls."""


def number(value: float, digits: int = 3) -> str:
    """A number with a fixed count of decimals; a dash where it is not finite."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign, a true minus for a hyphen."""
    return f"{value:+.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def significant(value: float, digits: int = 3) -> str:
    """A number to some significant digits, without powers of ten as long as it can be read so."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def p_value(value: float) -> str:
    """A p-value: three decimals, or that it is smaller."""
    return "< 0.001" if value < 0.001 else number(value)


def duration(seconds: float) -> str:
    """Seconds in the unit that gives a readable number."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size and math.isfinite(seconds):
            return f"{seconds / size:.1f} {unit}"
    return f"{number(seconds, 1 if seconds < 10 else 0)} s" if math.isfinite(seconds) else "–"


def parameters(n: int | None) -> str:
    """A number of network parameters in millions."""
    return f"{n / 1e6:.2f} M" if n else "–"


def count(n: int, noun: str) -> str:
    """``1 case``, ``3 cases``."""
    return f"{n} {noun if n == 1 else noun + 's'}"


def size(numbers: Sequence[float]) -> str:
    """``128 × 128 × 64``, or a spacing to three digits."""
    return TIMES.join(str(number) if isinstance(number, int) else f"{number:.3g}" for number in numbers)


def short_name(candidate: str) -> str:
    """A candidate's name without the words that most of them share: ``2d__Trainer + 3d_fullres__Trainer`` -> ``2d + 3d_fullres``."""
    members = [[word for word in member.split("__") if word] for member in candidate_members(candidate)]
    return candidate_name(tuple(" · ".join(words[:1] + [word for word in words[1:] if word != "Trainer"]) for words in members))
