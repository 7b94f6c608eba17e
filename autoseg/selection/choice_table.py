"""The text that describes a choice and its evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..evaluation.metrics import find_metric, higher_is_better_score
from ..runtime.text_table import aligned, shown_width
from ..schema import CandidateComparison, Choice, Evidence, candidate_name
from ..schema.scores import IMAGES_LIKE_TRAINING
from .evidence import metric_title

SHOWN = 6
"""Candidates that are listed of an organ; of more the best, and the chosen one."""

HEAD = ("candidate", "mean", "95 % interval", "behind by", "p", "corrected", "s/case")


def describe_choice(choice: Choice) -> str:
    """Lists every organ's candidates with intervals, tests and seconds, the best first, and why one is chosen and what to expect of it."""
    lines: list[str] = []
    for organ, members in choice.organs.items():
        evidence = choice.evidence.get(organ)
        lines.append(f"{organ}  ->  {candidate_name(members)}")
        lines += _table(evidence, choice) if evidence is not None else []
        lines += [f"  why: {choice.reasons[organ]}"] if organ in choice.reasons else []
        lines += [_expectation(evidence, choice.metric)] if evidence is not None else []
        lines.append("")
    lines += _merging(choice)
    lines += [f"{words}\n"] if (words := unlike_validation(choice.validated)) else []
    if any(evidence.expected is not None for evidence in choice.evidence.values()):
        lines.append(f"What is expected on new images holds for {IMAGES_LIKE_TRAINING}; autoseg_predict says which look unlike them.")
    unit = find_metric(choice.metric).unit
    title = metric_title(choice.metric) + (f" in {unit}" if unit else "")
    steps = f" with post-processing ({' '.join(choice.postprocess)})" if choice.postprocess else ""
    lines.append(f"{title}{steps} over {choice.cases} validation cases of fold {', '.join(map(str, choice.folds))}; rule {choice.rule}.")
    lines.append("* = chosen. Behind by: mean difference to the chosen one; p: paired test over patients; corrected: for all candidates.")
    return "\n".join(lines)


def unlike_validation(validated: Mapping[str, str]) -> str:
    """Warns of models that were not validated as new images are predicted (`Choice.validated`); empty where all were."""
    if not validated:
        return ""
    ways = "; ".join(f"{name}: {words}" for name, words in validated.items())
    if len(validated) == 1:
        beside = "new images are predicted in full"
    elif len(set(validated.values())) == 1:
        beside = "all alike, so they can be compared; new images are predicted in full"
    else:
        beside = "with fewer mirrored copies or tiles scores are a little lower, so small differences between these models say nothing"
    return f"Validation was shortened, as the time was short ({ways}): {beside}."


def number(value: float, metric: str) -> str:
    """Writes a value of the metric with as many decimals as it deserves, without unit; a dash where there is none."""
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if find_metric(metric).unit or metric == "chaos" else f"{value:.4f}"


def p_value(value: float) -> str:
    """Writes a p-value for a table; a dash where there was no test."""
    return "-" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _table(evidence: Evidence, choice: Choice) -> list[str]:
    """The candidates of an organ, the best first."""
    compared = evidence.compared
    values = {name: higher_is_better_score(one.mean, choice.metric) for name, one in compared.items()}
    ranked = sorted(compared, key=lambda name: -math.inf if math.isnan(values[name]) else values[name], reverse=True)
    listed = ranked[:SHOWN] if evidence.candidate in ranked[:SHOWN] else [*ranked[: SHOWN - 1], evidence.candidate]
    rows = [HEAD, *(_row(name, compared[name], evidence.candidate, choice) for name in listed)]
    rest = len(ranked) - len(listed)
    return [*_aligned(rows), *([f"    and {rest} more"] if rest else [])]


def _row(name: str, one: CandidateComparison, chosen: str, choice: Choice) -> tuple[str, ...]:
    metric = choice.metric
    interval = "-" if math.isnan(one.low) else f"[{number(one.low, metric)}, {number(one.high, metric)}]"
    seconds = f"{choice.seconds[name]:.3g}" if name in choice.seconds else "-"
    tests = ("", "", "") if name == chosen else (number(one.difference, metric), p_value(one.p_value), p_value(one.corrected))
    return (f"{'*' if name == chosen else ' '} {name}", number(one.mean, metric), interval, *tests, seconds)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as the terminal allows, indented by two; columns without any number are left out."""
    names, means, *others = zip(*rows, strict=True)
    numbers = [means, *(column for column in others if any(cell not in ("", "-") for cell in column[1:]))]
    table = aligned(list(zip(names, *numbers, [""] * len(names), strict=True)), shown_width() - 2)
    return [f"  {line}".rstrip() for line in table.split("\n")]


def _merging(choice: Choice) -> list[str]:
    """Tells how many voxels organs compete for in one map, and whose scores merging changes."""
    if (merged := choice.merged) is None:
        return []
    counts = f"{merged.conflicts:.0f} voxels a case are claimed by two organs (at most {merged.most})"
    means = {organ: (number(merged.alone[organ], choice.metric), number(mean, choice.metric)) for organ, mean in merged.together.items()}
    changed = [f"{organ} {before} -> {after}" for organ, (before, after) in means.items() if before != after]
    effect = f"That, and calibrated averages, change {', '.join(changed)}" if changed else "That changes no score"
    return [f"Organs of several models in one map: {counts}. The more probable one gets them. {effect}.", ""]


def _expectation(evidence: Evidence, metric: str) -> str:
    expected = evidence.expected
    naive = evidence.compared[evidence.candidate].mean
    if expected is None:
        return f"  expected on new images: somewhat worse than {number(naive, metric)}, by which it was chosen (one fold gives no estimate)"
    interval = f" [{number(expected.low, metric)}, {number(expected.high, metric)}]" if not math.isnan(expected.low) else ""
    others = sorted(set(expected.chosen.values()) - {evidence.candidate})
    stable = f"; without one of the folds the choice would also be {', '.join(others)}" if others else ""
    estimate = f"{number(expected.mean, metric)}{interval} (nested; the naive figure is {number(expected.naive, metric)})"
    return f"  expected on new images: {estimate}{stable}"
