"""The first sections: the head with the numbers to quote, the dataset, the plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..schema import Configuration, Evidence, Plan
from .charts import axis_row, common_scale, interval_bar, strip
from .content import DatasetFacts, Report
from .markup import count, details, facts, figures, number, section, short_name, table, tag, text
from .svg import Scale

FIXED = "\N{NO-BREAK SPACE}"
TIMES = f"{FIXED}×{FIXED}"
"""Between the numbers of a size, which stay on one line: a table that is too wide scrolls."""


def organ_name(organ: str, colours: Mapping[str, str]) -> str:
    """An organ's name with its colour before it."""
    return tag("span", text(organ), class_="organ-name", style=f"--organ:{colours[organ]}")


def head(report: Report, colours: Mapping[str, str]) -> str:
    """Title, and for each organ the score to expect on new images."""
    facts_ = [count(report.dataset.cases, "case"), count(len(report.organs), "organ")]
    if report.chosen:
        facts_.append(f"models chosen on {report.chosen}")
    facts_.append(f"report made on {report.made}")
    parts = [
        tag("p", "Segmentation report", class_="kind"),
        tag("h1", text(report.dataset.name)),
        tag("p", text(" · ".join(facts_)), class_="subtitle"),
    ]
    cards = [_card(report, organ, colours) for organ in report.organs]
    if any(cards):
        parts.append(tag("ul", *cards, class_="cards"))
        parts.append(tag("p", text(_card_words(report)), class_="quiet", style="margin-top:10px"))
    return tag("header", *parts, id="top")


def _card(report: Report, organ: str, colours: Mapping[str, str]) -> str:
    name = report.chosen_name(organ)
    if not name or report.choice is None:
        return ""
    mean, low, high, _ = headline(report, organ)
    if not math.isfinite(mean):
        body = tag("div", "–", class_="value") + tag("div", "no held-out case to judge it by", class_="by")
        return tag("li", organ_name(organ, colours), body, class_="card")
    interval = f"95 %: {number(low)} – {number(high)}" if math.isfinite(low) else "no interval known"
    scale = Scale(0, 1) if report.better == "higher" and 0 <= mean <= 1 else common_scale([0.0, mean, low, high])
    bar = interval_bar(low, high, mean, scale, f"{organ}: {report.metric} {number(mean)}, {interval}")
    return tag(
        "li",
        organ_name(organ, colours),
        tag("div", number(mean), class_="value"),
        tag("div", bar, style=f"--organ:{colours[organ]};margin:2px 0 6px"),
        tag("div", text(interval), class_="by"),
        tag("div", text(short_name(name)), class_="by", title=name),
        class_="card",
    )


def headline(report: Report, organ: str) -> tuple[float, float, float, bool]:
    """Mean, its interval, and whether it is the nested estimate: what may be quoted for an organ, or the best that is known of it."""
    nothing = (math.nan, math.nan, math.nan, False)
    if report.choice is None:
        return nothing
    evidence = report.choice.evidence.get(organ)
    if evidence is None:
        # What the table holds is Dice, whatever was compared.
        table = report.choice.table if report.choice.metric == "dice" else {}
        mean = table.get(report.chosen_name(organ), {}).get(organ, math.nan)
        return mean, math.nan, math.nan, False
    return _of_evidence(evidence)


def _of_evidence(evidence: Evidence) -> tuple[float, float, float, bool]:
    if evidence.expected is not None:
        return evidence.expected.mean, evidence.expected.low, evidence.expected.high, True
    own = evidence.compared.get(evidence.candidate)
    return (own.mean, own.low, own.high, False) if own else (math.nan, math.nan, math.nan, False)


def _card_words(report: Report) -> str:
    nested = [headline(report, organ)[3] for organ in report.organs if report.chosen_name(organ)]
    what = f"{report.metric}, mean over held-out cases"
    if all(nested):
        return f"{what}: what to expect on new images like these. Chosen on the other folds, scored on this one, for every fold."
    if not any(nested):
        return (
            f"{what}, of the models that were chosen on the same cases: somewhat too good. With several folds there is an honest estimate."
        )
    return f"{what}. Organs without a nested estimate are judged by the cases that chose their model: somewhat too good."


def dataset_section(report: Report, colours: Mapping[str, str]) -> str:
    """What the data is like."""
    about = report.dataset
    pairs = [("Cases", text(about.cases))]
    if about.patients and about.patients != about.cases:
        pairs.append(("Patients", text(about.patients)))
    pairs.append(("Channels", text(", ".join(about.channels))))
    if about.shapes:
        pairs += [("Voxels, median", _median(about.shapes, 0)), ("Voxels, smallest to largest", _range(about.shapes, 0))]
        pairs += [("Spacing, median, mm", _median(about.spacings, 2)), ("Spacing, finest to coarsest, mm", _range(about.spacings, 2))]
    if about.orientations:
        pairs.append(("Orientation", text(", ".join(f"{name or 'unknown'} ({n})" for name, n in about.orientations.items()))))
    intensities = _intensities(about)
    return section("dataset", "Dataset", facts(pairs), _organs(about, colours), intensities)


def _median(rows: Sequence[Sequence[float]], digits: int) -> str:
    return text(TIMES.join(_short(value, digits) for value in np.median(np.array(rows, float), axis=0)))


def _range(rows: Sequence[Sequence[float]], digits: int) -> str:
    array = np.array(rows, float)
    pairs = zip(array.min(axis=0), array.max(axis=0), strict=True)
    return text(TIMES.join(_short(a, digits) if a == b else f"{_short(a, digits)}–{_short(b, digits)}" for a, b in pairs))


def _short(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"


def _organs(about: DatasetFacts, colours: Mapping[str, str]) -> str:
    """One row an organ: values, presence, and its volumes as strokes on a common scale."""
    known = [value for volumes in about.volumes.values() for value in volumes if value > 0]
    scale = Scale(min(known) * 0.8, max(known) * 1.25, 2, 98, log=max(known) / min(known) > 20) if known else None
    rows = []
    for organ, members in zip(about.labels.names, about.labels.members, strict=True):
        volumes = [value for value in about.volumes.get(organ, ()) if value > 0]
        judged = about.annotated.get(organ, about.cases)
        row = [
            organ_name(organ, colours),
            text(", ".join(map(str, members))),
            f"{len(volumes)} of {judged}".replace(" ", FIXED) if known else "–",
        ]
        if volumes and scale:
            median, low, high = float(np.median(volumes)), min(volumes), max(volumes)
            drawn = strip(
                volumes, scale, f"{organ}: volumes from {figures(low)} to {figures(high)} {about.volume_unit}, median {figures(median)}"
            )
            row += [
                figures(median),
                f"{figures(low)} – {figures(high)}",
                tag("div", drawn, style=f"--organ:{colours[organ]};min-width:200px"),
            ]
        else:
            row += ["–", "–", ""]
        rows.append(row)
    if scale:
        kind = ", logarithmic" if scale.log else ""
        rows.append([tag("span", about.volume_unit + kind, class_="quiet"), "", "", "", "", axis_row(scale, "scale of the volumes")])
    unit = about.volume_unit
    names = ("Organ", "Label", "Cases with it", f"Median, {unit}", f"Range, {unit}", "Volume of each case, and the median")
    return table(names, rows, numeric=(3, 4), name="organs of the dataset", caption="Organs")


def _intensities(about: DatasetFacts) -> str:
    if not about.intensities:
        return ""
    rows = []
    for channel, one in zip(about.channels, about.intensities, strict=False):
        numbers = (one.mean, one.std, one.min, one.percentile_00_5, one.median, one.percentile_99_5, one.max)
        rows.append([text(channel), *(figures(value, 4) for value in numbers)])
    names = ("Channel", "mean", "std", "min", "0.5 %", "median", "99.5 %", "max")
    return table(names, rows, numeric=range(1, 8), name="intensities", caption="Intensities inside the organs, in the units of the files")


def plan_section(report: Report) -> str:
    """The configurations, and why they are what they are."""
    plan = report.plan
    if plan is None:
        return ""
    rows = [_configuration(plan, one, report.parameters) for one in plan.configurations.values()]
    names = ("Configuration", "Spacing, mm", "Median case", "Patch", "Batch", "Network", "Features", "Parameters")
    shown = table(names, rows, numeric=(4, 7), name="configurations", caption="Configurations")
    reasons = [[text(one.configuration), text(one.what), text(one.value), text(one.why)] for one in plan.reasons]
    why = table(("Configuration", "What", "Value", "Why"), reasons, name="reasons of the plan", kind="reasons") if reasons else ""
    lead = f"Preset {text(plan.preset)}, planned for {plan.memory_gb:g} GB of memory."
    return section("plan", "Plan", shown, details("Why the plan is what it is", why, is_open=True) if why else "", lead=lead)


def _configuration(plan: Plan, one: Configuration, parameters: Mapping[str, int]) -> list[str]:
    features = one.built_options.get("features", ())
    listed = ", ".join(map(str, features)) if isinstance(features, (list, tuple)) else str(features)
    known = parameters.get(one.name)
    return [
        text(one.name),
        text(TIMES.join(f"{value:.3g}" for value in one.spacing)),
        text(TIMES.join(map(str, one.median_shape))),
        text(TIMES.join(map(str, one.patch_size))),
        text(one.batch_size),
        text(one.network),
        text(listed or "–"),
        text(f"{known / 1e6:.2f} M" if known else "–"),
    ]


def missing_note(report: Report) -> str:
    """What the report lacks, and the commands that add it."""
    if not report.missing:
        return ""
    items = [tag("li", text(one.what), *((": ", tag("code", text(one.command))) if one.command else ())) for one in report.missing]
    return tag("div", tag("p", tag("strong", "Not in this report")), tag("ul", *items), class_="note", role="note")
