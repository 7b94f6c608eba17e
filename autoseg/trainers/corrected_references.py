"""Scores of held-out cases after their references were corrected: made again from the stored predictions, which are as good as before."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from ..data.images import read_case_geometry, read_label
from ..data.label_subsets import translate_labels
from ..data.labels import to_internal_values
from ..data.references import reference_of
from ..evaluation.case_scores import score_case
from ..inference.export import export_labels
from ..inference.quantised_logits import has_logits, load_logits
from ..runtime.case_contents import changed_validation_cases, in_words, predicted_by_others, validated_network
from ..runtime.commands import train_command
from ..runtime.disk import WriteError
from ..runtime.failures import failure_of
from ..runtime.locks import exclusive_lock
from ..runtime.provenance import stamp_path
from ..runtime.runs import ModelFolder, Run
from ..runtime.serialization import read_json, to_jsonable, write_json
from ..schema import Case, Dataset, Geometry, Plan, Score
from .resume_checks import warn_of_former_contents
from .validation import write_case_scores

log = logging.getLogger(__name__)


def corrected_since(results: Path, validated: Mapping[str, Sequence[str]], cases: Sequence[Case]) -> dict[str, tuple[str, ...]]:
    """Cases that changed since models (to their validated folds) were validated on them, to what of them did."""
    found: dict[str, tuple[str, ...]] = {}
    for run in _runs(results, validated):
        found |= changed_validation_cases(run, cases)
    return found


def refresh_scores(
    results: Path, validated: Mapping[str, Sequence[str]], dataset: Dataset, *, failures: MutableMapping[str, str] | None = None
) -> dict[str, list[Score]]:
    """`score_corrected` of these models' validated folds; also says which of their training cases changed since.

    Returns:
        ``model/fold`` to its scores, of those that this user may not store, or that lack a case which cannot be scored again.
    """
    unstored = {}
    for run in _runs(results, validated):
        if run.is_started:
            scores = score_corrected(run, dataset, failures=failures)
            warn_of_former_contents(run, dataset.cases)
            if not _are_same(scores, run.scores()):
                unstored[f"{run.model.name}/{run.fold}"] = scores
    return unstored


def _runs(results: Path, validated: Mapping[str, Sequence[str]]) -> list[Run]:
    return [ModelFolder(results / name).run(fold) for name, folds in validated.items() for fold in folds]


def is_only_judged_anew(changed: Collection[str]) -> bool:
    """Whether what changed of a case leaves its image, and so its prediction, as they were."""
    return not any(what.startswith("image") for what in changed)


def needs_validation(run: Run, cases: Sequence[Case]) -> list[str]:
    """Held-out cases of a validated run to predict again: by other networks, or corrected when nothing was left of the prediction."""
    changed = changed_validation_cases(run, cases)
    lost = [name for name, what in changed.items() if is_only_judged_anew(what) and not _is_predicted(run, name)]
    return sorted({*predicted_by_others(run, [case.name for case in cases]), *lost})


def score_corrected(run: Run, dataset: Dataset, *, failures: MutableMapping[str, str] | None = None) -> list[Score]:
    """Scores those held-out cases of a validated run again whose label maps were corrected since; keeps all other scores.

    Of a case whose image changed the prediction is no longer that of its image: it is named in the log, and its scores stay.

    Args:
        failures: Gets case -> reason for cases that cannot be scored again; their former scores stay stored. None: they are an error.

    Returns:
        All scores but those of such cases, which were stored where this user may write.

    Raises:
        ValueError: A label map cannot be read or does not fit its prediction, or nothing is left of that; the message names it.
    """
    changed = changed_validation_cases(run, dataset.cases)
    judged = {case: what for case, what in changed.items() if is_only_judged_anew(what)}
    if others := {case: what for case, what in changed.items() if case not in judged}:
        log.warning("%s was validated on former images of %s; train it again with --restart.", run.folder, in_words(others))
    cases = {case.name: case for case in dataset.cases}
    judged |= {name: ("scores",) for name in _interrupted(run) if name in cases}
    failed: dict[str, str] = {}
    anew = {}
    for name in judged:
        with nullcontext() if failures is None else failure_of(name, failed, "is left out"):
            anew[name] = _scores(run, cases[name], dataset)
    if failures is not None:
        failures.update(failed)
    scores = _merged(run, anew)
    if not anew and _are_same(scores, run.scores()):
        return [score for score in scores if score.case not in failed]
    try:
        with exclusive_lock(run.folder, "scoring", wait=True):
            # All scores together first: after a kill the notes of the cases still say that they are to be scored again.
            write_json(run.scores_file, scores)
            for name, of_case in anew.items():
                write_case_scores(run, cases[name], of_case, network=validated_network(run, name))
    except WriteError as error:
        if not error.is_denied:
            raise
        log.info("%s: cannot be written by this user, so scores that were corrected are not kept.", run.scores_file)
    if anew:
        log.warning("%s: scored again, as they were corrected since: %s", run.validation, in_words({name: judged[name] for name in anew}))
    return [score for score in scores if score.case not in failed]


def _interrupted(run: Run) -> list[str]:
    """Cases that lost their own scores when an earlier call was killed between the note of new contents and the new scores."""
    names = dict.fromkeys(score.case for score in run.scores())
    lost = [name for name in names if stamp_path(run.case_scores(name)).is_file() and not run.case_scores(name).is_file()]
    return [name for name in lost if _is_predicted(run, name)]


def _merged(run: Run, anew: Mapping[str, list[Score]]) -> list[Score]:
    """All scores of a run: those made `anew`, and of other cases their own: newer than the list where that was not written."""
    listed: dict[str, list[Score]] = {}
    for score in run.scores():
        listed.setdefault(score.case, []).append(score)
    return [score for name in {**listed, **anew} for score in (anew[name] if name in anew else _own_scores(run, name, listed[name]))]


def _own_scores(run: Run, case: str, listed: list[Score]) -> list[Score]:
    path = run.case_scores(case)
    try:
        return read_json(path, list[Score]) if path.is_file() else listed
    except ValueError:  # damaged, and the list is not
        return listed


def _are_same(one: Sequence[Score], other: Sequence[Score]) -> bool:
    return json.dumps(to_jsonable(list(one))) == json.dumps(to_jsonable(list(other)))  # as text two NaN are the same


def _scores(run: Run, case: Case, dataset: Dataset) -> list[Score]:
    plan = run.record().plan
    prediction, place = _prediction(run, case, plan)
    reference = translate_labels(reference_of(case, dataset.labels)[0], dataset.labels, plan.labels)
    organs = [name for name in plan.labels.names if name in dataset.labels.names and name in (case.annotated or plan.labels.names)]
    place = place if place.has_spacing else read_case_geometry(case)
    spacing, tolerances = place.spacing if place.has_spacing else None, dataset.tolerances
    return score_case(case.name, prediction, reference, plan.labels, organs=organs, spacing_mm=spacing, tolerance_mm=tolerances)


def _prediction(run: Run, case: Case, plan: Plan) -> tuple[np.ndarray, Geometry]:
    """The stored prediction of a held-out case in internal values, from its label map or else from its probabilities."""
    path = run.label_map(case.name, plan.file_ending)
    if path.is_file():
        predicted = read_label(path)
        return to_internal_values(predicted.array, plan.labels, source=str(predicted.source)), predicted.geometry
    if has_logits(run.validation, case.name):
        logits = load_logits(run.validation, case.name)
        return export_labels([logits], plan.labels), logits.trace.geometry
    raise ValueError(
        f"{path}: expected the prediction of {case.name}, whose label map was corrected since, found none; validate it again with "
        f"{train_command(run.record())}"
    )


def _is_predicted(run: Run, case: str) -> bool:
    return has_logits(run.validation, case) or run.label_map(case, run.record().plan.file_ending).is_file()
