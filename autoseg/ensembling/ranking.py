"""Which models are the best at an organ: by a metric of their held-out cases, or by the loss of their validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..data.descriptions import with_references
from ..evaluation.counts import nan_mean
from ..evaluation.metrics import find_metric, has_value, higher_is_better_score, value_of
from ..runtime.registry import unknown_name_error
from ..runtime.runs import read_history
from ..runtime.workspace import Workspace
from ..schema import Dataset, Score
from ..selection.candidate_scores import scores_of_models
from ..selection.cross_validation import CrossValidation
from ..selection.stored_scores import common_cases
from .members import Member

LOSS = "loss"
"""Ranks by the smallest loss of a run's validation patches, as Crespi et al. (2023) choose an organ's architecture."""


@dataclass(frozen=True)
class Ranking:
    """What is known of models.

    Attributes:
        values: Model, fold and organ to numbers of which higher is better.
    """

    by: str
    values: Mapping[tuple[str, str, str], Sequence[float]]

    def value(self, model: str, organ: str, folds: Sequence[str]) -> float:
        """The mean over some folds; minus infinity where the model does not segment the organ, or no case has it."""
        mean = nan_mean(value for fold in folds for value in self.values.get((model, fold, organ), ()))
        return -math.inf if math.isnan(mean) else mean

    def best(self, models: Sequence[Member], organs: Sequence[str], folds: Sequence[str], *, number: int = 1) -> dict[str, list[str]]:
        """For each organ the best `number` models, the best first; among equals that of most organs.

        Beside the best no model is taken whose Dice of the organ is 0 in all cases.

        Raises:
            ValueError: No model segments an organ.
        """
        chosen = {}
        ranked = sorted(models, key=lambda one: -len(one.labels.names))
        for organ in organs:
            able = [one for one in ranked if organ in one.labels.names]
            if not able:
                raise unknown_name_error("organ of the trained models", organ, {name for one in models for name in one.labels.names})
            in_order = sorted(able, key=lambda one: self.value(one.name, organ, folds), reverse=True)
            others = [one for one in in_order[1:number] if self.by != "dice" or self.value(one.name, organ, folds) > 0]
            chosen[organ] = [one.name for one in (in_order[0], *others)]
        return chosen


def rank(workspace: Workspace, dataset: Dataset, models: Sequence[Member], folds: Sequence[str], by: str) -> Ranking:
    """Ranks models by `LOSS`, or a metric, which is computed from the stored label maps where validation did not.

    Raises:
        ValueError: An unknown metric, one that says not which is better, a label map that is needed is gone, or a run without a loss.
    """
    if by == LOSS:
        losses = [(one, fold, -_loss(one, fold)) for one in models for fold in folds]
        return Ranking(by, {(one.name, fold, organ): [loss] for one, fold, loss in losses for organ in one.labels.names})
    higher_is_better_score(0.0, by)
    scores = {(one.name, fold): one.model.run(fold).scores() for one in models for fold in folds}
    if not all(has_value(score, by) for some in scores.values() for score in some):
        scores = _computed(workspace, dataset, models, folds, by)
    values: dict[tuple[str, str, str], list[float]] = {}
    for (name, fold), some in scores.items():
        for score in some:
            values.setdefault((name, fold, score.organ), []).append(_value(score, by))
    return Ranking(by, values)


def _loss(member: Member, fold: str) -> float:
    history = member.model.run(fold).history_file
    losses = [loss for row in read_history(history) if not math.isnan(loss := row.get("validation_loss", math.nan))]
    if not losses:
        raise ValueError(f"{history}: expected the validation losses of {member.name}, found none; choose members by dice or chaos")
    return min(losses)


def _value(score: Score, by: str) -> float:
    """Turned so that higher is better; of an organ that only one of reference and prediction has the worst where there is no number."""
    value = value_of(score, by)
    missing = math.isnan(value) and bool(score.n_prediction + score.n_reference)
    return 0.0 if missing and find_metric(by).better == "higher" else float(higher_is_better_score(value, by))


def _computed(
    workspace: Workspace, dataset: Dataset, models: Sequence[Member], folds: Sequence[str], by: str
) -> dict[tuple[str, str], list[Score]]:
    results, plan = workspace.results(dataset.name), workspace.plan(dataset.name)
    dataset = with_references(dataset, workspace.home)
    cases = common_cases(results, dataset, {one.name: one.labels.names for one in models}, folds)
    cross_validation = CrossValidation(results, plan, cases, by, dataset.tolerances)
    found = scores_of_models(cross_validation, [one.name for one in models])
    fold_of = {case.name: fold for fold, of_fold in cases.items() for case in of_fold}
    return {(name, fold): [one for one in some if fold_of[one.case] == fold] for name, some in found.items() for fold in folds}
