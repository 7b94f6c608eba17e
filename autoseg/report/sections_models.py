"""Views of the models: their learning curves, their comparison for every organ, their cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..schema import CandidateComparison, Choice, Evidence
from ..selection.choice_table import unlike_validation
from .content import Report, RunFacts
from .figures import ACCENT, INK, PLAIN, Curve, Scale, common_scale, curve_figure
from .formatting import duration, number, p_value, parameters, short_name, signed

MAX_SHOWN = 12
"""Candidates drawn for each organ before the rest is shown on demand; the chosen one is always drawn."""


def curves_section(report: Report, colours: Mapping[str, str]) -> dict[str, Any] | None:
    """Loss and validation Dice of every model and fold over the training."""
    models: dict[str, list[RunFacts]] = {}
    for run in report.runs:
        if run.history:
            models.setdefault(run.model, []).append(run)
    if not models:
        return None
    losses = _loss_range([run for runs in models.values() for run in runs])
    seen = {key for runs in models.values() for run in runs for row in run.history for key, value in row.items() if not math.isnan(value)}
    organs = [organ for organ in colours if f"dice_{organ}" in seen]
    return {"models": [_model_curves(name, runs, losses, colours) for name, runs in models.items()], "organs": organs}


def _loss_range(runs: Sequence[RunFacts]) -> tuple[float, float]:
    keys = ("train_loss", "validation_loss")
    losses = sorted(row[key] for run in runs for row in run.history for key in keys if math.isfinite(row.get(key, math.nan)))
    if not losses:
        return 0.0, 1.0
    low, high = (
        losses[0],
        losses[min(len(losses) - 1, int(0.99 * len(losses)))],
    )  # an outlier of the first interval must not flatten the rest
    air = 0.05 * (high - low) or 0.1
    return low - air, high + air


def _model_curves(name: str, runs: Sequence[RunFacts], losses: tuple[float, float], colours: Mapping[str, str]) -> dict[str, Any]:
    loss_curves, dice_curves = [], []
    for run in runs:
        xs = _iterations(run)
        for key, colour in (("train_loss", PLAIN), ("validation_loss", ACCENT)):
            loss_curves.append(Curve(xs, [row.get(key, math.nan) for row in run.history], colour))
        for organ, colour in colours.items():
            values = [row.get(f"dice_{organ}", math.nan) for row in run.history]
            dice_curves.append(Curve(xs, values, colour, opacity=0.45 if len(runs) > 1 else 1.0))
    intervals = min(len(run.history) for run in runs)
    means = [sum(run.history[place].get("mean_dice", math.nan) for run in runs) / len(runs) for place in range(intervals)]
    dice_curves.append(Curve(_iterations(runs[0])[:intervals], means, INK, width=2.2))
    folds, x_max = ", ".join(run.fold for run in runs), max(x for run in runs for x in _iterations(run))
    loss = curve_figure(
        loss_curves, x_max=x_max, y_range=losses, name=f"loss {name}", label=f"{name}, folds {folds}: loss over the iterations"
    )
    label = f"{name}, folds {folds}: Dice of held-out cases over the iterations"
    dice = curve_figure(dice_curves, x_max=x_max, y_range=(0, 1), name=f"dice {name}", label=label)
    return {"name": name, "folds": folds, "figures": {"Loss": loss, "Validation Dice": dice}}


def _iterations(run: RunFacts) -> list[float]:
    return [row.get("iteration", float(interval)) for interval, row in enumerate(run.history, start=1)]


def comparison_section(report: Report) -> dict[str, Any] | None:
    """All candidates of every organ with their cases, intervals and tests."""
    if not report.scores and report.choice is None:
        return None
    organs = [_organ_comparison(report, organ) for organ in report.organs]
    rows = [row for organ in organs for table in organ["tables"] for row in table["rows"]]
    legend = {
        "points": any(row["points"] for row in rows),
        "box": any(row["box"] for row in rows),
        "interval": any(math.isfinite(row["compared"].low) for row in rows),
    }
    return {"organs": organs, "legend": legend, "validated": unlike_validation(report.choice.validated) if report.choice else ""}


def _organ_comparison(report: Report, organ: str) -> dict[str, Any]:
    choice, chosen = report.choice, report.chosen_name(organ)
    evidence = choice.evidence.get(organ) if choice else None
    candidates = _candidates(report, organ, evidence)
    expected = evidence.expected if evidence else None
    first = [name for place, name in enumerate(candidates) if place < MAX_SHOWN or name == chosen]
    tables = [
        [_candidate_row(report, organ, name, candidates[name]) for name in names]
        for names in (first, [name for name in candidates if name not in first])
    ]
    return {
        "organ": organ,
        "chosen": chosen,
        "reason": _shortened(choice.reasons.get(organ, ""), choice) if choice else "",
        "expected": expected,
        "fold_choices": sorted({short_name(name) for name in expected.chosen.values()}) if expected else [],
        "scale": _score_scale(report, organ, candidates),
        "tables": [
            {"rows": rows, "columns": [key for key in rows[0]["numbers"] if any(row["numbers"][key] != "–" for row in rows)]}
            for rows in tables
            if rows
        ],
    }


def _candidates(report: Report, organ: str, evidence: Evidence | None) -> dict[str, CandidateComparison]:
    """Candidate to its mean score, interval and test, best first."""
    table = report.choice.table if report.choice else {}
    names = dict.fromkeys([*(evidence.compared if evidence else ()), *(name for name, row in table.items() if organ in row)])
    names |= dict.fromkeys(name for name, organs in report.scores.items() if organ in organs)
    found = {name: _compared(report, organ, name, evidence) for name in names}
    errors = {name: math.inf if math.isnan(one.mean) else report.higher_is_worse_score(one.mean) for name, one in found.items()}
    return {name: found[name] for name in sorted(found, key=lambda name: errors[name])}


def _compared(report: Report, organ: str, name: str, evidence: Evidence | None) -> CandidateComparison:
    """A candidate's result from the choice's evidence, else the mean of its scores."""
    if evidence is not None and name in evidence.compared:
        return evidence.compared[name]
    values = [value for value in report.scores.get(name, {}).get(organ, {}).values() if math.isfinite(value)]
    mean = sum(values) / len(values) if values else math.nan
    if report.choice is not None and report.choice.metric == "dice":
        mean = report.choice.table.get(name, {}).get(organ, mean)
    return CandidateComparison(mean, math.nan, math.nan)


def _score_scale(report: Report, organ: str, candidates: Mapping[str, CandidateComparison]) -> Scale:
    values = [value for name in candidates for value in report.scores.get(name, {}).get(organ, {}).values()]
    values += [value for one in candidates.values() for value in (one.mean, one.low, one.high)]
    bounded = report.better == "higher" and all(0 <= value <= 1 for value in values if math.isfinite(value))
    return common_scale(values, within=(0.0, 1.0) if bounded else None)


def _shortened(reason: str, choice: Choice) -> str:
    """A reason with the candidates' short names."""
    for name in sorted(choice.table, key=len, reverse=True):
        reason = reason.replace(name, short_name(name))
    return reason.rstrip(".")


def _candidate_row(report: Report, organ: str, name: str, compared: CandidateComparison) -> dict[str, Any]:
    """A candidate's cases, their box plot and its numbers by column."""
    from matplotlib.cbook import boxplot_stats

    is_chosen = name == report.chosen_name(organ)
    cases = {case: value for case, value in report.scores.get(name, {}).get(organ, {}).items() if math.isfinite(value)}
    interval = f" [{number(compared.low)}, {number(compared.high)}]" if math.isfinite(compared.low) else ""
    numbers = {
        "Mean [95 %]": number(compared.mean) + interval,
        "Chosen minus this": "–" if is_chosen else signed(compared.difference),
        "p": "–" if is_chosen else p_value(compared.p_value),
        "p, corrected": "–" if is_chosen else p_value(compared.corrected),
        "s / case": number(report.choice.seconds.get(name, math.nan) if report.choice else math.nan, 1),
    }
    return {
        "name": name,
        "is_chosen": is_chosen,
        "compared": compared,
        "points": [(case, value, _jitter(case)) for case, value in cases.items()],
        "box": boxplot_stats(list(cases.values()))[0] if len(cases) > 2 else None,
        "numbers": numbers,
    }


def _jitter(case: str) -> float:
    """Pixels that a case's point is moved up or down, the same in every row, so that it does not hide its neighbours."""
    return round((sum(ord(letter) * (place + 3) for place, letter in enumerate(case)) % 11 - 5) * 1.1, 1)


def cost_section(report: Report) -> dict[str, Any] | None:
    """Training time, prediction time, size of the networks and run environment; columns that hold nothing are left out."""
    if not report.runs:
        return None
    rows = {name: _cost(report, name) for name in dict.fromkeys(run.model for run in report.runs)}
    columns = [column for column in next(iter(rows.values())) if any(row[column] != "–" for row in rows.values())]
    numeric = [place for place, column in enumerate(columns, start=1) if column not in ("Folds", "Trained on", "PyTorch")]
    cells = {name: [row[column] for column in columns] for name, row in rows.items()}
    return {"rows": cells, "columns": columns, "numeric": numeric, "chosen": _chosen_cost(report)}


def _cost(report: Report, name: str) -> dict[str, str]:
    """The row of a model, by column; what was not measured is a dash."""
    runs = [run for run in report.runs if run.model == name]
    training = [run.history[-1].get("seconds", math.nan) for run in runs if run.history]
    seconds = [value for run in runs for value in run.validation_seconds.values()]
    recorded = report.choice.seconds.get(name, math.nan) if report.choice else math.nan
    environments = [one for run in runs for one in run.run_environment]
    return {
        "Folds": ", ".join(run.fold for run in runs),
        "Training, a fold": duration(sum(training) / len(training)) if training else "–",
        "Training, all": duration(sum(training)) if training else "–",
        "Prediction, s / case": number(sum(seconds) / len(seconds) if seconds else recorded, 1),
        "Parameters": parameters(report.parameters.get(name)),
        "Memory, planned": next((run.facts["memory target"] for run in runs if "memory target" in run.facts), "–"),
        "Memory, peak": f"{max(one.peak_bytes for one in environments) / 1e9:.1f} GB" if environments else "–",
        "Trained on": _unique(one.device for one in environments),
        "PyTorch": _unique(one.torch for one in environments),
    }


def _unique(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values)) or "–"


def _chosen_cost(report: Report) -> dict[str, Any] | None:
    """Seconds a case of the chosen candidates together: with one fold's networks, as measured, and with all that vote."""
    choice = report.choice
    if choice is None or not choice.organs:
        return None
    members = sorted({member for members in choice.organs.values() for member in members})
    seconds = {member: choice.seconds.get(member, math.nan) for member in members}
    all_folds = sum(seconds[member] * len(choice.member_folds.get(member, choice.folds)) for member in members)
    return {"members": members, "one_fold": sum(seconds.values()), "all_folds": all_folds}
