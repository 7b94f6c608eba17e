"""The report as one HTML page that needs nothing but itself: the views of its sections, written by the templates."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from . import formatting
from .content import Report
from .sections_cases import cases_section, uncertainty_section
from .sections_data import dataset_section, overview, postprocessing_section, reproduction_section
from .sections_models import comparison_section, cost_section, curves_section

FILTERS = ("number", "significant", "p_value", "signed", "duration", "parameters", "count", "size", "short_name")
"""Functions of `formatting` that templates use."""


def render(report: Report, colours: Sequence[str]) -> str:
    """Returns the whole page.

    Args:
        colours: CSS colour of each organ, in the order of the dataset.

    Raises:
        ValueError: There are fewer colours than organs.
    """
    by_organ = dict(zip(report.organs, colours, strict=True))
    sections = {
        "dataset": ("Dataset", dataset_section(report)),
        "plan": ("Plan", report.plan),
        "curves": ("Learning curves", curves_section(report, by_organ)),
        "comparison": ("Models and organs", comparison_section(report)),
        "cases": ("Cases", cases_section(report)),
        "postprocessing": ("Post-processing", postprocessing_section(report)),
        "uncertainty": ("Calibration and quality estimation", uncertainty_section(report, by_organ)),
        "cost": ("Time and memory", cost_section(report)),
        "reproduction": ("Reproduction", reproduction_section(report)),
    }
    shown = [(name, title, view) for name, (title, view) in sections.items() if view is not None]
    page = _environment().get_template("page.html.j2")
    return page.render(report=report, colours=by_organ, overview=overview(report), sections=shown)


def _environment() -> Environment:
    loader = PackageLoader(__package__)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters |= {name: getattr(formatting, name) for name in FILTERS}
    return environment
