"""Views of what a report knows of the dataset, the plan and the whole: plain values for the templates of the same names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..schema import PostProcessing
from .content import DatasetFacts, Report
from .figures import Scale, common_scale
from .formatting import NO_BREAK, TIMES, number, significant


def overview(report: Report) -> dict[str, Any]:
    """The score to expect on new images, for each organ that has a model."""
    cards = [_card(report, organ) for organ in report.organs if report.chosen_name(organ)]
    return {"cards": cards, "nested": [card["is_nested"] for card in cards]}


def _card(report: Report, organ: str) -> dict[str, Any]:
    mean, low, high, is_nested = headline(report, organ)
    scale = Scale(0, 1) if report.better == "higher" and 0 <= mean <= 1 else common_scale([0.0, mean, low, high])
    interval = f"95 %: {number(low)} – {number(high)}" if math.isfinite(low) else "no interval known"
    values = {"mean": mean, "low": low, "high": high, "is_nested": is_nested}
    return {"organ": organ, "candidate": report.chosen_name(organ), "interval": interval, "scale": scale} | values


def headline(report: Report, organ: str) -> tuple[float, float, float, bool]:
    """Mean score, its interval, and whether it is the nested estimate; without one, the best that is known of the organ."""
    choice, unknown = report.choice, (math.nan, math.nan, math.nan, False)
    if choice is None:
        return unknown
    evidence = choice.evidence.get(organ)
    if evidence is None:  # what the table holds is Dice, whatever was compared
        mean = choice.table.get(report.chosen_name(organ), {}).get(organ, math.nan) if choice.metric == "dice" else math.nan
        return mean, *unknown[1:]
    estimate = evidence.expected or evidence.compared.get(evidence.candidate)
    return unknown if estimate is None else (estimate.mean, estimate.low, estimate.high, evidence.expected is not None)


def dataset_section(report: Report) -> dict[str, Any]:
    """Sizes, organs with their volumes, and intensities of the data."""
    facts = report.dataset
    pairs = [("Cases", str(facts.cases))]
    if facts.patients and facts.patients != facts.cases:
        pairs.append(("Patients", str(facts.patients)))
    pairs.append(("Channels", ", ".join(facts.channels)))
    if facts.shapes:
        pairs += [("Voxels, median", _median(facts.shapes, 0)), ("Voxels, smallest to largest", _range(facts.shapes, 0))]
        pairs += [("Spacing, median, mm", _median(facts.spacings, 2)), ("Spacing, finest to coarsest, mm", _range(facts.spacings, 2))]
    if facts.orientations:
        pairs.append(("Orientation", ", ".join(f"{name or 'unknown'} ({n})" for name, n in facts.orientations.items())))
    known = [value for volumes in facts.volumes.values() for value in volumes if value > 0]
    scale = Scale(min(known) * 0.8, max(known) * 1.25, log=max(known) / min(known) > 20, margin=2) if known else None
    organs = [_organ_volumes(facts, organ, values) for organ, values in zip(facts.labels.names, facts.labels.members, strict=True)]
    return {"pairs": pairs, "scale": scale, "organs": organs, "channels": list(zip(facts.channels, facts.intensities, strict=False))}


def _median(rows: Sequence[Sequence[float]], digits: int) -> str:
    return TIMES.join(_short(value, digits) for value in np.median(rows, axis=0))


def _range(rows: Sequence[Sequence[float]], digits: int) -> str:
    ends = [(_short(min(column), digits), _short(max(column), digits)) for column in zip(*rows, strict=True)]
    return TIMES.join(low if low == high else f"{low}–{high}" for low, high in ends)


def _short(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"


def _organ_volumes(facts: DatasetFacts, organ: str, label_values: Sequence[int]) -> dict[str, Any]:
    volumes = [value for value in facts.volumes.get(organ, ()) if value > 0]
    return {
        "name": organ,
        "label": ", ".join(map(str, label_values)),
        "present": f"{len(volumes)}{NO_BREAK}of{NO_BREAK}{facts.annotated.get(organ, facts.cases)}"
        if any(map(any, facts.volumes.values()))
        else "–",
        "volumes": volumes,
        "median": float(np.median(volumes)) if volumes else math.nan,
        "range": f"{significant(min(volumes))} – {significant(max(volumes))}" if volumes else "–",
    }


def postprocessing_section(report: Report) -> dict[str, Any] | None:
    """The steps that are applied to masks after prediction, and what they gained."""
    choice = report.choice
    if choice is None or not (choice.evidence or choice.postprocessing):
        return None
    dim = len(report.plan.transpose) if report.plan else 3
    rows = [(organ, _steps(one, dim), one.why) for organ in report.organs if (one := choice.postprocessing.get(organ)) is not None]
    untouched = [organ for organ in report.organs if organ not in choice.postprocessing and organ in choice.organs]
    return {"rows": rows, "untouched": untouched}


def _steps(postprocessing: PostProcessing, dim: int) -> str:
    steps = []
    if size_mm := postprocessing.min_volume_mm3:
        size = f"{significant(size_mm / 1000)} ml" if dim == 3 else f"{significant(size_mm)} mm²"
        steps.append(f"components below {size} are removed")
    if (n := postprocessing.components) is not None:
        steps.append("only the largest component is kept" if n == 1 else f"only the {n} largest components are kept")
    if postprocessing.fill_holes:
        steps.append("holes are filled")
    return "; ".join(steps) or "nothing"


def reproduction_section(report: Report) -> dict[str, Any]:
    """Settings of the trainings, those that all share apart from those that differ, and what failed in validation."""
    keys = list(dict.fromkeys(key for run in report.runs for key in run.facts))
    values = {key: [run.facts.get(key, "–") for run in report.runs] for key in keys}
    shared = {key: column[0] for key, column in values.items() if len(column) > 1 and len(set(column)) == 1}
    differing = [key for key in keys if key not in shared]
    rows = [[run.model, run.fold, *(run.facts.get(key, "–") for key in differing)] for run in report.runs]
    failures = [(f"{run.model}, fold {run.fold}", case, reason) for run in report.runs for case, reason in run.failures.items()]
    return {"shared": shared, "differing": differing, "trainings": rows, "failures": failures}
