"""Scores of every candidate over the cross-validation: of single models as they were stored, of averages from the stored probabilities.

What has to be computed is stored in ``results/<dataset>/candidates/<metric>/fold_<k>/<case>.json`` together with the content ids of the
files that it was made from: a second choice, by another rule or with one model more, computes only what is new. The validation folders of
finished runs are never written to.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ..data.images import read_case_geometry, read_label
from ..data.label_subsets import labels_as_in, safe_file_name, translate_labels
from ..data.labels import to_internal_values
from ..data.references import reference_of
from ..evaluation.counts import confusion, dice, iou, organ_counts
from ..evaluation.masks import TOLERANCE_MM
from ..evaluation.metrics import find_metric, has_value, metric_function
from ..inference.averages import Averages, average_all
from ..inference.lazy_logits import in_order_of
from ..inference.quantised_logits import has_logits, load_logits
from ..preprocessing.orientation import reorient
from ..runtime.migrate.artefacts import state_of_0_1_0_fits
from ..runtime.provenance import label_id, recorded_ids
from ..runtime.serialization import read_json, write_json_if_allowed
from ..schema import Candidate, Case, Labels, Members, Score
from .candidates import candidates_for, limit_averages, within_seconds
from .cross_validation import CrossValidation, HeldOutCase, for_each_case
from .stored_scores import with_scores

log = logging.getLogger(__name__)

MOST_AVERAGES = {"overlap": 400, "masks": 24}
"""Averages that are compared, by what the metric needs: voxels are counted for hundreds of label maps at once, surfaces one by one."""

VOTED, WITH = " by vote", " with "
"""After the metric in the name of the folder of what majorities score, and of what is scored with post-processing."""


@dataclass(frozen=True)
class CaseScores:
    """Scores of candidates on one case, as they are stored.

    Attributes:
        made_from: Model (empty: the label map, its organs and the tolerances) to the content ids of its files.
        scores: Members of a candidate to its scores.
    """

    made_from: dict[str, str] = field(default_factory=dict)
    scores: dict[Members, list[Score]] = field(default_factory=dict)


def scored_candidates(
    cross_validation: CrossValidation,
    organs: Mapping[str, tuple[str, ...]],
    seconds: Mapping[str, float],
    *,
    max_members: int,
    max_seconds: float | None = None,
) -> tuple[list[Candidate], dict[str, list[Score]]]:
    """Makes the candidates of models and scores them: the candidates that have scores, and candidate name to its scores.

    `organs` and `seconds` (a case) are those of each model; candidates that take longer than `max_seconds` are left out.

    Raises:
        ValueError: No candidate is quick enough, or a case cannot be scored.
    """
    scores = scores_of_models(cross_validation, list(organs))
    candidates = candidates_for(with_scores(scores), max_members, organs=organs)
    candidates = candidates if max_seconds is None else within_seconds(candidates, seconds, max_seconds)
    candidates = _with_probabilities(cross_validation, candidates)
    most = MOST_AVERAGES["masks" if cross_validation.postprocessing else find_metric(cross_validation.metric).needs]
    candidates = limit_averages(candidates, scores, cross_validation.metric, most)
    scores |= scores_of_averages(cross_validation, [candidate for candidate in candidates if len(candidate.members) > 1])
    return [candidate for candidate in candidates if scores[candidate.name]], scores


def scores_of_models(cross_validation: CrossValidation, models: Sequence[str]) -> dict[str, list[Score]]:
    """Reads the scores of single models; where they lack the metric (older runs), it is computed from the stored label maps.

    So is every metric of validation where predictions are scored with post-processing, which their label maps do not have.

    Raises:
        ValueError: A label map that is needed is not there any more.
    """
    wanted = {fold: {case.name for case in cases} for fold, cases in cross_validation.cases.items()}
    stored = {name: [(fold, cross_validation.scores(name, fold)) for fold in wanted] for name in models}
    scores = {name: [one for fold, of_fold in folds for one in of_fold if one.case in wanted[fold]] for name, folds in stored.items()}
    other = bool(cross_validation.postprocessing)
    has_metric = partial(has_value, name=cross_validation.metric)
    lacking = [Candidate((name,)) for name in models if other or not all(map(has_metric, scores[name]))]
    if lacking:
        log.info("Computing %s of %s from the stored label maps.", _how(cross_validation), ", ".join(one.name for one in lacking))
        for name, computed in _scores(cross_validation, lacking, "Scoring models").items():
            judged = {(score.case, score.organ) for score in scores[name]}
            scores[name] = [score for score in computed if (score.case, score.organ) in judged]
    return scores


def scores_of_averages(cross_validation: CrossValidation, averages: Sequence[Candidate]) -> dict[str, list[Score]]:
    """Scores averages; each model's probabilities of a case are read once for all of them. ValueError: a case's files are damaged."""
    return _scores(cross_validation, averages, "Averaging models") if averages else {}


def _with_probabilities(cross_validation: CrossValidation, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates without those averages for which a member's probabilities are no longer there."""
    lacking = {
        name
        for name in _models([candidate for candidate in candidates if len(candidate.members) > 1])
        if not all(has_logits(cross_validation.run(name, fold).validation, case.name) for fold, case in cross_validation.all_cases)
    }
    if lacking:
        log.warning(
            "Averages with %s are not judged: the probabilities (.b2nd) of their validation were removed. "
            "To make them again, remove their validation folders and run the same autoseg_train.",
            ", ".join(sorted(lacking)),
        )
    return [candidate for candidate in candidates if len(candidate.members) == 1 or not lacking & set(candidate.members)]


def _scores(cross_validation: CrossValidation, candidates: Sequence[Candidate], what: str) -> dict[str, list[Score]]:
    """Candidate name to its scores, of which those are computed that are not stored."""
    ids = _ids(cross_validation, candidates)
    stored: dict[HeldOutCase, CaseScores] = {}
    arguments: dict[HeldOutCase, tuple[list[Candidate], CaseScores]] = {}
    for fold, case in cross_validation.all_cases:
        made_from = _made_from(cross_validation, candidates, fold, case, ids)
        known = stored[fold, case] = _known(_stored_path(cross_validation.results, _how(cross_validation), fold, case.name), made_from)
        missing = [candidate for candidate in candidates if candidate.members not in known.scores]
        if missing:
            arguments[fold, case] = missing, CaseScores(made_from, known.scores)
    models = len(_models([candidate for missing, _ in arguments.values() for candidate in missing]))
    function = partial(score_candidates, cross_validation)
    computed = for_each_case(function, cross_validation, what=what, models=models, arguments=arguments)
    scores: dict[str, list[Score]] = {candidate.name: [] for candidate in candidates}
    for held_out, known in stored.items():
        of_case = {**known.scores, **computed.get(held_out, {})}
        for candidate in candidates:
            scores[candidate.name] += of_case.get(candidate.members, ())
    return scores


def score_candidates(
    cross_validation: CrossValidation, fold: str, case: Case, candidates: Sequence[Candidate], known: CaseScores
) -> dict[Members, list[Score]]:
    """Scores candidates on a case and stores the result beside what is known of the case; runs in a process of its own."""
    labels = cross_validation.plan.labels
    reference, _ = reference_of(case, labels)
    scores: dict[Members, list[Score]] = {}
    groups: dict[Labels, list[Candidate]] = {}
    for candidate in candidates:
        if len(candidate.members) == 1:
            scores[candidate.members] = _score_stored(cross_validation, fold, case, candidate.members[0], reference)
        else:
            own = cross_validation.run(candidate.members[0], fold).model.labels(labels)
            groups.setdefault(labels_as_in(own, labels), []).append(candidate)
    for of_group, averages in groups.items():
        scores |= _score_averages(cross_validation, fold, case, averages, (translate_labels(reference, labels, of_group), of_group))
    path = _stored_path(cross_validation.results, _how(cross_validation), fold, case.name)
    write_json_if_allowed(path, CaseScores(known.made_from, {**known.scores, **scores}))
    return scores


def _score_stored(cross_validation: CrossValidation, fold: str, case: Case, model: str, reference: np.ndarray) -> list[Score]:
    run, plan = cross_validation.run(model, fold), cross_validation.plan
    path = run.label_map(case.name, plan.file_ending)
    if not path.is_file():
        metric = _how(cross_validation)
        raise ValueError(f"{path}: missing, and {metric} is not among the stored scores; choose by dice, or validate this fold again")
    labels, image = run.model.labels(plan.labels), read_label(path)
    prediction = to_internal_values(image.array, labels, source=str(path))
    place = image.geometry if image.geometry.has_spacing else read_case_geometry(case)
    spacing = place.spacing if place.has_spacing else None
    by_all = bool(cross_validation.postprocessing)
    return cross_validation.score(case, prediction, translate_labels(reference, plan.labels, labels), labels, spacing, by_all=by_all)


def _score_averages(
    cross_validation: CrossValidation, fold: str, case: Case, averages: Sequence[Candidate], truth: tuple[np.ndarray, Labels]
) -> dict[Members, list[Score]]:
    reference, labels = truth
    runs = {name: cross_validation.run(name, fold) for name in _models(averages)}
    of_dataset = cross_validation.plan.labels
    models = {
        name: in_order_of(load_logits(run.validation, case.name), run.model.labels(of_dataset), of_dataset) for name, run in runs.items()
    }
    together = average_all(models, [candidate.members for candidate in averages], labels, vote=cross_validation.vote)
    trace = next(iter(models.values())).trace
    reference = np.ascontiguousarray(reorient(reference[None], trace.transpose, trace.flips)[0])
    if reference.shape != together.agreed.shape:
        raise ValueError(f"case {case.name}: {case.label}: expected shape {trace.geometry.shape}, as in validation, found another one")
    if find_metric(cross_validation.metric).needs == "overlap" and not cross_validation.postprocessing:
        return _from_counts(cross_validation.metrics, case, together, reference, labels)
    spacing = tuple(trace.geometry.spacing[axis] for axis in trace.transpose) if trace.geometry.has_spacing else None
    flat = reference.reshape(reference.shape[-trace.geometry.dim :])
    maps = {candidate.members: together.label_map(candidate.members).reshape(flat.shape) for candidate in averages}
    return {members: cross_validation.score(case, label_map, flat, labels, spacing) for members, label_map in maps.items()}


def _from_counts(
    metrics: Sequence[str], case: Case, together: Averages, reference: np.ndarray, labels: Labels
) -> dict[Members, list[Score]]:
    """Scores that need only counts: what all averages have in common is counted once, the rest at the disputed voxels."""
    ignore = labels.internal_ignore
    n_values = max(len(labels.base_values), ignore or 0) + 1
    disputed = reference.reshape(-1)[together.disputed]
    common = confusion(together.agreed, reference, n_values, ignore=ignore)
    common -= confusion(np.zeros_like(disputed), disputed, n_values, ignore=ignore)
    functions = {name: metric_function(find_metric(name)) for name in metrics}
    found: dict[Members, list[Score]] = {}
    for average, values in together.disputed_labels.items():
        counts = common + confusion(values, disputed, n_values, ignore=ignore)
        found[average] = []
        for organ, members in zip(labels.names, labels.internal_members, strict=True):
            if case.annotated is None or organ in case.annotated:
                overlap = organ_counts(counts, members)
                other = {name: float(function(overlap)) for name, function in functions.items()}
                score = Score(case.name, organ, dice(overlap), iou(overlap), overlap.n_prediction, overlap.n_reference, other)
                found[average].append(score)
    return found


def stored_case_scores(
    results: Path, metric: str, folds: Sequence[str], *, vote: bool = False, postprocess: Sequence[str] = ()
) -> Iterator[CaseScores]:
    """Reads what was computed and stored by a metric, of averages or with `vote` of majorities, case by case."""
    for fold in folds:
        for path in sorted(_stored_path(results, how_scored(metric, vote, postprocess), fold, "").parent.glob("*.json")):
            yield read_json(path, CaseScores)


def how_scored(metric: str, vote: bool, postprocess: Sequence[str]) -> str:
    """What candidates are scored by, in words, by which what was computed is stored: ``chaos with largest``."""
    steps = f"{WITH}{' '.join(postprocess)}" if any(word.rpartition("=")[2] != "none" for word in postprocess) else ""
    return f"{metric}{VOTED if vote else ''}{steps}"


def _how(cross_validation: CrossValidation) -> str:
    return how_scored(cross_validation.metric, cross_validation.vote, cross_validation.postprocess)


def _stored_path(results: Path, how: str, fold: str, case: str) -> Path:
    return results / "candidates" / safe_file_name(how) / f"fold_{fold}" / f"{case}.json"


def _known(path: Path, made_from: Mapping[str, str]) -> CaseScores:
    """What was computed before from the same contents."""
    if not path.is_file():
        return CaseScores()
    try:
        stored = read_json(path, CaseScores)
    except ValueError as error:  # can be computed again
        log.warning("Scores of averages are computed again: %s", error)
        return CaseScores()
    known = {name: (state, made_from[name]) for name, state in stored.made_from.items() if name in made_from}
    same = {name for name, (then, now) in known.items() if then == now or state_of_0_1_0_fits(then, now)}
    if "" not in same:
        return CaseScores()
    return CaseScores(stored.made_from, {members: scores for members, scores in stored.scores.items() if set(members) <= same})


def _made_from(
    cross_validation: CrossValidation, candidates: Sequence[Candidate], fold: str, case: Case, ids: Mapping[Path, str]
) -> dict[str, str]:
    """Model (empty: the label map) to what identifies the contents that its scores are made from."""
    organs = cross_validation.plan.labels.names
    tolerances = " ".join(f"{organ}={cross_validation.tolerances.get(organ, TOLERANCE_MM)}" for organ in organs)
    steps = "".join(f" {organ}={one.components}" for organ, one in cross_validation.postprocessing.items())
    found = {"": f"{label_id(case)} {'all' if case.annotated is None else ' '.join(case.annotated)} {tolerances}{steps}"}
    for name in _models(candidates):
        found[name] = " ".join(ids.get(path, "-") for path in _files(cross_validation, name, fold, case))
    return found


def _ids(cross_validation: CrossValidation, candidates: Sequence[Candidate]) -> dict[Path, str]:
    """Content ids of all predictions that candidates are scored from, as far as they are there."""
    cases, models = cross_validation.all_cases, _models(candidates)
    files = [path for name in models for fold, case in cases for path in _files(cross_validation, name, fold, case) if path.is_file()]
    return recorded_ids(files, what="Identifying predictions")


def _models(candidates: Sequence[Candidate]) -> list[str]:
    """Members of any of the candidates, each once."""
    return list(dict.fromkeys(name for candidate in candidates for name in candidate.members))


def _files(cross_validation: CrossValidation, model: str, fold: str, case: Case) -> tuple[Path, Path]:
    """A model's stored prediction of a case: its probabilities and its label map."""
    run = cross_validation.run(model, fold)
    return run.logits(case.name), run.label_map(case.name, cross_validation.plan.file_ending)
