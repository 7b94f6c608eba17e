"""The table that a paper's experiment ends with: its models, and those chosen for each organ, on the held-out cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.descriptions import planned_dataset
from ..evaluation.counts import nan_mean
from ..evaluation.metrics import METRICS, find_metric, has_value, higher_is_better_score, value_of
from ..evaluation.summaries import pooled_dice
from ..evaluation.tables import align, number
from ..presets.experiment import Experiment, describe_not_run
from ..presets.paper_preset import PaperTable
from ..runtime.registry import allows_code
from ..runtime.runs import ModelFolder
from ..runtime.workspace import find_workspace
from ..schema import Choice, Score
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
    scores: dict[str, dict[str, list[Score]]] = {}
    names: dict[str, str] = {}
    for configuration in configurations:
        for row, settings in zip(experiment.rows, experiment.trainings, strict=True):
            spec = training_spec(plan, configuration, settings, windows=dataset.windows)
            model = spec.model(results, settings.trainer)
            label = " ".join([row or spec.configuration.network, *([configuration] if len(configurations) > 1 else [])])
            names[model.name] = label
            for score in _scores_of(model):
                scores.setdefault(label, {}).setdefault(score.organ, []).append(score)
    ensembles, failures = paper_ensemble_folders(workspace, dataset, experiment, configurations)
    for label, model in ensembles.items():
        for score in _scores_of(model):
            scores.setdefault(label, {}).setdefault(score.organ, []).append(score)
    for organ, members in choice.organs.items() if paper.table.chosen else ():
        found = [score for member in members for score in _scores_of(ModelFolder(results / member)) if score.organ == organ]
        if len(members) == 1 and found:
            scores.setdefault(paper.table.chosen, {})[organ] = found
    chosen = {organ: " + ".join(names.get(name, name) for name in members) for organ, members in choice.organs.items()}
    if paper.table.averages:
        lines = _averages(paper.table, scores, plan.labels.names)
    else:
        lines = _lines(paper.table, scores, plan.labels.names, chosen)
    missing = [*describe_not_run(experiment), *(f"{name}: {reason}" for name, reason in failures.items())]
    return "\n".join(lines + [f"not run: {one}" for one in missing])


def _scores_of(model: ModelFolder) -> list[Score]:
    """Its scores over all validated folds of the cross-validation."""
    return [score for fold in model.validated_folds() if fold != "all" for score in model.run(fold).scores()]


def _lines(table: PaperTable, scores: Scores, organs: Sequence[str], chosen: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    for organ in organs:
        rows = [[organ, *table.metrics.values(), "cases", ""]]
        for name, of_organs in scores.items():
            if some := of_organs.get(organ):
                is_chosen = name == table.chosen
                cells = [_mean_and_deviation(some, metric) for metric in table.metrics]
                rows.append([name, *cells, str(len(some)), f"= {chosen[organ]}" if is_chosen else ""])
        lines += [align(rows), ""] if len(rows) > 1 else []
    return [*lines, *_scoreboard(table, scores, [organ for organ in organs if any(organ in one for one in scores.values())])]


def _averages(table: PaperTable, scores: Scores, organs: Sequence[str]) -> list[str]:
    """Each metric averaged over the organs, a row a model, and below the score of each model for each organ."""
    organs = [organ for organ in organs if any(organ in one for one in scores.values())]
    rows = [["average of the organs", *table.metrics.values(), "cases", ""]]
    for name, of_organs in scores.items():
        cells = [number(nan_mean(_over_cases(some, metric) for some in of_organs.values()), metric) for metric in table.metrics]
        rows.append([name, *cells, str(len({score.case for some in of_organs.values() for score in some})), ""])
    if len(organs) == 1:
        return [align(rows)]
    by_organ = [[table.metrics[table.score], *organs, ""]]
    for name, of_organs in scores.items():
        by_organ.append([name, *(number(_over_cases(of_organs.get(organ, ()), table.score), table.score) for organ in organs), ""])
    return [align(rows), "", align(by_organ)]


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
    means = {
        name: [
            nan_mean(value_of(score, table.score) for score in of_organs.get(organ, ()) if has_value(score, table.score))
            for organ in organs
        ]
        for name, of_organs in scores.items()
    }
    columns = {name: [*row, float(np.mean(row))] if len(organs) > 1 else row for name, row in means.items()}
    ranked = [name for name in columns if name != table.chosen]
    rows = [[find_metric(table.score).title, *organs, *(["all organs"] if len(organs) > 1 else []), ""]]
    for name, row in columns.items():
        cells = [
            number(value, table.score) + ("" if name == table.chosen else _rank(i, name, columns, ranked, table))
            for i, value in enumerate(row)
        ]
        rows.append([name, *cells, ""])
    return [align(rows)]


def _rank(column: int, name: str, columns: Mapping[str, Sequence[float]], among: Sequence[str], table: PaperTable) -> str:
    values = {one: higher_is_better_score(columns[one][column], table.score) for one in among}
    return "" if math.isnan(values[name]) else f" ({1 + sum(other > values[name] for other in values.values())})"
