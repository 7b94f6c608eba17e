"""Scores of held-out cases after their references were corrected: made again from the stored predictions, which are as good as before."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..data.images import read_case_geometry, read_label
from ..data.label_subsets import translate_labels
from ..data.labels import to_internal_values
from ..data.references import reference_of
from ..evaluation.case_scores import score_case
from ..runtime.case_contents import changed_validation_cases, in_words
from ..runtime.locks import exclusive_lock
from ..runtime.runs import ModelFolder, Run
from ..runtime.serialization import read_json, write_json
from ..schema import Case, Dataset, Score
from .resume_checks import warn_of_former_contents
from .validation import write_case_scores

log = logging.getLogger(__name__)


def corrected_since(results: Path, validated: Mapping[str, Sequence[str]], cases: Sequence[Case]) -> dict[str, tuple[str, ...]]:
    """Cases that changed since models (to their validated folds) were validated on them, to what of them did."""
    found: dict[str, tuple[str, ...]] = {}
    for run in _runs(results, validated):
        found |= changed_validation_cases(run, cases)
    return found


def refresh_scores(results: Path, validated: Mapping[str, Sequence[str]], dataset: Dataset) -> None:
    """`score_corrected` of these models' validated folds; also says which of their training cases changed since."""
    for run in _runs(results, validated):
        if run.is_started:
            score_corrected(run, dataset)
            warn_of_former_contents(run, dataset.cases)


def _runs(results: Path, validated: Mapping[str, Sequence[str]]) -> list[Run]:
    return [ModelFolder(results / name).run(fold) for name, folds in validated.items() for fold in folds]


def is_only_judged_anew(changed: Collection[str]) -> bool:
    """Whether what changed of a case leaves its image, and so its prediction, as they were."""
    return not any(what.startswith("image") for what in changed)


def score_corrected(run: Run, dataset: Dataset) -> None:
    """Scores those held-out cases of a validated run again whose label maps were corrected since; keeps all other scores.

    Of a case whose image changed the prediction is no longer that of its image: it is named in the log, and its scores stay.

    Raises:
        ValueError: A label map cannot be read or does not fit its prediction; the message names it.
    """
    changed = changed_validation_cases(run, dataset.cases)
    if not changed:
        return
    judged = {case: what for case, what in changed.items() if is_only_judged_anew(what)}
    if others := {case: what for case, what in changed.items() if case not in judged}:
        log.warning("%s was validated on former images of %s; train it again with --restart.", run.folder, in_words(others))
    cases = {case.name: case for case in dataset.cases}
    with exclusive_lock(run.folder, "training"):
        for name in judged:
            write_case_scores(run, cases[name], _scores(run, cases[name], dataset))
        kept = [score for score in run.scores() if score.case not in judged]
        anew = [score for name in judged for score in read_json(run.case_scores(name), list[Score])]
        write_json(run.scores_file, sorted([*kept, *anew], key=lambda score: score.case))
    if judged:
        log.warning("%s: scored again, as they were corrected since: %s", run.validation, in_words(judged))


def _scores(run: Run, case: Case, dataset: Dataset) -> list[Score]:
    plan = run.record().plan
    predicted = read_label(run.label_map(case.name, plan.file_ending))
    prediction = to_internal_values(predicted.array, plan.labels, source=str(predicted.source))
    reference = translate_labels(reference_of(case, dataset.labels)[0], dataset.labels, plan.labels)
    organs = [name for name in plan.labels.names if name in dataset.labels.names and name in (case.annotated or plan.labels.names)]
    place = predicted.geometry if predicted.geometry.has_spacing else read_case_geometry(case)
    spacing, tolerances = place.spacing if place.has_spacing else None, dataset.tolerances
    return score_case(case.name, prediction, reference, plan.labels, organs=organs, spacing_mm=spacing, tolerance_mm=tolerances)
