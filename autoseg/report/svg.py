"""The parts of the report's charts: places are shares of the width, so that a chart fits any page and its text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .markup import tag, text


@dataclass(frozen=True)
class Scale:
    """From values to per cent of a length.

    Attributes:
        low: Value at `first`.
        high: Value at `last`.
        first: Per cent.
        last: Per cent.
        log: Logarithmic; both values must be positive.
    """

    low: float
    high: float
    first: float = 0.0
    last: float = 100.0
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies, per cent; kept inside the two ends."""
        low, high, here = (math.log10(max(one, 1e-300)) if self.log else one for one in (self.low, self.high, value))
        share = (here - low) / (high - low) if high > low else 0.5
        return self.first + min(1.0, max(0.0, share)) * (self.last - self.first)

    def percent(self, value: float) -> str:
        """The same as an SVG length."""
        return f"{self.at(value):.2f}%"

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round values between the ends."""
        return log_ticks(self.low, self.high) if self.log else round_ticks(self.low, self.high, wanted)


def round_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten between two values, about as many as wanted."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(first * step + i * step, 12) for i in range(int(math.floor(high / step + 1e-9)) - first + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two values; with fewer than two of them also twice and five times those."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        found = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(found) >= 2:
            break
    return found or [low]


def label(value: float) -> str:
    """A tick's value as text."""
    return f"{value:.10g}" if abs(value) < 1e5 else f"{value:.0e}"


def chart(height: float, title: str, *parts: str, kind: str = "") -> str:
    """A picture as wide as its place, `height` pixels high; `title` is what it is for those who cannot see it."""
    return tag("svg", *parts, class_=f"chart {kind}".strip(), width="100%", height=height, role="img", aria_label=title)


def line(x1: str, y1: float | str, x2: str, y2: float | str, kind: str, **more: object) -> str:
    """A line; its look is the class's."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind, **more)


def words(x: str, y: float | str, content: str, kind: str = "tick", **more: object) -> str:
    """Text at a place."""
    return tag("text", text(content), x=x, y=y, class_=kind, **more)


def diamond(x: str, y: float, size: float, kind: str) -> str:
    """A diamond at a place given in per cent: in an inner picture, as paths know no per cent."""
    shape = f"M0 {-size}L{size} 0L0 {size}L{-size} 0Z"
    return tag("svg", tag("path", d=shape, class_=kind), x=x, y=y, overflow="visible", width=1, height=1)


def polyline(xs: Sequence[float], ys: Sequence[float], kind: str, **more: object) -> str:
    """A line through places in per cent (both axes), for an inner picture that is stretched over the panel; gaps where y is NaN."""
    pieces: list[list[str]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(y):
            pieces[-1].append(f"{x:.2f},{y:.2f}")
        elif pieces[-1]:
            pieces.append([])
    drawn = [(piece, kind) if len(piece) > 1 else (piece * 2, f"{kind} single") for piece in pieces if piece]
    look = {"vector_effect": "non-scaling-stroke", **more}
    return "".join(tag("polyline", points=" ".join(piece), class_=of.strip() or None, **look) for piece, of in drawn)


def stretched(*parts: str, x: str = "0", y: str = "0", width: str = "100%", height: str = "100%") -> str:
    """An inner picture of 100 x 100 units that is stretched over a part of the chart."""
    return tag("svg", *parts, x=x, y=y, width=width, height=height, viewBox="0 0 100 100", preserveAspectRatio="none", overflow="visible")
