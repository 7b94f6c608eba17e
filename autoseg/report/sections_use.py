"""The last sections: post-processing, time and memory, and everything needed to make the results again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from .content import Report
from .markup import count, details, duration, facts, figures, number, section, short_name, table, tag, text
from .sections_data import organ_name


def postprocessing_section(report: Report, colours: Mapping[str, str]) -> str:
    """What is done to masks after prediction, and what that gained."""
    choice = report.choice
    if choice is None:
        return ""
    rows = []
    for organ in report.organs:
        one = choice.postprocessing.get(organ)
        if one is None:
            continue
        steps = []
        if one.min_volume_mm3:
            steps.append(f"pieces below {figures(one.min_volume_mm3 / 1000)} ml are removed")
        if one.components is not None:
            steps.append("only the largest piece is kept" if one.components == 1 else f"only the {one.components} largest pieces are kept")
        if one.fill_holes:
            steps.append("holes are filled")
        rows.append([organ_name(organ, colours), text("; ".join(steps) or "nothing"), text(one.why)])
    if not rows:
        words = "No step is applied: none helped any organ on the cross-validation."
        return section("postprocessing", "Post-processing", tag("p", words)) if choice.evidence else ""
    left = [organ for organ in report.organs if organ not in choice.postprocessing and organ in choice.organs]
    lead = "Steps that helped on the cross-validation, by the same test as the choice of the model."
    if left:
        lead += f" Nothing is done to {text(', '.join(left))}."
    return section("postprocessing", "Post-processing", table(("Organ", "Step", "Effect"), rows, name="post-processing"), lead=lead)


def cost_section(report: Report) -> str:
    """Training time, prediction time, size of the networks, and what they were trained on; columns that nobody knows are left out."""
    if not report.runs:
        return ""
    rows = [_cost(report, name) for name in dict.fromkeys(run.model for run in report.runs)]
    names = [name for name in rows[0] if name in ("Model", "Folds") or any(row[name] != "–" for row in rows)]
    numeric = [place for place, name in enumerate(names) if name not in ("Model", "Folds", "Trained on", "PyTorch")]
    shown = table(names, [[row[name] for name in names] for row in rows], numeric=numeric, name="time and memory")
    words = "Peak memory is that of a training: of tensors on a GPU, of the whole process on a processor; the largest of the folds."
    note = tag("p", words, class_="quiet") if "Memory, peak" in names else ""
    return section("cost", "Time and memory", shown, note, _averages(report))


def _cost(report: Report, name: str) -> dict[str, str]:
    """The row of a model, by column; what was not measured is a dash."""
    runs = [run for run in report.runs if run.model == name]
    training = [run.history[-1].get("seconds", math.nan) for run in runs if run.history]
    seconds = [value for run in runs for value in run.validation_seconds.values()]
    known = report.choice.seconds.get(name, math.nan) if report.choice else math.nan
    parameters, where = report.parameters.get(name), [one for run in runs for one in run.run_environment]
    return {
        "Model": tag("span", text(short_name(name)), title=name),
        "Folds": text(", ".join(run.fold for run in runs)),
        "Training, a fold": duration(sum(training) / len(training)) if training else "–",
        "Training, all": duration(sum(training)) if training else "–",
        "Prediction, s / case": number(sum(seconds) / len(seconds) if seconds else known, 1),
        "Parameters": f"{parameters / 1e6:.2f} M" if parameters else "–",
        "Memory, planned": text(next((run.facts["memory target"] for run in runs if "memory target" in run.facts), "–")),
        "Memory, peak": f"{max(one.peak_bytes for one in where) / 1e9:.1f} GB" if where else "–",
        "Trained on": _different(one.device for one in where),
        "PyTorch": _different(one.torch for one in where),
    }


def _different(values: Iterable[str]) -> str:
    """Each once, in the order in which they came."""
    return text("; ".join(dict.fromkeys(values)) or "–")


def _averages(report: Report) -> str:
    """What the chosen candidates cost together: with one fold's networks, as measured, and with all that vote."""
    choice = report.choice
    if choice is None or not choice.organs:
        return ""
    members = sorted({member for members in choice.organs.values() for member in members})
    seconds = {member: choice.seconds.get(member, math.nan) for member in members}
    once, all_ = sum(seconds.values()), sum(seconds[member] * len(choice.voters.get(member, choice.folds)) for member in members)
    cost = ""
    if math.isfinite(once):
        cost = f" and take about {number(once, 1)} s a case with the networks of one fold"
        cost += f", {number(all_, 1)} s with those of all folds, as in prediction" if all_ > once else ""
    return tag(
        "p",
        text(f"The chosen candidates need {count(len(members), 'model')}{cost}: {', '.join(map(short_name, members))}."),
        class_="quiet",
    )


def reproduce_section(report: Report) -> str:
    """Commands, versions, settings, files, folds."""
    parts = []
    if report.commands:
        parts += [tag("h3", "Commands"), tag("pre", tag("code", text("\n".join(report.commands))), tabindex="0")]
    if report.versions:
        pairs = [(name, text(value)) for name, value in report.versions.items()]
        parts += [tag("h3", "Versions and machine of this report"), facts(pairs)]
    if report.runs:
        parts.append(_runs(report))
    failures = [[text(f"{run.model}, fold {run.fold}"), text(case), text(why)] for run in report.runs for case, why in run.failures.items()]
    if failures:
        parts += [tag("h3", "Cases that could not be validated"), table(("Run", "Case", "Reason"), failures, name="failures")]
    if report.files:
        rows = [[tag("code", text(name)), tag("code", text(value))] for name, value in report.files.items()]
        parts += [tag("h3", "Files that decide everything"), table(("File", "SHA-256"), rows, name="files")]
    if report.splits:
        parts.append(details(f"{count(len(report.splits), 'fold')}: which cases are held out", _splits(report)))
    return section("reproduce", "How to make this again", *parts)


def _runs(report: Report) -> str:
    keys = list(dict.fromkeys(key for run in report.runs for key in run.facts))
    rows = [[tag("span", text(run.model)), text(run.fold), *(text(run.facts.get(key, "–")) for key in keys)] for run in report.runs]
    same = [place for place in range(len(keys)) if len({row[place + 2] for row in rows}) == 1] if len(rows) > 1 else []
    common = [(keys[place], rows[0][place + 2]) for place in same]
    kept = [place for place in range(len(keys)) if place not in same]
    names = ("Model", "Fold", *(text(keys[place]) for place in kept))
    shown = table(names, [[*row[:2], *(row[place + 2] for place in kept)] for row in rows], name="trainings")
    return tag("h3", "Trainings") + (facts(common) if common else "") + details("Settings of every run", shown)


def _splits(report: Report) -> str:
    rows = [[str(fold), text(len(split.train)), text(", ".join(split.val))] for fold, split in enumerate(report.splits)]
    return table(("Fold", "Training cases", "Held out"), rows, name="folds")
