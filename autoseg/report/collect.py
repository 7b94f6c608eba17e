"""What the report of a dataset shows, read from its folders, and what is missing of it and how to get it."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from ..evaluation.metrics import find_metric, has_value, value_of
from ..runtime.case_contents import in_words
from ..runtime.commands import choice_command, train_command
from ..runtime.disk import WriteError
from ..runtime.runs import ALL, validated_runs
from ..runtime.serialization import read_json
from ..runtime.workspace import Workspace
from ..schema import Choice, Dataset, Fingerprint, Plan, Score, Split, candidate_members, candidate_name
from ..selection.candidate_scores import stored_case_scores
from ..selection.held_out import HeldOut
from ..selection.quality_estimation import read_estimated_dice, read_final_dice
from ..selection.stored_scores import not_in_choice, validated_folds
from ..trainers.corrected_references import corrected_since
from .cases import case_values, draw_case, has_predictions, pick_cases, ranked_cases, worst_of_organs
from .content import CasePicture, DatasetFacts, Missing, Report
from .runs import commands, count_parameters, hashes, read_runs, versions

log = logging.getLogger(__name__)

T = TypeVar("T")

Scores = dict[str, dict[str, dict[str, float]]]
"""Candidate to organ to case to score."""

PICTURED = 3
"""Cases that are drawn unless the user wants more: best, median, worst."""


def read_report(workspace: Workspace, name: str, dataset: Dataset | None) -> Report:
    """All but the pictures.

    Raises:
        ValueError: There is neither a plan nor a dataset.
    """
    results, preprocessed = workspace.results(name), workspace.preprocessed(name)
    plan = _read(Plan, preprocessed / "plan.json", results / "plan.json")
    if plan is None:
        raise ValueError(
            f"{preprocessed / 'plan.json'}: no plan yet, so there is nothing to report. Run: autoseg_plan_and_preprocess -d {name}"
        )
    choice = _read(Choice, results / "choice.json")
    runs = read_runs(results)
    metric = choice.metric if choice else "dice"
    kind = find_metric(metric)
    scores, folds_of = read_scores(results, choice, metric)
    splits = tuple(_read(list[Split], preprocessed / "splits.json") or ())
    words = (kind.title or metric) + (f", {kind.unit}" if kind.unit else "")
    chosen = datetime.fromtimestamp((results / "choice.json").stat().st_mtime).strftime("%Y-%m-%d %H:%M") if choice else ""
    report = Report(
        dataset=dataset_facts(plan, dataset, _read(Fingerprint, preprocessed / "fingerprint.json")),
        made=datetime.now().strftime("%Y-%m-%d %H:%M"),
        chosen=chosen,
        plan=plan,
        parameters=count_parameters(results, plan),
        choice=choice,
        metric=words,
        better=kind.better,
        scores=_by_the_choice(scores, read_computed(results, choice, metric) if choice else {}, choice),
        final=read_final_dice(results, choice) if choice and metric == "dice" else {},
        folds_of=folds_of,
        estimated_dice=read_estimated_dice(results, choice) if choice else {},
        runs=runs,
        splits=splits,
        commands=commands(name, plan, runs, choice),
        versions=versions(),
        files=hashes((results, preprocessed)),
    )
    newer = [] if choice is None else not_in_choice(choice, results, validated_folds(results))
    corrected = corrected_since(results, validated_folds(results), () if dataset is None else dataset.cases)
    return replace(report, missing=tuple(_missing(report, dataset, newer, in_words(corrected))))


def _read(kind: type[T], *paths: Path) -> T | None:
    """The first of the files that is there, None without any."""
    path = next((path for path in paths if path.is_file()), None)
    return None if path is None else read_json(path, kind)


def dataset_facts(plan: Plan, dataset: Dataset | None, fingerprint: Fingerprint | None) -> DatasetFacts:
    """What is known of the data, from its files and from its measurements."""
    cases = () if dataset is None else dataset.cases
    measured = () if fingerprint is None else fingerprint.cases
    labels = plan.stored_labels
    volumes = {
        organ: tuple(case.voxels[place] * math.prod(case.spacing) / (1000 if len(case.spacing) == 3 else 1) for case in measured)
        for place, organ in enumerate(labels.names)
    }
    annotated = {organ: sum(case.annotated is None or organ in case.annotated for case in cases) for organ in labels.names}
    return DatasetFacts(
        name=plan.dataset,
        channels=plan.channels,
        labels=labels,
        cases=len(cases) or len(measured),
        patients=len({case.group or case.name for case in cases}),
        shapes=tuple(case.shape for case in measured),
        spacings=tuple(case.spacing for case in measured),
        orientations=dict(Counter(case.orientation for case in measured).most_common()),
        volumes=volumes if measured else {},
        volume_unit="mm²" if measured and len(measured[0].spacing) == 2 else "ml",
        annotated=annotated if cases else {},
        intensities=plan.intensities,
    )


def read_scores(results: Path, choice: Choice | None, metric: str) -> tuple[Scores, dict[str, str]]:
    """Scores of the models in the folds that were compared, and case to the fold in which it was held out."""
    scores: Scores = {}
    folds_of: dict[str, str] = {}
    for run in validated_runs(results):
        if run.fold == ALL or (choice is not None and choice.cases and run.fold not in choice.folds):
            continue
        folds_of |= dict.fromkeys(_add_scores(scores, run.model.name, run.scores(), metric), run.fold)
    return scores, folds_of


def _add_scores(found: Scores, name: str, scores: Sequence[Score], metric: str) -> list[str]:
    """Adds a candidate's scores to those that were found; returns their cases."""
    known = [score for score in scores if has_value(score, metric)]
    for score in known:
        found.setdefault(name, {}).setdefault(score.organ, {})[score.case] = value_of(score, metric)
    return [score.case for score in known]


def _by_the_choice(scores: Scores, computed: Scores, choice: Choice | None) -> Scores:
    """The scores that the choice compared: with post-processing those that it computed of models, too."""
    return scores | computed if choice is not None and choice.postprocess else computed | scores


def read_computed(results: Path, choice: Choice, metric: str) -> Scores:
    """Scores of the candidates that the choice computed and stored case by case (`candidate_scores`): averages."""
    found: Scores = {}
    for stored in stored_case_scores(results, metric, choice.folds, vote=choice.vote, postprocess=choice.postprocess):
        for members, scores in stored.scores.items():
            name = candidate_name(members)
            if name in choice.table:
                _add_scores(found, name, scores, metric)
    return found


def _missing(report: Report, dataset: Dataset | None, newer: Sequence[str], corrected: str) -> list[Missing]:
    """What a complete report would have besides; `newer` are the ``model/fold`` that were validated after the choice was made."""
    name, found = report.dataset.name, []
    if dataset is None or not has_images(dataset):
        found.append(Missing("pictures of cases: the images are no longer in raw/"))
    if not report.runs:
        planned = [] if report.plan is None else list(report.plan.configurations)
        first = next((one for one in ("3d_fullres", "2d") if one in planned), planned[0] if planned else "3d_fullres")
        return [*found, Missing("models: none is trained yet", f"autoseg_train {name} {first} 0")]
    unfinished = [f"{run.model} fold {run.fold}" for run in report.runs if not run.validated]
    if unfinished:
        found.append(Missing(f"validation of {', '.join(unfinished)}: not finished; the same autoseg_train goes on"))
    if corrected:
        command = f"autoseg_find_best_configuration {name}"
        found.append(Missing(f"scores of {corrected}: they were made with former contents", command))
    if report.choice is None:
        return [*found, Missing("the choice of models with intervals and tests", f"autoseg_find_best_configuration {name}")]
    if not report.choice.evidence:
        found.append(Missing("confidence intervals and tests: the choice was made without", f"autoseg_find_best_configuration {name}"))
    unknown = sorted(name for name in report.scores if len(candidate_members(name)) == 1 and name not in report.choice.table)
    if unknown:
        found.append(Missing(f"the comparison of {', '.join(unknown)}: the choice does not know them", choice_command(report.choice, name)))
    if anew := [one for one in newer if one.partition("/")[0] not in unknown]:
        command = choice_command(report.choice, name)
        found.append(Missing(f"a choice that knows {', '.join(anew)}: the present one was made before they were validated", command))
    if len(report.choice.folds) < 2:
        found.append(Missing("the nested estimate: it needs at least two folds of every model", _another_fold(report, report.choice)))
    return found


def _another_fold(report: Report, choice: Choice) -> str:
    """The command of a model's fold without which the choice cannot rest on one fold more; of folds that few models lack first."""
    trained = {run.model: {other.fold for other in report.runs if other.model == run.model} for run in report.runs}
    folds = [str(fold) for fold in range(len(report.splits)) if str(fold) not in choice.folds]
    for fold in sorted(folds, key=lambda fold: -sum(fold in there for there in trained.values())):
        for run in report.runs:
            if fold not in trained[run.model] and run.record is not None and run.record.ensemble is None:
                return train_command(run.record, fold=fold)
    return f"autoseg_find_best_configuration {report.dataset.name}" if folds else ""


def has_images(dataset: Dataset) -> bool:
    """Whether the images of a dataset are still there."""
    return dataset.folder.is_dir()


def with_pictures(workspace: Workspace, report: Report, dataset: Dataset, n: int) -> Report:
    """The report with pictures of some of the held-out cases whose predictions are stored."""
    choice = report.choice if report.choice and report.choice.organs else _first_models(report)
    if not choice.organs or report.plan is None:
        return report
    held_out = HeldOut(workspace.results(report.dataset.name), report.plan, choice)
    known, cases = ranked_cases(report), {case.name: case for case in dataset.cases}
    ranked = [(case, mean) for case, mean in known if case in cases and has_predictions(held_out, case, report.folds_of.get(case, ""))]
    there = {case for case, _ in ranked}
    whys = pick_cases(ranked, n)
    if n >= PICTURED:
        values = {organ: case_values(report, organ) for organ in choice.organs}
        whys |= worst_of_organs(report, {organ: {c: v for c, v in one.items() if c in there} for organ, one in values.items()}, whys)
    pictures, missing = [], list(report.missing)
    for name, why in tqdm(whys.items(), desc="Drawing cases", unit="case", disable=not whys):
        try:
            pictures.append(draw_case(held_out, dataset, cases[name], report.folds_of[name], why))
        except WriteError:
            raise
        except (ValueError, OSError, RuntimeError) as error:
            log.warning("%s is not drawn: %s", name, error)
            missing.append(Missing(f"a picture: {error}"))
    if known and not ranked:
        missing.append(Missing("pictures of cases: their stored predictions were removed; validate again"))
    return replace(_with_drawn_dice(report, pictures), pictures=tuple(pictures), missing=tuple(missing))


def _with_drawn_dice(report: Report, pictures: Sequence[CasePicture]) -> Report:
    """The report with the Dice of the drawn results as that of their cases, where it is Dice that is compared and nobody stored it."""
    if report.choice is not None and report.choice.metric != "dice":
        return report
    final = {organ: dict(of_cases) for organ, of_cases in report.final.items()}
    for picture in pictures:
        for organ, dice in picture.values.items():
            if math.isfinite(dice):
                final.setdefault(organ, {}).setdefault(picture.case, dice)
    return replace(report, final=final)


def _first_models(report: Report) -> Choice:
    """What stands in for a choice that was not made: for each organ the first model that has scores of it."""
    organs: dict[str, tuple[str, ...]] = {}
    for model, scores in report.scores.items():
        organs |= {organ: (model,) for organ in scores if organ not in organs}
    return Choice(organs, tuple(sorted(set(report.folds_of.values()))), {}, 0)
