"""The table that a paper's experiment ends with: its models, and those chosen for each organ, on the held-out cases."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.descriptions import planned_dataset, with_references
from ..evaluation.counts import nan_mean
from ..evaluation.metrics import METRICS, find_metric, has_value, higher_is_better_score, value_of
from ..evaluation.summaries import pooled_dice
from ..evaluation.tables import number
from ..preprocessing.preprocess import knows_spacing
from ..presets.experiment import Experiment, describe_not_run
from ..presets.paper_preset import PaperTable, words_about
from ..runtime.registry import allows_code
from ..runtime.runs import ALL, ModelFolder
from ..runtime.text_table import aligned, wrapped
from ..runtime.workspace import Workspace, find_workspace
from ..schema import Choice, Dataset, Plan, Score, candidate_name
from ..selection.candidate_scores import scores_of_models
from ..selection.cross_validation import CrossValidation
from ..selection.stored_scores import common_cases, scores_of_folds
from ..trainers.training_spec import training_spec
from .paper_ensembles import paper_ensemble_folders

Scores = Mapping[str, Mapping[str, Sequence[Score]]]
"""Model of the paper's table to organ to its scores of the held-out cases."""


@allows_code()
def describe_experiment(
    which: str | int, experiment: Experiment, choice: Choice, configurations: Sequence[str], *, home: str | Path | None = None
) -> str:
    """The table of a paper's experiment in text, as the paper has it; empty where the preset has none.

    A block an organ, with mean and standard deviation of every metric over the held-out cases of all validated folds; then the score of
    each model for each organ, its mean over the organs and its rank. Models that were not run are named with the reason.

    Args:
        configurations: That were trained.
    """
    paper = experiment.paper
    if paper is None or paper.table is None:
        return ""
    workspace = find_workspace(home, dataset=str(which))
    dataset = planned_dataset(workspace, which)
    plan, results = workspace.plan(dataset.name), workspace.results(dataset.name)
    table = _feasible(paper.table, plan)
    labels_of: dict[str, str] = {}
    for configuration in configurations:
        for row, settings in zip(experiment.rows, experiment.trainings, strict=True):
            spec = training_spec(plan, configuration, settings, windows=dataset.windows)
            model = spec.model(results, settings.trainer)
            labels_of[model.name] = " ".join([row or spec.configuration.network, *([configuration] if len(configurations) > 1 else [])])
    ensembles, failures = paper_ensemble_folders(workspace, dataset, experiment, configurations)
    labels_of |= {model.name: label for label, model in ensembles.items()}
    found = _scores_of_models(workspace, dataset, labels_of, table)
    scores: dict[str, dict[str, list[Score]]] = {}
    for name, label in labels_of.items():
        for score in found[name]:
            scores.setdefault(label, {}).setdefault(score.organ, []).append(score)
    taken = {organ: labels_of[members[0]] for organ, members in choice.organs.items() if len(members) == 1 and members[0] in labels_of}
    chosen = _chosen(table, scores, taken) if table.chosen else {}
    for organ, label in chosen.items():
        scores.setdefault(table.chosen, {})[organ] = scores[label][organ]
    lines = _averages(table, scores, plan.labels.names) if table.averages else _lines(table, scores, plan.labels.names, chosen)
    if not scores:
        lines = ["no table: none of its models was validated on held-out cases, which fold all does not have"]
    elif table.postprocess:
        lines.append(f"scored with post-processing: {' '.join(table.postprocess)}")
    if others := {organ: candidate_name(choice.organs[organ]) for organ in chosen if organ in choice.organs and organ not in taken}:
        names = ", ".join(f"{organ} by {name}" for organ, name in others.items())
        lines.append(f"autoseg_predict segments {names}: chosen among all models of the dataset, also those that are not of this table")
    missing = [*describe_not_run(experiment), *(f"{name}: {reason}" for name, reason in failures.items())]
    return "\n".join([*lines, *(wrapped(f"not run: {one}") for one in missing)])


def _feasible(table: PaperTable, plan: Plan) -> PaperTable:
    """The table with the post-processing that suits the organs, and by Dice where nobody knows the spacing."""
    table = replace(table, postprocess=words_about(plan.labels, table.postprocess))
    return table if knows_spacing(plan) or METRICS[table.score].needs == "overlap" else replace(table, score="dice")


def _chosen(table: PaperTable, scores: Scores, taken: Mapping[str, str]) -> dict[str, str]:
    """Organ to the model of the table that stands for it: that of the choice, else the one of the best mean score."""
    chosen = {}
    for organ in dict.fromkeys(organ for of_organs in scores.values() for organ in of_organs):
        means = {name: _over_cases(of_organs[organ], table.score) for name, of_organs in scores.items() if organ in of_organs}
        known = {name: higher_is_better_score(mean, table.score) for name, mean in means.items() if not math.isnan(mean)}
        best = max(known, key=known.__getitem__) if known else next(iter(means))
        chosen[organ] = taken[organ] if taken.get(organ) in means else best
    return chosen


def _scores_of_models(workspace: Workspace, dataset: Dataset, names: Collection[str], table: PaperTable) -> dict[str, list[Score]]:
    """Model to its scores over all validated folds of the cross-validation, with the table's post-processing."""
    results, plan = workspace.results(dataset.name), workspace.plan(dataset.name)
    folds = {name: tuple(fold for fold in ModelFolder(results / name).validated_folds() if fold != ALL) for name in sorted(names)}
    found: dict[str, list[Score]] = {name: [] for name in folds}
    if not table.postprocess:
        return scores_of_folds(results, folds)
    dataset = with_references(dataset, workspace.home)
    for some in filter(None, dict.fromkeys(folds.values())):  # the choice computed the same of models of the same folds
        models = [name for name, own in folds.items() if own == some]
        organs = {name: ModelFolder(results / name).labels(plan.labels).names for name in models}
        cases = common_cases(results, dataset, organs, some)
        cross_validation = CrossValidation(
            results, plan, cases, table.score, dataset.tolerances, postprocess=table.postprocess, failures={}
        )
        found |= scores_of_models(cross_validation, models)
    return found


def _lines(table: PaperTable, scores: Scores, organs: Sequence[str], chosen: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    for organ in organs:
        rows = [[organ, *table.metrics.values(), "cases", ""]]
        for name, of_organs in scores.items():
            if some := of_organs.get(organ):
                is_chosen = name == table.chosen
                cells = [_mean_and_deviation(some, metric) for metric in table.metrics]
                rows.append([name, *cells, str(len(some)), f"= {chosen[organ]}" if is_chosen else ""])
        lines += [aligned(rows), ""] if len(rows) > 1 else []
    return [*lines, *_scoreboard(table, scores, [organ for organ in organs if any(organ in one for one in scores.values())])]


def _averages(table: PaperTable, scores: Scores, organs: Sequence[str]) -> list[str]:
    """Each metric averaged over the organs, a row a model, and below the score of each model for each organ."""
    organs = [organ for organ in organs if any(organ in one for one in scores.values())]
    rows = [["average of the organs", *table.metrics.values(), "cases", ""]]
    for name, of_organs in scores.items():
        cells = [number(nan_mean(_over_cases(some, metric) for some in of_organs.values()), metric) for metric in table.metrics]
        rows.append([name, *cells, str(len({score.case for some in of_organs.values() for score in some})), ""])
    if len(organs) == 1:
        return [aligned(rows)]
    by_organ = [[table.metrics[table.score], *organs, ""]]
    for name, of_organs in scores.items():
        by_organ.append([name, *(number(_over_cases(of_organs.get(organ, ()), table.score), table.score) for organ in organs), ""])
    return [aligned(rows), "", aligned(by_organ)]


def _over_cases(scores: Sequence[Score], metric: str) -> float:
    """A metric over cases: their mean, or that of all their voxels together."""
    if METRICS[metric].pooled:
        return pooled_dice(scores)
    return nan_mean(value_of(score, metric) for score in scores if has_value(score, metric))


def _mean_and_deviation(scores: Sequence[Score], metric: str) -> str:
    known = [value_of(score, metric) for score in scores if has_value(score, metric)]
    values = np.array([value for value in known if not math.isnan(value)])
    if not len(values):
        return "-"
    return f"{number(float(values.mean()), metric)} ±{number(float(values.std()), metric)}"


def _scoreboard(table: PaperTable, scores: Scores, organs: Sequence[str]) -> list[str]:
    """Each model's score for each organ and their mean, with its rank among the models in brackets, as the paper ranks them."""
    means = {name: [_over_cases(of_organs.get(organ, ()), table.score) for organ in organs] for name, of_organs in scores.items()}
    columns = {name: [*row, float(np.mean(row))] if len(organs) > 1 else row for name, row in means.items()}
    ranked = [name for name in columns if name != table.chosen]
    rows = [[find_metric(table.score).title, *organs, *(["all organs"] if len(organs) > 1 else []), ""]]
    for name, row in columns.items():
        cells = [
            number(value, table.score) + ("" if name == table.chosen else _rank(i, name, columns, ranked, table))
            for i, value in enumerate(row)
        ]
        rows.append([name, *cells, ""])
    return [aligned(rows)]


def _rank(column: int, name: str, columns: Mapping[str, Sequence[float]], among: Sequence[str], table: PaperTable) -> str:
    values = {one: higher_is_better_score(columns[one][column], table.score) for one in among}
    return "" if math.isnan(values[name]) else f" ({1 + sum(other > values[name] for other in values.values())})"
