"""The stage that chooses: from the predictions of the cross-validation to the choice that prediction follows."""

from __future__ import annotations

import logging
from collections.abc import Collection, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..data.descriptions import copy_planned_dataset, planned_dataset, with_references
from ..evaluation.metrics import find_metric, higher_is_better_score
from ..inference.postprocessing import forced
from ..preprocessing.preprocess import knows_spacing
from ..runtime.disk import WriteError
from ..runtime.registry import allows_code, lookup, named_in
from ..runtime.sealing import check_unedited
from ..runtime.serialization import read_json, write_json
from ..runtime.workspace import find_workspace
from ..schema import Choice
from ..schema.settings import ChoiceSettings
from ..selection.calibration import calibrated_choice
from ..selection.candidate_scores import scored_candidates
from ..selection.cheaper_ways import losses
from ..selection.choice import DEFAULT_RULE, RULES, choose, selection_context, taken_for_all
from ..selection.choice_table import describe_choice
from ..selection.cross_validation import CrossValidation
from ..selection.organ_merging import better_alone
from ..selection.postprocessing_trials import choose_postprocessing
from ..selection.stored_scores import (
    common_cases,
    comparable,
    scores_of_folds,
    seconds_of,
    validated_ids,
    validated_models,
    validated_otherwise,
    voting_folds,
    with_scores,
)
from ..selection.uncompared import best_uncompared, with_uncompared
from ..selection.validated_dice import validated_dice, warn_of_low_dice
from ..trainers.corrected_references import refresh_scores

log = logging.getLogger(__name__)

__all__ = ["choose_again", "describe_choice", "find_best_configuration"]


@allows_code("rule", "metric")
def find_best_configuration(
    which: str | int,
    *,
    home: str | Path | None = None,
    rule: str = DEFAULT_RULE,
    max_members: int = 3,
    metric: str = "dice",
    max_seconds: float | None = None,
    vote: bool = False,
    postprocess: Sequence[str] = (),
    allow_code: Sequence[str] = (),
    overwrite: bool = False,
    failures: MutableMapping[str, str] | None = None,
) -> Choice:
    """Chooses for every organ a model, or an average of models, among those that cover it, by their cross-validation.

    The choice with its evidence also lies in ``results/<dataset>/choice.json``.

    Args:
        which: Dataset id, name or folder.
        home: Home folder.
        rule: Name in `autoseg.selection.choice.RULES`, or ``module:function`` of a `Comparison`.
        max_members: Largest number of models that are averaged.
        metric: By which candidates are compared: a name in `autoseg.evaluation.metrics.METRICS`, or ``module:function``.
        max_seconds: Candidates that took longer a case in validation (with the networks of one fold) are left out.
        vote: Members of a candidate vote instead of being averaged, as their folds do in prediction then.
        postprocess: Post-processing that is taken without a trial, and that candidates are compared with: ``largest``, ``none`` or
            ``kidney=2`` (`autoseg.inference.postprocessing.forced`).
        allow_code: Modules that a name in the dataset's files may import; those of `rule` and `metric` are allowed.
        overwrite: Replace a choice that was edited.
        failures: Gets case -> reason for the held-out cases whose stored predictions or references are damaged; the choice is made by the
            others. None: they are an error.

    Raises:
        ValueError: Nothing is trained yet, nothing is quick enough, rule or metric cannot be chosen by, or the choice was edited.
    """
    _check_unedited(which, home, overwrite=overwrite)
    settings = ChoiceSettings(metric=metric, rule=rule, max_members=max_members, max_seconds=max_seconds)
    choice = _choose(which, home, replace(settings, vote=vote, postprocess=tuple(postprocess)), failures)
    _store(which, home, choice)
    warn_of_low_dice(validated_dice(choice, _choice_file(which, home).parent))
    return choice


def _check_unedited(which: str | int, home: str | Path | None, *, overwrite: bool = False) -> None:
    """Before anything is computed: what `_store` would replace must not have been edited."""
    workspace = find_workspace(home, dataset=str(which))
    results = workspace.results(planned_dataset(workspace, which).name)
    for name in ("choice.json", "plan.json"):
        check_unedited(results / name, "autoseg_find_best_configuration", overwrite=overwrite)


def _store(which: str | int, home: str | Path | None, choice: Choice) -> None:
    """Writes a choice, with the plan and the description of the dataset, into ``results/<dataset>``."""
    workspace = find_workspace(home, dataset=str(which))
    plan = workspace.plan(planned_dataset(workspace, which).name)
    write_json(workspace.results(plan.dataset) / "choice.json", choice)
    write_json(workspace.results(plan.dataset) / "plan.json", plan)
    copy_planned_dataset(workspace, plan.dataset)


def _choose(
    which: str | int,
    home: str | Path | None,
    settings: ChoiceSettings,
    failures: MutableMapping[str, str] | None = None,
    *,
    without: Collection[str] = (),
) -> Choice:
    rule, metric, max_members, max_seconds = settings.rule, settings.metric, settings.max_members, settings.max_seconds
    lookup(RULES, rule, "rule of selection")
    higher_is_better_score(0.0, metric)
    if find_metric(metric).pooled:
        raise ValueError(f"metric {metric}: is one number of all cases, expected one of each case, which a choice compares; take dice")
    workspace = find_workspace(home, dataset=str(which))
    dataset = planned_dataset(workspace, which)
    plan = workspace.plan(dataset.name)
    forced(settings.postprocess, plan.labels, {})
    results = workspace.results(dataset.name)
    models, organs_of = validated_models(results, plan)
    models = {name: validated for name, validated in models.items() if name not in without}
    if not models:
        raise ValueError(f"{results}: nothing is trained and validated yet. Run: autoseg_train {dataset.name} 3d_fullres 0")
    dataset = with_references(dataset, workspace.home)
    if not knows_spacing(plan):
        unit = "a voxel counts as 1 mm an axis, so that mm³ and ml of this choice are no volumes, and distances cannot be chosen by"
        log.warning("%s: nobody knows the spacing of its images: %s.", dataset.name, unit)
    unstored = refresh_scores(results, models, dataset, failures=failures)
    made_from = validated_ids(results, models)
    names, folds = comparable(models, organs_of)
    organs = {name: organs_of[name] for name in with_scores(scores_of_folds(results, dict.fromkeys(names, folds), unstored))}
    cases = common_cases(results, dataset, organs, folds)
    cross_validation = CrossValidation(
        results, plan, cases, metric, dataset.tolerances, unstored, settings.vote, settings.postprocess, failures
    )
    seconds = seconds_of(results, list(organs), folds)
    candidates, scores = scored_candidates(cross_validation, organs, seconds, max_members=max_members, max_seconds=max_seconds)
    uncompared = best_uncompared(cross_validation, models, organs_of, candidates)
    choice = Choice({}, tuple(folds), {}, 0, rule=rule, metric=metric)
    context = selection_context(cross_validation, candidates, seconds)
    if candidates:
        wanted = [organ for organ in plan.labels.names if organ not in uncompared]
        choice = choose(scores, candidates, wanted, folds=folds, rule=rule, context=context)
    choice = with_uncompared(choice, uncompared, plan.labels.names)
    member_folds = {name: voting_folds(models[name]) for members in choice.organs.values() for name in members}
    choice = replace(choice, max_members=max_members, max_seconds=max_seconds, made_from=made_from, member_folds=member_folds)
    validated = validated_otherwise(results, list(organs), folds)
    choice = replace(choice, postprocess=settings.postprocess, vote=settings.vote, validated=validated)
    measured = {name: losses(results, name, models[name]) for name in models}
    choice = replace(choice, cheaper={name: known for name, known in measured.items() if known})

    def instead(merged: Choice) -> Choice | None:
        """The choice of one model for all organs, where its own map is better."""
        alone = better_alone(merged, candidates)
        return alone and taken_for_all(merged, *alone, scores=scores, candidates=candidates, context=context)

    choice = calibrated_choice(cross_validation, choice)
    return choose_postprocessing(workspace, dataset, cross_validation, choice, scores, instead=instead)


def choose_again(which: str | int, *, home: str | Path | None = None) -> Choice:
    """Chooses by the rule, the metric and the limits of the choice that was made before, where there is one.

    Where this user may not write into the home, the choice is not stored.

    Raises:
        ValueError: Nothing is trained yet, or the choice was edited.
    """
    _check_unedited(which, home)
    choice = choose_without((), which, home=home)
    try:
        _store(which, home, choice)
    except WriteError as error:
        if not error.is_denied:
            raise
        path = _choice_file(which, home)
        log.info("%s: cannot be written by this user, so this choice is not kept, and the next prediction makes it again.", path)
    return choice


def choose_without(models: Collection[str], which: str | int, *, home: str | Path | None = None) -> Choice:
    """Chooses as `choose_again`, as if some models were not there, and does not store it."""
    path = _choice_file(which, home)
    before = read_json(path, Choice) if path.is_file() else Choice({}, (), {}, 0, rule=DEFAULT_RULE)
    rule = before.rule if before.rule in RULES or ":" in before.rule else DEFAULT_RULE
    again = ChoiceSettings(
        metric=before.metric, rule=rule, max_members=before.max_members, max_seconds=before.max_seconds, postprocess=before.postprocess
    )
    with named_in(path):  # nobody typed these names
        return _choose(which, home, replace(again, vote=before.vote), without=models)


def _choice_file(which: str | int, home: str | Path | None) -> Path:
    workspace = find_workspace(home, dataset=str(which))
    return workspace.results(planned_dataset(workspace, which).name) / "choice.json"
