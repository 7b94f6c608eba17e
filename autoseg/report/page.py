"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence

from .content import Report
from .markup import tag, text
from .sections_cases import cases_section, uncertainty_section
from .sections_data import dataset_section, head, missing_note, plan_section
from .sections_models import choice_section, curves_section
from .sections_use import cost_section, postprocessing_section, reproduce_section
from .style import style_sheet

CONTENTS = {
    "dataset": "Dataset",
    "plan": "Plan",
    "curves": "Learning curves",
    "comparison": "Models and organs",
    "cases": "Cases",
    "postprocessing": "Post-processing",
    "uncertainty": "Calibration",
    "cost": "Time and memory",
    "reproduce": "Make it again",
}
"""Section to its name in the list of contents."""


def render(report: Report, colours: Sequence[str]) -> str:
    """The whole page.

    Args:
        report: What it shows.
        colours: CSS colour of each organ, in the order of the dataset.

    Raises:
        ValueError: There are fewer colours than organs.
    """
    by_organ = dict(zip(report.organs, colours, strict=True))
    sections = {
        "dataset": dataset_section(report, by_organ),
        "plan": plan_section(report),
        "curves": curves_section(report, by_organ),
        "comparison": choice_section(report, by_organ),
        "cases": cases_section(report, by_organ),
        "postprocessing": postprocessing_section(report, by_organ),
        "uncertainty": uncertainty_section(report, by_organ),
        "cost": cost_section(report),
        "reproduce": reproduce_section(report),
    }
    links = [tag("li", tag("a", CONTENTS[name], href=f"#{name}")) for name, content in sections.items() if content]
    nav = tag("nav", tag("ol", tag("li", tag("a", "Overview", href="#top")), *links), aria_label="contents")
    main = tag("main", head(report, by_organ), missing_note(report), *sections.values())
    top = "".join(
        [
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", text(f"{report.dataset.name}: segmentation report")),
            tag("style", style_sheet()),
        ]
    )
    return "<!DOCTYPE html>\n" + tag("html", tag("head", top), tag("body", tag("div", nav, main, class_="frame")), lang="en") + "\n"
