"""Figures of the report: matplotlib's SVG, made fit to stand inside an HTML page, and the scales of the charts in its tables."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ..runtime.plotting import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID, PLAIN, ACCENT, CARD = COLOURS = tuple(f"#01020{digit}" for digit in range(1, 7))
"""Placeholders for the colours of the style sheet, which differ between light and dark pages."""

CSS_VARIABLES = dict(zip(COLOURS, ("ink", "soft", "grid", "plain", "accent", "card"), strict=True))

FONT_SIZE = 11.0
"""CSS pixels where a figure is shown in its own size."""


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis along the width of a chart.

    Attributes:
        log: Logarithmic; both values must be positive.
        margin: Per cent of the width that stay free at either end.
    """

    low: float
    high: float
    log: bool = False
    margin: float = 0.0

    def at(self, value: float) -> float:
        """The place of a value, per cent of the width; kept inside the two ends."""
        low, high, here = (math.log10(max(one, 1e-300)) if self.log else one for one in (self.low, self.high, value))
        share = (here - low) / (high - low) if high > low else 0.5
        return round(self.margin + min(1.0, max(0.0, share)) * (100 - 2 * self.margin), 2)

    @cached_property
    def ticks(self) -> list[float]:
        """About four round values between the ends."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        subs = (1.0, 2.0, 5.0) if self.log and self.high < 100 * self.low else (1.0,)
        locator = LogLocator(subs=subs) if self.log else MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        ticks = [round(float(tick), 12) for tick in locator.tick_values(self.low, self.high)]
        return [tick for tick in ticks if self.low <= tick <= self.high] or [self.low]


def common_scale(values: Iterable[float], *, within: tuple[float, float] | None = None) -> Scale:
    """The scale that holds all finite values with some air at its ends, which do not leave `within`."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    air = 0.06 * (high - low) or 0.05 * max(abs(high), 1e-3)
    low, high = low - air, high + air
    if within:
        low, high = max(low, within[0]), min(high, within[1])
    return Scale(low, high if high > low else low + 1e-3, margin=2.5)


@dataclass(frozen=True)
class Curve:
    """A line of `curve_figure`; a y that is NaN leaves a gap.

    Attributes:
        colour: A placeholder or a CSS colour.
        width: CSS pixels.
        opacity: 0..1.
    """

    xs: Sequence[float]
    ys: Sequence[float]
    colour: str
    width: float = 1.3
    opacity: float = 1.0


def curve_figure(curves: Sequence[Curve], *, x_max: float, y_range: tuple[float, float], name: str, label: str) -> str:
    """Draws learning curves over the iterations of a training, later ones on top.

    Args:
        name: A word that no other figure of the page has; ids are made of it.
        label: What the figure shows, in words.
    """
    figure, axes = _new_axes(260, 165)
    for curve in curves:
        (line,) = axes.plot(curve.xs, curve.ys, color=curve.colour, linewidth=curve.width, alpha=curve.opacity, solid_capstyle="round")
        finite = [False, *(math.isfinite(y) for y in curve.ys), False]
        if alone := [place for place in range(len(curve.ys)) if finite[place + 1] and not (finite[place] or finite[place + 2])]:
            line.set(marker="o", markersize=3.0, markevery=alone, markeredgewidth=0.0)
    axes.set(xlim=(0, x_max), ylim=y_range, xlabel="iteration")
    axes.locator_params(nbins=4)
    axes.grid(axis="y", color=GRID, linewidth=1.0)
    return _inline_svg(figure, name, label)


def scatter_figure(points: Sequence[tuple[str, float, float]], colour: str, *, name: str, label: str) -> str:
    """Draws estimated against true Dice on equal axes, with the line where both are equal.

    Args:
        points: Title, estimated and true Dice of each case.
        name: A word that no other figure of the page has.
        label: What the figure shows, in words.
    """
    figure, axes = _new_axes(300, 290)
    scale = common_scale([value for _, *both in points for value in both], within=(0.0, 1.0))
    axes.axline((scale.low, scale.low), slope=1.0, color=PLAIN, linewidth=1.2, linestyle=(0, (5, 4)))
    titles, estimated, true = zip(*points, strict=True)
    dots = axes.scatter(estimated, true, s=40, color=colour, alpha=0.75, edgecolors=CARD, linewidths=0.8, zorder=3)
    dots.set_urls(list(titles))  # matplotlib knows no titles; `_inline_svg` makes them of the links
    axes.set(xlim=(scale.low, scale.high), ylim=(scale.low, scale.high), xlabel="estimated Dice", ylabel="true Dice", aspect="equal")
    axes.set(xticks=scale.ticks, yticks=scale.ticks)
    axes.grid(color=GRID, linewidth=1.0)
    return _inline_svg(figure, name, label)


def _new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure without a frame; width and height in CSS pixels."""
    figure = new_figure((width / 72, height / 72))  # matplotlib writes 72 SVG units an inch
    figure.set_layout_engine("constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.tick_params(length=0, pad=5, labelsize=FONT_SIZE, labelcolor=SOFT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(size=FONT_SIZE, color=SOFT)
    return figure, axes


def _inline_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an ``<svg>`` element for HTML: without namespaces, metadata and style, with titles, ids of its own and CSS colours."""
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(re.sub(r' xmlns(:xlink)?="[^"]*"|xlink:', "", file.getvalue().partition("<svg")[2].join(("<svg", ""))))
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', file.getvalue()))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style") or (child.tag == "g" and not len(child)):
                parent.remove(child)
        if parent.get("id") not in used:
            parent.attrib.pop("id", None)
        if parent.tag == "a":
            title = ElementTree.Element("title")
            title.text, parent.tag = parent.attrib.pop("href"), "g"
            parent.insert(0, title)
        if "d" in parent.attrib:
            parent.set("d", re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.4g}", " ".join(parent.attrib["d"].split())))
        if "style" in parent.attrib:
            parent.set("style", re.sub(r"font-family: [^;]*; ", "", parent.attrib["style"]))
        parent.text, parent.tail = (part if part and part.strip() else None for part in (parent.text, parent.tail))
    box = root.get("viewBox", "")
    root.attrib = {"viewBox": box, "class": "figure", "role": "img", "aria-label": label}
    text = ElementTree.tostring(root, encoding="unicode")  # escapes what it holds
    for colour, variable in CSS_VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return text
