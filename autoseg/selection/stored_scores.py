"""What the cross-validation left behind: which models were validated on which cases, their scores, and their seconds."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..evaluation.counts import nan_mean
from ..evaluation.metrics import has_value, higher_is_better_score, value_of
from ..inference.quantised_logits import has_logits
from ..runtime.migrate.artefacts import models_unknown_to_0_1_0
from ..runtime.provenance import file_id
from ..runtime.runs import ENSEMBLE, ModelFolder, model_folders
from ..runtime.serialization import read_json
from ..runtime.workspace import Workspace
from ..schema import Candidate, Case, Choice, Dataset, Plan, Score
from ..schema.run_record import RunRecord

log = logging.getLogger(__name__)

COST = {"2d": 0, "2.5d": 1, "3d_lowres": 2, "3d_fullres": 3, "3d_cascade": 4, ENSEMBLE: 5}
"""Configurations, the cheapest first; unknown ones come last."""

TIMINGS = "timings.json"
"""In a validation folder: case to seconds of its prediction."""

FUSION = "fusion"
"""Kind of ensemble that runs its members' networks itself: its seconds are all there are."""


def validation_folder(results: Path, model: str, fold: str) -> Path:
    """Where a model's held-out predictions of a fold lie."""
    return results / model / f"fold_{fold}" / "validation"


def validated_folds(workspace: Workspace, dataset: str) -> dict[str, list[str]]:
    """Model folder name to its folds that are trained and validated, of models that have one."""
    models = {model.name: model.validated_folds() for model in model_folders(workspace.results(dataset))}
    return {name: folds for name, folds in models.items() if folds}


def validated_models(workspace: Workspace, plan: Plan) -> tuple[dict[str, list[str]], dict[str, tuple[str, ...]]]:
    """Model folder name -> folds that are trained and validated, and -> organs; cheapest configuration first.

    Of one configuration the model of most organs comes first: a choice that needs fewer networks is the cheaper one.
    """
    root = workspace.results(plan.dataset)
    found = validated_folds(workspace, plan.dataset)
    organs = {name: ModelFolder(root / name).labels(plan.labels).names for name in found}
    order = sorted(found, key=lambda name: (COST.get(name.partition("__")[0], 9), -len(organs[name]), name))
    return {name: found[name] for name in order}, organs


def validated_ids(results: Path, models: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """``model/fold`` to the content id of its scores, of all validated folds: what a choice is made from (`Choice.made_from`)."""
    scores = {f"{name}/{fold}": validation_folder(results, name, fold) / "scores.json" for name, folds in models.items() for fold in folds}
    return {name: file_id(path) for name, path in scores.items()}


def not_in_choice(choice: Choice, results: Path, models: Mapping[str, Sequence[str]]) -> list[str]:
    """``model/fold`` of what was validated, or validated anew, since a choice was made; empty where the choice still fits the models.

    Args:
        choice: As it was made.
        results: ``results/<dataset>``.
        models: Model folder to its validated folds.
    """
    if not choice.made_from:
        return models_unknown_to_0_1_0(choice, models)
    return [name for name, identity in validated_ids(results, models).items() if choice.made_from.get(name) != identity]


def comparable(models: Mapping[str, list[str]], organs: Mapping[str, tuple[str, ...]]) -> tuple[list[str], list[str]]:
    """Models that share folds, and those folds: as many organs, then models, then folds as there are.

    A model is worth more than a fold: what a user trained should be compared, if only on one fold, and every chosen model votes with all
    of its folds anyway. Fold ``all`` is no evidence, and is used only where nothing else was trained.
    """
    numbered = {name: [fold for fold in folds if fold != "all"] for name, folds in models.items()}
    numbered = {name: folds for name, folds in numbered.items() if folds}
    if not numbered:
        log.warning("Only fold 'all' was trained: there is no held-out case to judge it by.")
        return list(models), ["all"]
    shared = [set(folds) & set(others) for folds in numbered.values() for others in numbered.values()]

    def worth(folds: set[str]) -> tuple[int, int, int]:
        able = [name for name, trained in numbered.items() if folds and folds <= set(trained)]
        return len({organ for name in able for organ in organs[name]}), len(able), len(folds)

    common = sorted(max(shared, key=worth))
    names = [name for name, folds in numbered.items() if set(common) <= set(folds)]
    for name in models:
        if name not in names:
            log.warning("%s is not compared: its trained folds are %s, the others' %s.", name, ", ".join(models[name]), ", ".join(common))
    if len(common) < 5:
        log.info("Evidence comes from fold %s only; train the other folds for a firmer choice.", ", ".join(common))
    return names, common


def common_cases(
    workspace: Workspace, dataset: Dataset, models: Mapping[str, tuple[str, ...]], folds: Sequence[str]
) -> dict[str, list[Case]]:
    """Fold -> the cases that every model (name to organs) was validated on, if they could judge it, and that are still in the dataset."""
    there = {case.name: case for case in dataset.cases}
    found: dict[str, list[Case]] = {}
    for fold in folds:
        validated = {model: {score.case for score in stored_scores(workspace.results(dataset.name), model, fold)} for model in models}
        everything = set().union(*validated.values())
        common = {
            name
            for name in everything
            if all(name in scored or not _judges(there.get(name), models[model]) for model, scored in validated.items())
        }
        removed = sorted(common - set(there))
        if removed:
            log.warning("Fold %s: no longer in the dataset and left out: %s", fold, ", ".join(removed))
        if everything - common:
            log.warning("Fold %s: left out, as not every model was validated on them: %s", fold, ", ".join(sorted(everything - common)))
        found[fold] = [there[name] for name in sorted(common & set(there))]
    return found


def _judges(case: Case | None, organs: tuple[str, ...]) -> bool:
    """Whether a case can say anything of a model of these organs: one of them was annotated in it."""
    return case is None or case.annotated is None or any(organ in case.annotated for organ in organs)


def with_probabilities(results: Path, candidates: Sequence[Candidate], cases: Mapping[str, Sequence[Case]]) -> list[Candidate]:
    """The candidates without those averages for which a member's probabilities are no longer there."""
    members = {name for candidate in candidates if len(candidate.members) > 1 for name in candidate.members}
    lacking = {
        name
        for name in members
        if not all(has_logits(validation_folder(results, name, fold), case.name) for fold, some in cases.items() for case in some)
    }
    if lacking:
        log.warning(
            "Averages with %s are not judged: the probabilities (.b2nd) of their validation were removed. "
            "To make them again, remove their validation folders and run the same autoseg_train.",
            ", ".join(sorted(lacking)),
        )
    return [candidate for candidate in candidates if len(candidate.members) == 1 or not lacking & set(candidate.members)]


def stored_scores(results: Path, model: str, fold: str) -> list[Score]:
    """The scores of a model's validation of a fold."""
    return read_json(validation_folder(results, model, fold) / "scores.json", list[Score])


def with_scores(scores: Mapping[str, Sequence[Score]]) -> list[str]:
    """Names that have scores: where nobody annotated a model's organs in any validation case, it has none."""
    without = [name for name, found in scores.items() if not found]
    if without:
        log.warning("Not compared, as they have no scores of the validation cases: %s", ", ".join(without))
    return [name for name, found in scores.items() if found]


def mean_scores_of_own_folds(results: Path, models: Mapping[str, Sequence[str]], metric: str) -> dict[str, dict[str, float]]:
    """Model to organ to its mean over its own folds, turned so that higher is better; of the organs that a held-out case has.

    Where scores of any model lack the metric, all are judged by Dice: means of two metrics cannot be compared.

    Args:
        results: ``results/<dataset>``.
        models: Name to folds.
        metric: By which models are compared.
    """
    held_out = {name: [fold for fold in folds if fold != "all"] for name, folds in models.items()}
    scores = {name: [one for fold in folds for one in stored_scores(results, name, fold)] for name, folds in held_out.items()}
    known = metric if all(has_value(score, metric) for some in scores.values() for score in some) else "dice"
    found: dict[str, dict[str, float]] = {}
    for name, some in scores.items():
        values: dict[str, list[float]] = {}
        for score in some:
            values.setdefault(score.organ, []).append(higher_is_better_score(value_of(score, known), known))
        found[name] = {organ: mean for organ, of in values.items() if not math.isnan(mean := nan_mean(of))}
    return found


def seconds_of(results: Path, models: Sequence[str], folds: Sequence[str]) -> dict[str, float]:
    """Model to its mean seconds a case, of one fold's networks, with all that it builds on; those that were not measured are missing."""
    found = {name: _seconds(results, name, folds) for name in models}
    return {name: seconds for name, seconds in found.items() if not math.isnan(seconds)}


def _seconds(results: Path, model: str, folds: Sequence[str]) -> float:
    """Seconds of a model and of the models that it needs first: the former stage of a cascade, the members of an ensemble."""
    measured: list[float] = []
    for fold in folds:
        path = validation_folder(results, model, fold) / TIMINGS
        if path.is_file():
            measured += [float(value) for value in read_json(path, dict).values() if isinstance(value, (int, float))]
    run = ModelFolder(results / model).run(folds[0]) if folds else None
    needed = _needed(run.record()) if run is not None and run.is_started else []
    return nan_mean(measured) + sum(_seconds(results, name, folds) for name in needed)


def _needed(record: RunRecord) -> list[str]:
    """Models that a model needs first; a fusion ensemble runs its members' networks itself: its seconds are all there are."""
    previous = [] if record.previous_model is None else [record.previous_model]
    members = () if record.ensemble is None or record.ensemble.kind == FUSION else record.ensemble.members
    return [*previous, *members]
