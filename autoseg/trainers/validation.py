"""Validation of a trained network on the whole volumes of its fold."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from ..data.images import write_label
from ..data.label_subsets import translate_labels
from ..data.labels import to_file_values
from ..data.references import reference_of
from ..evaluation.case_scores import score_case
from ..inference.export import export_labels
from ..inference.quantised_logits import save_logits
from ..inference.volume_predictor import Volume, VolumePredictor, predict_preprocessed
from ..preprocessing.storage import Store, read_array
from ..runtime.case_contents import NETWORK, changed_contents, checkpoint_id, note_contents, predicted_by_others
from ..runtime.failures import failure_of
from ..runtime.locks import remove_partial_files
from ..runtime.runs import Run
from ..runtime.serialization import read_json, write_json
from ..schema import Case, Dataset, Score
from ..schema.run_record import RunRecord
from .run_options import RunFolders

log = logging.getLogger(__name__)


class NothingValidatedError(RuntimeError):
    """Not one held-out case of a fold could be validated."""


def validate_fold(
    predictor: VolumePredictor, job: RunRecord, folders: RunFolders, dataset: Dataset, *, progress: bool = True
) -> list[Score]:
    """Predicts the fold's validation cases as whole volumes and scores them against the labels in the dataset.

    Writes ``validation/<case>`` label maps, ``validation/<case>.b2nd`` (log-odds in 16 bits, to average with other models),
    ``validation/scores.json``, and the seconds of each case to ``validation/timings.json``; cases that an earlier run finished stay,
    unless their files were corrected, or the networks were trained again, since.
    Cases that fail, or could not be prepared, do not stop the others: they are named in the log and, with the reason, in
    ``validation/failures.json``, until they succeed.

    Args:
        dataset: With the reference label maps.

    Returns:
        One score per case and organ that was annotated in it.

    Raises:
        NothingValidatedError: Every case failed.
    """
    run = Run(folders.run)
    run.validation.mkdir(parents=True, exist_ok=True)
    remove_partial_files(run.validation)
    cases = {case.name: case for case in dataset.cases}
    names = [name for name in (job.split.val or job.split.train) if name in cases]
    scores: list[Score] = []
    _say_unions([cases[name] for name in names], job.plan.stored_labels.names)
    failures = _not_prepared(names, folders)
    network = checkpoint_id(run.checkpoint) if run.is_trained else ""
    stale = {*predicted_by_others(run, names), *(name for name in names if changed_contents(run.case_scores(name), [cases[name]]))}
    if any(run.case_scores(name).is_file() for name in stale):
        run.scores_file.unlink(missing_ok=True)  # or the run would count as finished with scores of both, after a kill
    bar = tqdm(names, desc=f"Validating {job.configuration.name} fold {job.fold}", unit="case", disable=not progress)
    for name in bar:
        record = run.case_scores(name)
        if name in failures:
            continue
        with failure_of(name, failures, "could not be validated"):
            if not record.is_file() or name in stale:
                found = _validate_case(predictor, job, folders, cases[name], tolerances=dataset.tolerances)
                write_case_scores(run, cases[name], found, network=network)
            scores += read_json(record, list[Score])
    if failures:
        write_json(run.failures_file, failures)
        if len(failures) == len(names):
            raise NothingValidatedError(
                f"{run.validation}: not one of {len(names)} cases could be validated; the first reason: {next(iter(failures.values()))}"
            )
    else:
        run.failures_file.unlink(missing_ok=True)
    write_json(run.scores_file, scores)
    return scores


def write_case_scores(run: Run, case: Case, scores: list[Score], *, network: str) -> None:
    """Writes the scores of a held-out case, with the contents that it was judged by and the network of its prediction (or empty)."""
    path = run.case_scores(case.name)
    path.unlink(missing_ok=True)  # former scores never stand beside the note of other contents, also after a kill
    note_contents(path, [case], {NETWORK: network} if network else {})
    write_json(path, scores)


def _say_unions(cases: Sequence[Case], organs: Sequence[str]) -> None:
    """Logs what was annotated in held-out cases and has no score: organs of which only the union is known say nothing of a single one."""
    unions = Counter(entry for case in cases for entry in case.annotated or () if entry not in organs)
    for union, count in sorted(unions.items()):
        log.info("%s: annotated only together in %d held-out cases, not scored here; autoseg_evaluate scores them as one.", union, count)


def _not_prepared(names: list[str], folders: RunFolders) -> dict[str, str]:
    """Case -> reason for those that are not preprocessed or, in a cascade, have no segmentation of the previous stage."""
    store = Store(folders.data)
    missing = {name: f"is not preprocessed in {store.folder}" for name in names if not store.has(name)}
    missing |= {name: "has no segmentation of the first stage" for name in names if store.has(name) and not folders.has_previous_of(name)}
    if missing:
        log.warning("Not validated, as they could not be prepared: %s", ", ".join(missing))
    return missing


def _validate_case(
    predictor: VolumePredictor, job: RunRecord, folders: RunFolders, case: Case, *, tolerances: Mapping[str, float]
) -> list[Score]:
    labels, run = job.plan.labels, Run(folders.run)
    stored = Store(folders.data).load(case.name)
    image = np.asarray(stored.image[:])
    previous = None if folders.previous is None else read_array(folders.previous_of(case.name))[0].astype(np.int16)
    start = time.perf_counter()
    logits = predict_preprocessed(predictor, job.configuration, Volume(image, previous, case=case.name), stored.trace)
    predicted = export_labels([logits], labels)
    write_json(run.timings_file, {**run.timings(), case.name: round(time.perf_counter() - start, 3)})
    write_label(run.label_map(case.name, job.plan.file_ending), to_file_values(predicted, labels), stored.trace.geometry)
    save_logits(run.validation, case.name, logits, labels)
    reference = translate_labels(reference_of(case, job.plan.stored_labels)[0], job.plan.stored_labels, labels)
    spacing = stored.trace.geometry.spacing if stored.trace.geometry.has_spacing else None
    return score_case(case.name, predicted, reference, labels, organs=case.annotated, spacing_mm=spacing, tolerance_mm=tolerances)
