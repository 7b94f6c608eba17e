"""Matplotlib figures without a display, and the colours of organs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ORGAN_COLOURS = ("#ee7733", "#3a93e6", "#17a398", "#ee3377", "#c9a100", "#9b6ee0", "#33bbee", "#b85a44", "#6aa83a", "#d987c4")
"""Distinguishable with the common kinds of colour blindness as far as ten colours can be (after Tol's vibrant scheme), and visible on grey
values as on white and on dark paper."""


def organ_colours(n: int) -> list[tuple[float, float, float]]:
    """`n` colours that are easy to tell apart: a hand-picked ten, then hues around the circle."""
    from matplotlib.colors import hsv_to_rgb, to_rgb

    hues = [(0.61803 * i) % 1 for i in range(max(0, n - len(ORGAN_COLOURS)))]
    return [to_rgb(colour) for colour in ORGAN_COLOURS[:n]] + [tuple(hsv_to_rgb((hue, 0.75, 0.85))) for hue in hues]


def css_colours(n: int) -> list[str]:
    """The same colours as a style sheet writes them."""
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in organ_colours(n)]


def new_figure(size: tuple[float, float]) -> Figure:
    """A figure of the Agg backend; matplotlib is imported here as it takes a while."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    return figure
