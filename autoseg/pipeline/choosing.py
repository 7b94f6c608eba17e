"""From cross-validation predictions to the choice that prediction follows."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..data.descriptions import copy_planned_dataset, planned_dataset, with_references
from ..evaluation.metrics import find_metric, higher_is_better_score
from ..runtime.registry import lookup
from ..runtime.serialization import read_json, write_json
from ..runtime.workspace import find_workspace
from ..schema import Candidate, Choice, Score
from ..selection.candidate_scores import SelectionTask, scores_of_averages, scores_of_models
from ..selection.choice import DEFAULT_RULE, RULES, SelectionContext, candidates_for, choose, narrowed
from ..selection.choice_table import describe_choice
from ..selection.member_calibration import calibrated_choice
from ..selection.organ_merging import merged_choice
from ..selection.postprocessing_trials import choose_postprocessing
from ..selection.stored_scores import (
    common_cases,
    comparable,
    mean_scores_of_own_folds,
    seconds_of,
    stored_scores,
    validated_ids,
    validated_models,
    with_probabilities,
    with_scores,
)

__all__ = ["choose_again", "describe_choice", "find_best_configuration", "voting_folds"]

log = logging.getLogger(__name__)

MOST_AVERAGES = {"overlap": 400, "masks": 24}
"""Averages that are compared, by what the metric needs: voxels are counted for hundreds of label maps at once, surfaces one by one."""


def find_best_configuration(
    which: str | int,
    *,
    home: str | Path | None = None,
    rule: str = DEFAULT_RULE,
    max_members: int = 3,
    metric: str = "dice",
    max_seconds: float | None = None,
) -> Choice:
    """Chooses for every organ a model, or an average of models, among those that cover it, by their cross-validation.

    Args:
        which: Dataset id, name or folder.
        home: Home folder.
        rule: Name in `autoseg.selection.choice.RULES`, or ``module:function`` of a `Comparison`.
        max_members: Largest number of models that are averaged.
        metric: By which candidates are compared: a name in `autoseg.evaluation.metrics.METRICS`, or ``module:function``.
        max_seconds: Candidates that took longer a case in validation (with the networks of one fold) are left out.

    Returns:
        The choice with its evidence, which also lies in ``results/<dataset>/choice.json``.

    Raises:
        ValueError: Nothing is trained yet, nothing is quick enough, or rule or metric cannot be chosen by.
    """
    lookup(RULES, rule, "rule of selection")
    higher_is_better_score(0.0, metric)
    workspace = find_workspace(home, dataset=str(which))
    dataset = planned_dataset(workspace, which)
    plan = workspace.plan(dataset.name)
    results = workspace.results(dataset.name)
    models, organs = validated_models(workspace, plan)
    if not models:
        raise ValueError(f"{results}: nothing is trained and validated yet. Run: autoseg_train {dataset.name} 3d_fullres 0")
    made_from = validated_ids(results, models)
    names, folds = comparable(models, organs)
    names = with_scores({name: [score for fold in folds for score in stored_scores(results, name, fold)] for name in names})
    dataset = with_references(dataset)
    cases = common_cases(workspace, dataset, {name: organs[name] for name in names}, folds)
    task = SelectionTask(results, plan, cases, metric, dataset.tolerances)
    seconds = seconds_of(results, names, folds)
    candidates, scores = _candidates(task, {name: organs[name] for name in names}, max_members, seconds, max_seconds)
    alone = _without_comparison(task, models, organs, candidates)
    choice = Choice({}, tuple(folds), {}, 0, rule=rule, metric=metric)
    if candidates:
        wanted = [organ for organ in plan.labels.names if organ not in alone]
        choice = choose(scores, candidates, wanted, folds=folds, rule=rule, known=_circumstances(task, candidates, seconds))
    choice = replace(_with_others(choice, alone, plan.labels.names), max_members=max_members, max_seconds=max_seconds, made_from=made_from)
    choice = replace(choice, voters={name: voting_folds(models[name]) for members in choice.organs.values() for name in members})
    choice = merged_choice(task, calibrated_choice(task, choice), scores)
    choice = choose_postprocessing(workspace, dataset, task, choice)
    write_json(results / "choice.json", choice)
    write_json(results / "plan.json", plan)
    copy_planned_dataset(workspace, plan.dataset)
    return choice


def choose_again(which: str | int, *, home: str | Path | None = None) -> Choice:
    """As `find_best_configuration`, by the rule, the metric and the limits of the choice that was made before, where there is one.

    Raises:
        ValueError: Nothing is trained yet.
    """
    workspace = find_workspace(home, dataset=str(which))
    path = workspace.results(planned_dataset(workspace, which).name) / "choice.json"
    before = read_json(path, Choice) if path.is_file() else Choice({}, (), {}, 0, rule=DEFAULT_RULE)
    rule = before.rule if before.rule in RULES or ":" in before.rule else DEFAULT_RULE
    limits = {"max_members": before.max_members, "max_seconds": before.max_seconds}
    return find_best_configuration(which, home=home, rule=rule, metric=before.metric, **limits)


def voting_folds(trained: Sequence[str]) -> tuple[str, ...]:
    """The folds of a model that vote: all numbered ones; fold ``all`` where there are none."""
    return tuple(fold for fold in trained if fold != "all") or tuple(trained)


def _candidates(
    task: SelectionTask, organs: Mapping[str, tuple[str, ...]], max_members: int, seconds: Mapping[str, float], max_seconds: float | None
) -> tuple[list[Candidate], dict[str, list[Score]]]:
    """The candidates that have scores, and those scores.

    Args:
        task: By what they are judged.
        organs: Model to its organs.
        max_members: Largest number of models that are averaged.
        seconds: Model to seconds a case.
        max_seconds: Candidates that take longer are left out; None leaves out none.
    """
    scores = scores_of_models(task, list(organs))
    candidates = candidates_for(with_scores(scores), max_members, organs=organs)
    candidates = candidates if max_seconds is None else _quick(candidates, seconds, max_seconds)
    candidates = with_probabilities(task.results, candidates, task.cases)
    candidates = narrowed(candidates, scores, task.metric, MOST_AVERAGES[find_metric(task.metric).needs])
    scores |= scores_of_averages(task, [candidate for candidate in candidates if len(candidate.members) > 1])
    return [candidate for candidate in candidates if scores[candidate.name]], scores


def _quick(candidates: Sequence[Candidate], seconds: Mapping[str, float], most: float) -> list[Candidate]:
    """The candidates that are known to take at most so many seconds a case."""
    cost = {candidate.name: _cost(candidate, seconds) for candidate in candidates}
    quick = [candidate for candidate in candidates if cost.get(candidate.name) is not None and cost[candidate.name] <= most]
    unknown = [name for name, value in cost.items() if value is None]
    if unknown:
        log.warning("Left out, as nobody measured how long they take: %s", ", ".join(unknown))
    if not quick:
        told = ", ".join(f"{name} {value:.3g}" for name, value in cost.items() if value is not None)
        raise ValueError(f"at most {most:g} seconds a case: no model is that quick; measured: {told or 'none'}")
    return quick


def _cost(candidate: Candidate, seconds: Mapping[str, float]) -> float | None:
    """Seconds of all its members, None where one was not measured."""
    return sum(seconds[name] for name in candidate.members) if all(name in seconds for name in candidate.members) else None


def _circumstances(task: SelectionTask, candidates: Sequence[Candidate], seconds: Mapping[str, float]) -> SelectionContext:
    """What the choice is told beside the scores; fold ``all`` holds no case out, so it gives no nested estimate."""
    some = [(fold, case) for fold, cases in task.cases.items() for case in cases]
    costs = {candidate.name: cost for candidate in candidates if (cost := _cost(candidate, seconds)) is not None}
    return SelectionContext(
        task.metric,
        fold_of={case.name: fold for fold, case in some},
        patient_of={case.name: case.group for _, case in some if case.group},
        seconds=costs,
    )


def _without_comparison(
    task: SelectionTask, models: Mapping[str, list[str]], organs: Mapping[str, tuple[str, ...]], candidates: Sequence[Candidate]
) -> dict[str, tuple[str, str]]:
    """Organ that no candidate covers, but a model does -> the best such model by its own numbered folds, and one sentence."""
    lacking = {organ for name in models for organ in organs[name]} - {organ for candidate in candidates for organ in candidate.organs}
    higher_is_better = mean_scores_of_own_folds(
        task.results, {name: folds for name, folds in models.items() if lacking & set(organs[name])}, task.metric
    )
    found: dict[str, tuple[str, str]] = {}
    for organ in sorted(lacking):
        able = [name for name in models if organ in organs[name]]
        best = max(able, key=lambda name: higher_is_better[name].get(organ, -math.inf))
        why = "the only model of it" if len(able) == 1 else "the best of its models, each by its own folds"
        found[organ] = best, f"{best}: not compared with the others; {why}"
    if found:
        log.warning("Not compared: %s", "; ".join(f"{organ} is taken from {model}" for organ, (model, _) in found.items()))
    return found


def _with_others(choice: Choice, alone: Mapping[str, tuple[str, str]], names: Sequence[str]) -> Choice:
    """The choice with what was not compared, organs in the order of the labels."""
    organs = choice.organs | {organ: (model,) for organ, (model, _) in alone.items()}
    reasons = choice.reasons | {organ: reason for organ, (_, reason) in alone.items()}
    chosen = [organ for organ in names if organ in organs]
    return replace(choice, organs={organ: organs[organ] for organ in chosen}, reasons={organ: reasons[organ] for organ in chosen})
