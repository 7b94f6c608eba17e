"""The report's charts: box plots, intervals, curves, strips and scatter, as SVG text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .markup import number, tag, text
from .svg import Scale, chart, diamond, label, line, polyline, stretched, words

ROW = 46.0
"""Pixels of a row of a box plot: the cases, below them their box, below that the mean."""
POINTS, BOX, MEAN = 10.0, 26.0, 40.0
"""Where these three lie in it."""


@dataclass(frozen=True)
class Box:
    """A box plot's numbers (Tukey, Exploratory Data Analysis, 1977).

    Attributes:
        low: Smallest value not further than 1.5 box lengths below the box.
        first: Lower quartile.
        median: Of all values.
        third: Upper quartile.
        high: Largest value not further than 1.5 box lengths above the box.
    """

    low: float
    first: float
    median: float
    third: float
    high: float


def box_of(values: Sequence[float]) -> Box | None:
    """The five numbers of those values that are known; quartiles between two values are interpolated. None without any."""
    known = np.array([value for value in values if math.isfinite(value)])
    if not known.size:
        return None
    first, median, third = (float(value) for value in np.percentile(known, (25, 50, 75)))
    reach = 1.5 * (third - first)
    inside = known[(known >= first - reach) & (known <= third + reach)]
    return Box(float(inside.min()), first, median, third, float(inside.max()))


def common_scale(values: Sequence[float], *, within: tuple[float, float] | None = None) -> Scale:
    """A scale that holds all known values with some air at its ends, which do not leave `within`."""
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    air = 0.06 * (high - low) or 0.05 * max(abs(high), 1e-3)
    low, high = low - air, high + air
    if within:
        low, high = max(low, within[0]), min(high, within[1])
    return Scale(low, high if high > low else low + 1e-3, 2.5, 97.5)


def box_row(values: Mapping[str, float], scale: Scale, *, mean: float, interval: tuple[float, float], is_chosen: bool, about: str) -> str:
    """One candidate: its cases as points, below them their box, below that the mean with its interval.

    Args:
        values: Case to value; empty where the cases are not known one by one.
        scale: Shared by all candidates.
        mean: Of the candidate.
        interval: Of that mean.
        is_chosen: Whether it is the chosen one.
        about: The same in words.
    """
    parts = [line(scale.percent(tick), 0, scale.percent(tick), "100%", "grid") for tick in scale.ticks()]
    box = box_of(list(values.values())) if len(values) > 2 else None
    if box:
        parts += [
            line(scale.percent(box.low), BOX, scale.percent(box.high), BOX, "whisker"),
            tag(
                "rect",
                x=scale.percent(box.first),
                y=BOX - 6,
                width=f"{max(0.25, scale.at(box.third) - scale.at(box.first)):.2f}%",
                height=12,
                rx=2,
                class_="box",
            ),
            line(scale.percent(box.median), BOX - 6, scale.percent(box.median), BOX + 6, "median"),
        ]
    parts += [_point(case, value, scale) for case, value in values.items() if math.isfinite(value)]
    if math.isfinite(mean):
        if all(math.isfinite(end) for end in interval):
            parts.append(line(scale.percent(interval[0]), MEAN, scale.percent(interval[1]), MEAN, "interval"))
        parts.append(diamond(scale.percent(mean), MEAN, 4.5, "mean"))
    return chart(ROW, about, *parts, kind="boxes is-chosen" if is_chosen else "boxes")


def _point(case: str, value: float, scale: Scale) -> str:
    """A case's point, moved up or down by its name, so that it does not hide its neighbours and lies at one place in every row."""
    shift = (sum(ord(letter) * (place + 3) for place, letter in enumerate(case)) % 11 - 5) * 1.1
    title = tag("title", text(f"{case}: {number(value)}"))
    return tag("circle", title, cx=scale.percent(value), cy=round(POINTS + shift, 1), r=2.1, class_="point")


def axis_row(scale: Scale, about: str) -> str:
    """The ticks below the rows of a box plot."""
    parts = []
    for tick in scale.ticks():
        parts += [
            line(scale.percent(tick), 0, scale.percent(tick), 5, "axis"),
            words(scale.percent(tick), 17, label(tick), text_anchor="middle"),
        ]
    return chart(22, about, *parts, kind="ticks")


def interval_bar(low: float, high: float, mean: float, scale: Scale, about: str) -> str:
    """A mean and its interval on a short scale, for the head of the page."""
    parts = [line("0%", 7, "100%", 7, "rail")]
    if math.isfinite(low) and math.isfinite(high):
        parts.append(line(scale.percent(low), 7, scale.percent(high), 7, "organ-interval"))
    parts.append(tag("circle", cx=scale.percent(mean), cy=7, r=5, class_="organ-dot"))
    return chart(14, about, *parts, kind="bar")


def strip(values: Sequence[float], scale: Scale, about: str) -> str:
    """Values as short strokes along a scale, and their median."""
    parts = [line(scale.percent(tick), 0, scale.percent(tick), "100%", "grid") for tick in scale.ticks(4)]
    parts += [line(scale.percent(value), 6, scale.percent(value), 20, "stroke") for value in values]
    parts.append(diamond(scale.percent(float(np.median(values))), 13, 5, "mean"))
    return chart(26, about, *parts, kind="strip")


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        xs: Places.
        ys: Values; NaN leaves a gap.
        kind: Class of the line.
        style: Its colour, where the class does not say it.
    """

    xs: Sequence[float]
    ys: Sequence[float]
    kind: str
    style: str | None = None


def curves(lines: Sequence[Curve], x_scale: Scale, y_scale: Scale, *, about: str, x_name: str, height: float = 170) -> str:
    """Lines over a common axis.

    Args:
        lines: To draw, later ones on top.
        x_scale: From values to 0..100.
        y_scale: From values to 100..0: a picture's y grows downwards.
        about: The chart in words.
        x_name: What the horizontal axis shows.
        height: Pixels.
    """
    left, bottom, right = 42, 34, 10
    panel_height = height - bottom - 8
    grid, ticks = [], []
    for tick in y_scale.ticks(4):
        y = 8 + y_scale.at(tick) / 100 * panel_height
        grid.append(line(str(left), round(y, 1), "100%", round(y, 1), "grid"))
        ticks.append(words(str(left - 6), round(y + 4, 1), label(tick), text_anchor="end"))
    inner = tag(
        "svg",
        stretched(*(polyline(*_scaled(one, x_scale, y_scale), one.kind, style=one.style) for one in lines)),
        *(words(x_scale.percent(tick), panel_height + 16, label(tick), text_anchor="middle") for tick in x_scale.ticks(4)),
        x=left,
        y=8,
        height=panel_height,
        overflow="visible",
        style=f"width:calc(100% - {left + right}px)",
        width="86%",
    )
    name = words("54%", height - 2, x_name, "axis-name", text_anchor="middle")
    return chart(height, about, *grid, *ticks, inner, name, kind="curves")


def _scaled(one: Curve, x_scale: Scale, y_scale: Scale) -> tuple[list[float], list[float]]:
    ys = [y_scale.at(value) if math.isfinite(value) else math.nan for value in one.ys]
    return [x_scale.at(value) for value in one.xs], ys


def dumbbell(before: float, after: float, scale: Scale, about: str) -> str:
    """Two values of the same thing, joined: hollow before, filled after."""
    parts = [line(scale.percent(tick), 0, scale.percent(tick), "100%", "grid") for tick in scale.ticks(4)]
    parts.append(line(scale.percent(before), 13, scale.percent(after), 13, "whisker"))
    parts.append(tag("circle", cx=scale.percent(before), cy=13, r=5, class_="before"))
    parts.append(tag("circle", cx=scale.percent(after), cy=13, r=5, class_="after"))
    return chart(26, about, *parts, kind="strip")


def scatter(points: Sequence[tuple[str, float, float]], scale: Scale, *, about: str, x_name: str, y_name: str) -> str:
    """Points of two values on equal scales, with the line where both are equal.

    Args:
        points: Name, value along x and value along y.
        scale: Of both axes, 0..100.
        about: The chart in words.
        x_name: What x is.
        y_name: What y is.
    """
    height, left, bottom = 300.0, 46, 40
    panel = height - bottom - 8
    grid, ticks = [], []
    for tick in scale.ticks(5):
        y = round(8 + (100 - scale.at(tick)) / 100 * panel, 1)
        grid.append(line(str(left), y, "100%", y, "grid"))
        ticks.append(words(str(left - 6), y + 4, label(tick), text_anchor="end"))
    dots = []
    for name, x, y in points:
        title = tag("title", text(f"{name}: predicted {number(x)}, true {number(y)}"))
        dots.append(tag("circle", title, cx=scale.percent(x), cy=round((100 - scale.at(y)) / 100 * panel, 1), r=3.2, class_="organ-point"))
    diagonal = stretched(polyline([0, 100], [100, 0], "diagonal"))
    below = [words(scale.percent(tick), panel + 16, label(tick), text_anchor="middle") for tick in scale.ticks(5)]
    inner = tag(
        "svg",
        diagonal,
        *dots,
        *below,
        x=left,
        y=8,
        height=panel,
        overflow="visible",
        width="86%",
        style=f"width:calc(100% - {left + 10}px)",
    )
    names = words("54%", height - 4, x_name, "axis-name", text_anchor="middle") + words(str(left + 6), 20, y_name, "axis-name")
    return chart(height, about, *grid, *ticks, inner, names, kind="scatter")
