"""Views of single cases: pictures, all held-out cases, calibration and quality estimation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .cases import case_values, ranked_cases
from .content import Report
from .figures import common_scale, scatter_figure
from .formatting import number
from .planes import plane_view

MAX_LISTED = 25
"""Cases in the table before the rest is shown on demand."""

MAX_SUSPECTS = 15
"""Cases with a low estimated Dice that are listed."""


def cases_section(report: Report) -> dict[str, Any] | None:
    """Pictures of some cases, and the scores of all, worst first."""
    ranked = ranked_cases(report)
    if not ranked and not report.pictures:
        return None
    columns = [case_values(report, organ) for organ in report.organs]
    ranges = [[report.higher_is_worse_score(value) for value in column.values() if math.isfinite(value)] for column in columns]
    rows = []
    for case, mean in ranked:
        values = [column.get(case, math.nan) for column in columns]
        cells = [(value, _depth(report.higher_is_worse_score(value), known)) for value, known in zip(values, ranges, strict=True)]
        rows.append({"case": case, "fold": report.folds_of.get(case, "–"), "mean": mean, "cells": cells})
    pictures = [
        (
            replace(picture, values={organ: report.final.get(organ, {}).get(picture.case, dice) for organ, dice in picture.values.items()}),
            [plane_view(picture.case, plane) for plane in picture.planes],
        )
        for picture in report.pictures
    ]
    final = all(column.keys() <= report.final.get(organ, {}).keys() for organ, column in zip(report.organs, columns, strict=True))
    return {"pictures": pictures, "legend": _legend(report), "rows": rows[:MAX_LISTED], "more": rows[MAX_LISTED:], "final": final}


def _legend(report: Report) -> dict[str, Any]:
    """What the pictures show: whether predictions, references and letters of directions, and which organs."""
    planes = [plane for picture in report.pictures for plane in picture.planes]
    drawn = {organ for plane in planes for organ in (*plane.prediction, *plane.reference)}
    return {
        "prediction": any(plane.prediction for plane in planes),
        "reference": any(plane.reference for plane in planes),
        "directions": any(any(plane.edges) for plane in planes),
        "organs": [organ for organ in report.organs if organ in drawn],
    }


def _depth(error: float, column: list[float]) -> int:
    """Per cent of colour behind a score: the more the worse it is among the column's; 0 where it is unknown or all are alike."""
    if not math.isfinite(error) or max(column) - min(column) < 1e-9:
        return 0
    return round(45 * (error - min(column)) / (max(column) - min(column)))


def uncertainty_section(report: Report, colours: Mapping[str, str]) -> dict[str, Any] | None:
    """Calibration of the models' probabilities, and how well Dice is estimated without a reference."""
    choice = report.choice
    if choice is None or not (choice.calibration or choice.dice_regression):
        return None
    errors = [value for one in choice.calibration.values() for value in (one.error_before, one.error_after)]
    estimates = {}
    for organ, regression in choice.dice_regression.items():
        points = [
            (f"{one.case}: estimated {number(one.estimated)}, true {number(one.true)}", one.estimated, one.true)
            for one in report.estimated_dice.get(organ, ())
        ]
        label = f"{organ}: estimated against true Dice of {len(points)} held-out cases"
        figure = scatter_figure(points, colours[organ], name=f"estimate {organ}", label=label) if points else ""
        estimates[organ] = (regression, figure)
    suspects = sorted((one.estimated, one.case, organ, one.true) for organ, points in report.estimated_dice.items() for one in points)
    return {
        "calibration": choice.calibration,
        "scale": common_scale([0.0, *errors]),
        "estimates": estimates,
        "suspects": suspects[:MAX_SUSPECTS],
    }
