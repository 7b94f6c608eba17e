"""The sections on models: how they learned, how they compare, and which one segments which organ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..schema import Choice, Compared, Evidence
from .charts import Curve, axis_row, box_row, common_scale, curves
from .content import Report, RunFacts
from .markup import count, details, number, p_value, section, short_name, tag, text
from .sections_data import organ_name
from .svg import Scale

SHOWN = 12
"""Candidates drawn for each organ before the rest is shown on demand; the chosen one is always drawn."""


def curves_section(report: Report, colours: Mapping[str, str]) -> str:
    """Loss and validation Dice of every model and fold over the training."""
    models: dict[str, list[RunFacts]] = {}
    for run in report.runs:
        if run.history:
            models.setdefault(run.model, []).append(run)
    if not models:
        return ""
    losses = _loss_scale([run for runs in models.values() for run in runs])
    cells = [_model_curves(name, runs, losses, colours) for name, runs in models.items()]
    legend = [
        ("--c:var(--plain)", "", "training loss"),
        ("--c:var(--accent)", "", "validation loss"),
        *((f"--c:{colours[organ]}", "", f"{organ}, Dice") for organ in report.organs),
        ("--c:var(--ink)", "", "mean Dice"),
    ]
    lead = "A thin line is a fold. Dice is that of validation patches while training: good for comparing rounds, not for quoting."
    return section("curves", "Learning curves", legend_of(legend), tag("div", *cells, class_="multiples"), lead=lead)


def legend_of(entries: Sequence[tuple[str, str, str]]) -> str:
    """Style and class of a mark, and what it stands for."""
    return tag("ul", *(tag("li", tag("i", style=style, class_=kind or None), text(name)) for style, kind, name in entries), class_="legend")


def _loss_scale(runs: Sequence[RunFacts]) -> Scale:
    found = [
        row[key]
        for run in runs
        for row in run.history
        for key in ("train_loss", "validation_loss")
        if math.isfinite(row.get(key, math.nan))
    ]
    found = sorted(found)
    high = found[min(len(found) - 1, int(0.99 * len(found)))] if found else 1.0  # a first round's outlier must not flatten the rest
    low = found[0] if found else 0.0
    air = 0.05 * (high - low) or 0.1
    return Scale(low - air, high + air, 100, 0)


def _model_curves(name: str, runs: Sequence[RunFacts], losses: Scale, colours: Mapping[str, str]) -> str:
    last = max(row.get("iteration", place) for run in runs for place, row in enumerate(run.history, start=1))
    x_scale = Scale(0.0, float(last))
    loss_lines, dice_lines = [], []
    for run in runs:
        xs = [row.get("iteration", place) for place, row in enumerate(run.history, start=1)]
        for key, kind in (("train_loss", "train"), ("validation_loss", "validation")):
            loss_lines.append(Curve(xs, [row.get(key, math.nan) for row in run.history], kind))
        for organ, colour in colours.items():
            values = [row.get(f"dice_{organ}", math.nan) for row in run.history]
            dice_lines.append(Curve(xs, values, "faint" if len(runs) > 1 else "", f"--line:{colour}"))
    dice_lines += _mean_dice(runs)
    folds = ", ".join(run.fold for run in runs)
    about = f"{name}, folds {folds}"
    panels = (
        ("Loss", curves(loss_lines, x_scale, losses, about=f"{about}: loss over the training steps", x_name="step")),
        ("Validation Dice", curves(dice_lines, x_scale, Scale(0, 1, 100, 0), about=f"{about}: Dice over the steps", x_name="step")),
    )
    pair = tag("div", *(tag("div", tag("h4", title), drawn) for title, drawn in panels), class_="pair")
    word = "fold" if len(runs) == 1 else "folds"
    return tag("div", tag("h3", text(short_name(name)), title=name), tag("p", text(f"{word} {folds}"), class_="quiet"), pair)


def _mean_dice(runs: Sequence[RunFacts]) -> list[Curve]:
    """The mean over organs, averaged over the folds as far as all have come."""
    validation_intervals = min(len(run.history) for run in runs)
    rows = [[run.history[place] for run in runs] for place in range(validation_intervals)]
    xs = [float(row[0].get("iteration", place)) for place, row in enumerate(rows, start=1)]
    ys = [sum(one.get("mean_dice", math.nan) for one in row) / len(row) for row in rows]
    return [Curve(xs, ys, "strong")]


def choice_section(report: Report, colours: Mapping[str, str]) -> str:
    """For every organ all candidates with their cases, intervals and tests."""
    if not report.scores and report.choice is None:
        return ""
    parts = [_organ_part(report, organ, colours) for organ in report.organs]
    marks = [("--c:var(--soft)", "dot", "a held-out case"), ("--c:var(--plain)", "", "box: middle half of the cases; line in it: median")]
    marks.append(("--c:var(--soft)", "", "below: mean and its 95 % interval"))
    lead = f"{text(report.metric)} of the cross-validation: each case was predicted by a network that has not seen it."
    if report.choice is not None and report.choice.cases:
        lead += f" Compared on {count(report.choice.cases, 'case')} of fold {text(', '.join(report.choice.folds))}."
    return section("comparison", "Which model for which organ", legend_of(marks), *parts, lead=lead)


def _organ_part(report: Report, organ: str, colours: Mapping[str, str]) -> str:
    title = tag("h3", organ_name(organ, colours))
    evidence = report.choice.evidence.get(organ) if report.choice else None
    names = _candidates(report, organ, evidence)
    if not names:
        return title + tag("p", "No model segments this organ yet.", class_="quiet")
    said = _said(report, organ, evidence)
    note = tag("div", *(tag("p", sentence) for sentence in said), class_="say") if said else ""
    scale = _scale(report, organ, names, evidence)
    first = [name for place, name in enumerate(names) if place < SHOWN or name == report.chosen_name(organ)]
    rest = [name for name in names if name not in first]
    shown = _evidence_table(report, organ, first, evidence, scale)
    if rest:
        shown += details(f"{count(len(rest), 'further candidate')}", _evidence_table(report, organ, rest, evidence, scale))
    return tag("div", title, note, shown, style=f"--organ:{colours[organ]}")


def _candidates(report: Report, organ: str, evidence: Evidence | None) -> list[str]:
    """Best first."""
    table = report.choice.table if report.choice else {}
    names = dict.fromkeys([*(evidence.compared if evidence else ()), *(n for n, row in table.items() if organ in row)])
    names |= dict.fromkeys(name for name, organs in report.scores.items() if organ in organs)

    def order(name: str) -> tuple[bool, float]:
        mean = _compared(report, organ, name, evidence).mean
        return (math.isnan(mean), 0.0 if math.isnan(mean) else report.badness(mean))

    return sorted(names, key=order)


def _compared(report: Report, organ: str, name: str, evidence: Evidence | None) -> Compared:
    """How a candidate did: from the choice's evidence, else the mean of its scores."""
    if evidence is not None and name in evidence.compared:
        return evidence.compared[name]
    values = [value for value in report.scores.get(name, {}).get(organ, {}).values() if math.isfinite(value)]
    mean = sum(values) / len(values) if values else math.nan
    if report.choice is not None and report.choice.metric == "dice":
        mean = report.choice.table.get(name, {}).get(organ, mean)
    return Compared(mean, math.nan, math.nan)


def _scale(report: Report, organ: str, names: Sequence[str], evidence: Evidence | None) -> Scale:
    values = [value for name in names for value in report.scores.get(name, {}).get(organ, {}).values()]
    for name in names:
        one = _compared(report, organ, name, evidence)
        values += [one.mean, one.low, one.high]
    bounded = report.better == "higher" and all(0 <= value <= 1 for value in values if math.isfinite(value))
    return common_scale(values, within=(0.0, 1.0) if bounded else None)


def _said(report: Report, organ: str, evidence: Evidence | None) -> list[str]:
    """The reason and the nested estimate as sentences, HTML."""
    if report.choice is None:
        return []
    reason = report.choice.reasons.get(organ, "")
    sentences = [f"{tag('strong', 'Chosen:')} {text(_shortened(reason, report.choice))}."] if reason else []
    expected = evidence.expected if evidence else None
    if expected is not None:
        given = f"{number(expected.mean)} [{number(expected.low)}, {number(expected.high)}]"
        sentences.append(
            f"{tag('strong', 'On new images expect ' + given)} ({tag('em', 'nested estimate')} over {count(expected.cases, 'case')}): "
            "for every fold the model is chosen on the other folds and scored on this one: no case judges a choice that it had a part in. "
            f"The naive mean, of the chosen model on the cases that chose it, is {number(expected.naive)}."
        )
        different = sorted({short_name(name) for name in expected.chosen.values()})
        if len(different) > 1:
            sentences.append(text(f"The folds do not agree on the model: {'; '.join(different)}."))
    return sentences


def _shortened(reason: str, choice: Choice) -> str:
    """A reason with the candidates' short names."""
    for name in sorted(choice.table, key=len, reverse=True):
        reason = reason.replace(name, short_name(name))
    return reason.rstrip(".")


def _evidence_table(report: Report, organ: str, names: Sequence[str], evidence: Evidence | None, scale: Scale) -> str:
    """A row a candidate: what it is, its cases drawn, and numbers; columns of which nothing is known are left out."""
    chosen = report.chosen_name(organ)
    cells = {name: _numbers(report, organ, name, _compared(report, organ, name, evidence)) for name in names}
    columns = [what for what in next(iter(cells.values())) if any(one[what] != "–" for one in cells.values())]
    top = [tag("th", "Candidate", scope="col"), tag("th", text(report.metric), scope="col", class_="plot")]
    top += [tag("th", text(what), scope="col", class_="num") for what in columns]
    rows = []
    for name in names:
        numbers = {what: cells[name][what] for what in columns}
        rows.append(_evidence_row(report, organ, name, _compared(report, organ, name, evidence), scale, numbers))
    axis = tag("td", axis_row(scale, f"scale of {report.metric} of {organ}"), class_="plot")
    foot = tag("tr", tag("th", ""), axis, *(tag("td", "") for _ in columns))
    caption = tag("caption", text(f"Candidates for {organ}, best mean first" + (f"; {short_name(chosen)} is chosen" if chosen else "")))
    whole = tag("table", caption, tag("thead", tag("tr", *top)), tag("tbody", *rows), tag("tfoot", foot), class_="evidence")
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=f"candidates for {organ}")


def _numbers(report: Report, organ: str, name: str, one: Compared) -> dict[str, str]:
    """Column to its text."""
    is_chosen = name == report.chosen_name(organ)
    interval = f" [{number(one.low)}, {number(one.high)}]" if math.isfinite(one.low) else ""
    return {
        "Mean [95 %]": number(one.mean) + interval,
        "Chosen minus this": "–" if is_chosen else _signed(one.difference),
        "p": "–" if is_chosen else p_value(one.p_value),
        "p, corrected": "–" if is_chosen else p_value(one.corrected),
        "s / case": number(report.choice.seconds.get(name, math.nan) if report.choice else math.nan, 1),
    }


def _evidence_row(report: Report, organ: str, name: str, one: Compared, scale: Scale, numbers: Mapping[str, str]) -> str:
    is_chosen = name == report.chosen_name(organ)
    cases = report.scores.get(name, {}).get(organ, {})
    about = f"{name}, {organ}: {next(iter(numbers.values()), '')}" + ("; chosen" if is_chosen else "")
    drawn = box_row(cases, scale, mean=one.mean, interval=(one.low, one.high), is_chosen=is_chosen, about=about)
    first = text(short_name(name)) + (tag("span", "chosen", class_="mark") if is_chosen else "")
    cells = [tag("td", text(value), class_="num none" if value == "–" else "num", data_what=what) for what, value in numbers.items()]
    return tag(
        "tr",
        tag("th", first, scope="row", title=name),
        tag("td", drawn, class_="plot"),
        *cells,
        class_="chosen" if is_chosen else None,
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−") if math.isfinite(value) else "–"
