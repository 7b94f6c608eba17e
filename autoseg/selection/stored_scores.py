"""What validation stored of the models of a dataset: which folds are validated, on which cases, with which scores, in how many seconds."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..data.label_subsets import label_conflict, labels_as_in
from ..evaluation.counts import nan_mean
from ..runtime.case_contents import changed_validation_cases, members_trained_since, predicted_by_others
from ..runtime.migrate.artefacts import models_unknown_to_0_1_0
from ..runtime.provenance import file_id
from ..runtime.runs import ALL, ENSEMBLE, ModelFolder, Run, model_folders
from ..schema import Case, Choice, Dataset, Plan, Score
from ..trainers.corrected_references import is_only_judged_anew
from ..trainers.validation_plan import as_validated, describe

log = logging.getLogger(__name__)

COST = {"2d": 0, "2d_axial": 0, "2d_coronal": 0, "2d_sagittal": 0, "2.5d": 1, "3d_lowres": 2, "3d_fullres": 3, "3d_cascade": 4, ENSEMBLE: 5}
"""Configurations, the cheapest first; unknown ones come last."""


def voting_folds(trained: Sequence[str]) -> tuple[str, ...]:
    """The folds of a model whose networks predict together: all numbered ones; fold ``all`` where there are none."""
    return tuple(fold for fold in trained if fold != ALL) or tuple(trained)


def validated_folds(results: Path) -> dict[str, list[str]]:
    """Model folder name to its folds that are trained and validated, of models that have one."""
    found = {model.name: model.validated_folds() for model in model_folders(results)}
    return {name: folds for name, folds in found.items() if folds}


def taught_models(results: Path) -> set[str]:
    """Names of the models that learnt from pseudo-labels, and of the ensembles of some."""
    records = {model.name: runs[0].record() for model in model_folders(results) if (runs := model.runs())}
    taught = {name for name, record in records.items() if record.pseudo_labels is not None}
    return taught | {name for name, record in records.items() if record.ensemble and taught & set(record.ensemble.members)}


def validated_models(results: Path, plan: Plan) -> tuple[dict[str, list[str]], dict[str, tuple[str, ...]]]:
    """Model folder name to its validated folds, and to its organs in the order of the plan; cheapest configuration first.

    Models whose organs cannot be found in the plan by name are left out, with a warning.

    Of one configuration the model of most organs comes first: a choice that needs fewer networks is the cheaper one.
    """
    found, organs = validated_folds(results), {}
    for name in list(found):
        if changed := [member for fold in found[name] for member in members_trained_since(ModelFolder(results / name).run(fold))]:
            again = ", ".join(dict.fromkeys(changed))
            log.warning("%s is left out, as its members were trained again since: %s; train it again.", name, again)
            del found[name]
            continue
        if others := [fold for fold in found[name] if _is_of_other_networks(ModelFolder(results / name).run(fold))]:
            log.warning("%s is left out, as folds were validated with other networks: %s; train them again.", name, ", ".join(others))
            del found[name]
            continue
        labels = ModelFolder(results / name).labels(plan.labels)
        if reason := label_conflict(labels, plan.labels):
            log.warning("%s is left out, as it does not fit the organs of the dataset: %s; train it again.", name, reason)
            del found[name]
            continue
        organs[name] = labels_as_in(labels, plan.labels).names
        if unknown := [organ for organ in labels.names if organ not in plan.labels.names]:
            log.warning("%s segments what is no organ of the dataset any more, and is left out: %s", name, ", ".join(unknown))
    order = sorted(found, key=lambda name: (COST.get(ModelFolder(results / name).configuration, 9), -len(organs[name]), name))
    return {name: found[name] for name in order}, organs


def _is_of_other_networks(run: Run) -> bool:
    return bool(predicted_by_others(run, {score.case for score in run.scores()}))


def validated_ids(results: Path, models: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """``model/fold`` to the content id of its scores, of all validated folds: what a choice is made from (`Choice.made_from`)."""
    return {f"{run.model.name}/{run.fold}": file_id(run.scores_file) for run in _runs(results, models)}


def not_in_choice(choice: Choice, results: Path, models: Mapping[str, Sequence[str]]) -> list[str]:
    """``model/fold`` of what was validated, or validated anew, since a choice was made; empty where it still fits the models' folds."""
    if not choice.made_from:
        return models_unknown_to_0_1_0(choice, models)
    return [name for name, identity in validated_ids(results, models).items() if choice.made_from.get(name) != identity]


def comparable(models: Mapping[str, list[str]], organs: Mapping[str, tuple[str, ...]]) -> tuple[list[str], list[str]]:
    """Finds models that share folds, and those folds: as many organs, then models, then folds as there are.

    A model is worth more than a fold: what a user trained should be compared, if only on one fold, and every chosen model predicts with all
    of its folds anyway. Fold ``all`` is no evidence, and is used only where nothing else was trained.
    """
    numbered = {name: [fold for fold in folds if fold != ALL] for name, folds in models.items()}
    numbered = {name: folds for name, folds in numbered.items() if folds}
    if not numbered:
        log.warning("Only fold 'all' was trained: there is no held-out case to judge it by.")
        return list(models), [ALL]
    shared = [set(folds) & set(others) for folds in numbered.values() for others in numbered.values()]

    def worth(folds: Iterable[str]) -> tuple[int, int, int]:
        wanted = set(folds)
        able = [name for name, trained in numbered.items() if wanted and wanted <= set(trained)]
        return len({organ for name in able for organ in organs[name]}), len(able), len(wanted)

    common = sorted(max(shared, key=worth))
    names = [name for name, folds in numbered.items() if set(common) <= set(folds)]
    for name in models:
        if name not in names:
            log.warning("%s is not compared: its trained folds are %s, the others' %s.", name, ", ".join(models[name]), ", ".join(common))
    if len(common) < 5:
        log.info("Evidence comes from fold %s only; train the other folds for a firmer choice.", ", ".join(common))
    return names, common


def common_cases(
    results: Path, dataset: Dataset, models: Mapping[str, tuple[str, ...]], folds: Sequence[str]
) -> dict[str, tuple[Case, ...]]:
    """Fold to the cases that every model (name to organs) was validated on, if they can judge it, and that are still in the dataset."""
    cases = {case.name: case for case in dataset.cases}

    def judges(name: str, organs: tuple[str, ...]) -> bool:
        annotated = cases[name].annotated if name in cases else None
        return annotated is None or not set(organs).isdisjoint(annotated)

    def validated_on(run: Run) -> set[str]:
        former = {name for name, what in changed_validation_cases(run, dataset.cases).items() if not is_only_judged_anew(what)}
        return {score.case for score in run.scores()} - former  # a prediction of a former image is none of the case

    found: dict[str, tuple[Case, ...]] = {}
    for fold in folds:
        validated = {model: validated_on(ModelFolder(results / model).run(fold)) for model in models}
        everything = set().union(*validated.values())
        common = {
            name for name in everything if all(name in scored or not judges(name, models[model]) for model, scored in validated.items())
        }
        if removed := sorted(common - set(cases)):
            log.warning("Fold %s: no longer in the dataset and left out: %s", fold, ", ".join(removed))
        if everything - common:
            log.warning("Fold %s: left out, as not every model was validated on them: %s", fold, ", ".join(sorted(everything - common)))
        found[fold] = tuple(cases[name] for name in sorted(common & set(cases)))
    return found


def with_scores(scores: Mapping[str, Sequence[Score]]) -> list[str]:
    """Names that have scores: where nobody annotated a model's organs in any validation case, it has none."""
    if without := [name for name, found in scores.items() if not found]:
        log.warning("Not compared, as they have no scores of the validation cases: %s", ", ".join(without))
    return [name for name, found in scores.items() if found]


def scores_of_folds(
    results: Path, models: Mapping[str, Sequence[str]], unstored: Mapping[str, Sequence[Score]] | None = None
) -> dict[str, list[Score]]:
    """Model to the scores of those of its folds that are named: those stored, or of ``model/fold`` in `unstored`."""
    scores: dict[str, list[Score]] = {name: [] for name in models}
    for run in _runs(results, models):
        own = (unstored or {}).get(f"{run.model.name}/{run.fold}")
        scores[run.model.name] += run.scores() if own is None else own
    return scores


def seconds_of(results: Path, models: Sequence[str], folds: Sequence[str]) -> dict[str, float]:
    """Model to its mean seconds a case, of one fold's networks, with all that it builds on; those that were not measured are missing."""

    def seconds(model: ModelFolder) -> float:
        measured = [one for fold in folds for one in model.run(fold).timings().values()]
        needed = _needed(model.run(folds[0])) if folds else []
        return nan_mean(measured) + sum(seconds(ModelFolder(results / name)) for name in needed)

    found = {name: seconds(ModelFolder(results / name)) for name in models}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def validated_otherwise(results: Path, models: Sequence[str], folds: Sequence[str]) -> dict[str, str]:
    """Model to how its held-out cases were predicted, in words, of models some of which were not in full, as time was short; else empty.

    Ensembles, which read their members' predictions, are left out.
    """
    started = {name: [run for fold in folds if (run := ModelFolder(results / name).run(fold)).is_started] for name in models}
    jobs = {name: [job for run in runs if (job := run.record()).ensemble is None] for name, runs in started.items()}
    reduced = {name for name, of_model in jobs.items() if any(job.validation is not None for job in of_model)}
    words = {name: dict.fromkeys(describe(as_validated(job)) for job in of_model) for name, of_model in jobs.items()}
    return {name: " or ".join(some) for name, some in words.items() if reduced and some}


def _needed(run: Run) -> list[str]:
    """Names of the models that predict before it does: the former stage of a cascade, the members of an ensemble."""
    if not run.is_started:
        return []
    record = run.record()
    members = record.ensemble.members if record.ensemble is not None and record.ensemble.reads_predictions else ()
    return ([record.previous_model] if record.previous_model else []) + list(members)


def _runs(results: Path, models: Mapping[str, Sequence[str]]) -> list[Run]:
    return [ModelFolder(results / name).run(fold) for name, folds in models.items() for fold in folds]
