"""The sections on single cases: what predictions look like, and which cases are likely to be wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..schema import DiceRegression
from ..selection.estimated_dice import EstimatedDice
from .charts import axis_row, common_scale, dumbbell, scatter
from .content import Report
from .markup import details, facts, number, section, short_name, table, tag, text
from .planes import picture_figure
from .sections_data import organ_name
from .sections_models import legend_of
from .svg import Scale

LISTED = 25
"""Cases in the table before the rest is shown on demand."""


def case_values(report: Report, organ: str) -> dict[str, float]:
    """Case to the score of the organ's candidate; where it is an average that is not known case by case, the mean of its members' scores.

    Without a choice the first model that has scores of the organ stands in.
    """
    chosen = report.chosen_name(organ)
    known = report.scores.get(chosen, {}).get(organ)
    if known is not None:
        return known
    members = chosen.split(" + ") if chosen else [next((name for name, organs in report.scores.items() if organ in organs), "")]
    of_members = [report.scores.get(name, {}).get(organ, {}) for name in members]
    common = set.intersection(*map(set, of_members)) if of_members else set()
    return {case: sum(one[case] for one in of_members) / len(of_members) for case in sorted(common)}


def ranked_cases(report: Report) -> list[tuple[str, float]]:
    """Cases and the mean over their organs, worst first; cases without any value are left out.

    Of a signed error the mean is of its sizes: too much of one organ and too little of another do not make a good case.
    """
    values = {organ: case_values(report, organ) for organ in report.organs}
    means = []
    for case in sorted({case for one in values.values() for case in one}):
        known = [one[case] for one in values.values() if math.isfinite(one.get(case, math.nan))]
        sizes = [abs(value) for value in known] if report.better == "zero" else known
        if sizes:
            means.append((case, sum(sizes) / len(sizes)))
    return sorted(means, key=lambda pair: report.badness(pair[1]), reverse=True)


def cases_section(report: Report, colours: Mapping[str, str]) -> str:
    """Pictures of some cases, and the table of all."""
    ranked = ranked_cases(report)
    if not ranked and not report.pictures:
        return ""
    parts = []
    if report.pictures:
        marks = [
            ("--c:var(--plain)", "", "prediction: filled, in the organ's colour"),
            ("--c:var(--plain)", "dashed", "reference: dashed white line"),
        ]
        marks += [(f"--c:{colours[organ]}", "dot", organ) for organ in report.organs]
        switches = tag(
            "div",
            *(
                tag("label", tag("input", type="checkbox", id=name), f" {words}")
                for name, words in (("hide-found", "hide predictions"), ("hide-truth", "hide references"))
            ),
            class_="switches",
        )
        parts += [legend_of(marks), switches, *(picture_figure(one, colours) for one in report.pictures)]
    if ranked:
        parts += [tag("h3", "All held-out cases, worst first"), _table(report, ranked, colours)]
    whose = "the chosen models segment them, after post-processing" if report.choice else "the first model of each organ segments them"
    lead = f"Held-out cases as {whose}. Planes go through the organs; proportions are true."
    return section("cases", "Cases", *parts, lead=lead)


def _table(report: Report, ranked: list[tuple[str, float]], colours: Mapping[str, str]) -> str:
    values = {organ: case_values(report, organ) for organ in report.organs}
    names = ("Case", "Fold", "Mean", *(organ_name(organ, colours) for organ in report.organs))
    rows = []
    for case, mean in ranked:
        cells = [_heat(report, one.get(case, math.nan), one) for one in values.values()]
        rows.append([text(case), text(report.folds_of.get(case, "–")), number(mean), *cells])
    numeric = range(2, len(names))
    shown = table(names, rows[:LISTED], numeric=numeric, name="cases, worst first", caption=text(f"{report.metric}; darker is worse"))
    rest = rows[LISTED:]
    return shown + (details(f"{len(rest)} further cases", table(names, rest, numeric=numeric, name="further cases")) if rest else "")


def _heat(report: Report, value: float, column: Mapping[str, float]) -> str:
    """A value on a ground that is the darker the worse it is among the column's."""
    known = [report.badness(one) for one in column.values() if math.isfinite(one)]
    if not math.isfinite(value) or max(known) - min(known) < 1e-9:
        return number(value)
    depth = 45 * (report.badness(value) - min(known)) / (max(known) - min(known))
    return tag("span", number(value), class_="heat", style=f"--depth:{depth:.0f}%")


def uncertainty_section(report: Report, colours: Mapping[str, str]) -> str:
    """What the models' probabilities are worth: calibration, and Dice predicted without a reference."""
    choice = report.choice
    if choice is None or not (choice.calibration or choice.dice_regression):
        return ""
    lines = [_predicted(organ, one, report.estimated_dice.get(organ, ()), colours) for organ, one in choice.dice_regression.items()]
    lead = "How far probabilities can be believed, and how well a case that went wrong is recognised without its reference."
    parts = (_calibration(report), tag("div", *lines, class_="multiples") if lines else "", _likely_wrong(report, colours))
    return section("uncertainty", "Calibration and reliability", *parts, lead=lead)


def _predicted(organ: str, line: DiceRegression, estimated_dice: Sequence[EstimatedDice], colours: Mapping[str, str]) -> str:
    """How well an organ's Dice is predicted: numbers, and the cases as points."""
    pairs = [
        ("Mean error of the predicted Dice", number(line.error)),
        ("Rank correlation with the true one", number(line.correlation, 2)),
        ("Line", text(f"{line.slope:.2f} × promised {line.intercept:+.2f}".replace("-", "−"))),
        ("Cases", text(line.cases)),
    ]
    inner = tag("h3", organ_name(organ, colours), " predicted Dice") + facts(pairs)
    if estimated_dice:
        points = [(one.case, one.predicted, one.true) for one in estimated_dice]
        around = common_scale([value for _, *both in points for value in both], within=(0.0, 1.0))
        about = f"{organ}: predicted against true Dice of {len(points)} held-out cases"
        inner += scatter(points, Scale(around.low, around.high), about=about, x_name="predicted Dice", y_name="true Dice")
    return tag("div", inner, style=f"--organ:{colours[organ]}")


def _calibration(report: Report) -> str:
    found = report.choice.calibration
    if not found:
        return ""
    errors = [value for one in found.values() for value in (one.error_before, one.error_after) if math.isfinite(value)]
    scale = common_scale([0.0, *errors])
    rows = []
    for name, one in found.items():
        about = f"{name}: calibration error {number(one.error_before)} before, {number(one.error_after)} after"
        drawn = dumbbell(one.error_before, one.error_after, scale, about) if math.isfinite(one.error_before + one.error_after) else ""
        cells = [number(one.temperature, 2), number(one.error_before), number(one.error_after)]
        rows.append([tag("span", text(short_name(name)), title=name), *cells, tag("div", drawn, style="min-width:220px")])
    rows.append(["", "", "", "", axis_row(scale, "scale of the calibration error")])
    names = ("Model", "Temperature", "Error before", "Error after", "Expected calibration error: hollow before, filled after")
    return table(names, rows, numeric=(1, 2, 3), name="calibration", caption="Temperature fitted on the other folds; 0 is perfect")


def _likely_wrong(report: Report, colours: Mapping[str, str]) -> str:
    """Held-out cases by predicted Dice, lowest first: the order in which they should be looked at."""
    rows = [(one.predicted, one.case, organ, one.true) for organ, points in report.estimated_dice.items() for one in points]
    if not rows:
        return ""
    listed = [[text(case), organ_name(organ, colours), number(guess), number(true)] for guess, case, organ, true in sorted(rows)[:15]]
    names = ("Case", "Organ", "Predicted Dice", "True Dice")
    shown = table(names, listed, numeric=(2, 3), name="cases that are likely wrong", caption="Likely wrong, first to check")
    return tag("h3", "Cases by how likely they are wrong") + shown
