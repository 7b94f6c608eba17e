"""Validation of a trained network on the whole volumes of its fold."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.images import read_label, write_label
from ..data.label_subsets import translate
from ..data.labels import to_file, to_internal
from ..evaluation.overlap import score_case
from ..inference.candidate_region import candidate_region_mask
from ..inference.export import Logits, export_labels
from ..inference.localisation import LocatedPredictor
from ..inference.predictor import Predictor
from ..inference.quantised_logits import keep
from ..preprocessing.storage import Store, read_array
from ..runtime.locks import remove_partial
from ..runtime.serialization import from_plain, read_json, write_json
from ..schema import Case, Dataset, Score
from ..schema.run_record import RunRecord
from .job import RunFolders

log = logging.getLogger(__name__)

FAILURES = "failures.json"
"""In a validation folder: cases that failed, with the reason; missing where none did."""

TIMINGS = "timings.json"
"""In a validation folder: case to seconds from the preprocessed image to the label map on the file's grid."""


def validate_fold(
    predictor: Predictor | LocatedPredictor, job: RunRecord, folders: RunFolders, dataset: Dataset, *, progress: bool = True
) -> list[Score]:
    """Predicts the fold's validation cases as whole volumes and scores them against the labels in the dataset.

    Writes ``validation/<case>`` label maps, ``validation/<case>.b2nd`` (8-bit probabilities, to average with other models),
    ``validation/scores.json``, and the seconds of each case to ``validation/timings.json``; cases that an earlier run finished stay.
    Cases that were not preprocessed are left out, those that fail do not stop the others: they are named in the log and, with the
    reason, in ``validation/failures.json``, until they succeed.

    Args:
        predictor: The trained network.
        job: Its run.
        folders: Where it lies.
        dataset: With the reference label maps.
        progress: Show a bar.

    Returns:
        One score per case and organ that was annotated in it.

    Raises:
        RuntimeError: Every case failed.
    """
    out = folders.run / "validation"
    out.mkdir(parents=True, exist_ok=True)
    remove_partial(out)
    cases = {case.name: case for case in dataset.cases}
    names = _ready([name for name in (job.split.val or job.split.train) if name in cases], folders)
    scores: list[Score] = []
    failures: dict[str, str] = {}
    bar = tqdm(names, desc=f"Validating {job.configuration.name} fold {job.fold}", unit="case", disable=not progress)
    for name in bar:
        record = out / f"{name}.scores.json"
        try:
            if not record.is_file():
                write_json(record, _validate_case(predictor, job, folders, cases[name], tolerances=dataset.tolerances))
            scores += from_plain(read_json(record, list), list[Score])
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            failures[name] = f"{type(error).__name__}: {error}"
            log.error("%s could not be validated: %s", name, failures[name])
    if failures:
        write_json(out / FAILURES, failures)
        if len(failures) == len(names):
            raise RuntimeError(
                f"{out}: not one of {len(names)} cases could be validated; the first reason: {next(iter(failures.values()))}"
            )
    else:
        (out / FAILURES).unlink(missing_ok=True)
    write_json(out / "scores.json", scores)
    return scores


def _ready(names: list[str], folders: RunFolders) -> list[str]:
    """Cases that are preprocessed and, in a cascade, have a segmentation of the previous stage."""
    store = Store(folders.data)
    ready = [name for name in names if store.has(name) and folders.has_previous_of(name)]
    if len(ready) < len(names):
        log.warning("Not validated, as they could not be prepared: %s", ", ".join(name for name in names if name not in ready))
    return ready


def _validate_case(
    predictor: Predictor | LocatedPredictor, job: RunRecord, folders: RunFolders, case: Case, *, tolerances: Mapping[str, float]
) -> list[Score]:
    labels, out = job.plan.labels, folders.run / "validation"
    stored = Store(folders.data).load(case.name)
    image = np.asarray(stored.image[:])
    previous = None if folders.previous is None else read_array(folders.previous_of(case.name))[0].astype(np.int16)
    start = time.perf_counter()
    region = candidate_region_mask(job.configuration, image, previous, source=case.name)
    previous_input = previous if job.configuration.sees_previous else None
    logits = Logits(predictor.logits(image, previous=previous_input, region=region, source=case.name), stored.trace)
    predicted = export_labels([logits], labels)
    _record_seconds(out / TIMINGS, case.name, time.perf_counter() - start)
    write_label(out / f"{case.name}{job.plan.file_ending}", to_file(predicted, labels), stored.trace.geometry)
    keep(out, case.name, logits, labels)
    if case.label is None:
        raise ValueError(f"{case.name}: cannot be validated without a label map")
    reference = to_internal(read_label(case.label).array, job.plan.stored_labels, source=str(case.label))
    reference = translate(reference, job.plan.stored_labels, labels)
    spacing = stored.trace.geometry.spacing
    return score_case(case.name, predicted, reference, labels, organs=case.annotated, spacing_mm=spacing, tolerance_mm=tolerances)


def _record_seconds(file: Path, case: str, seconds: float) -> None:
    timings = read_json(file, dict) if file.is_file() else {}
    write_json(file, {**timings, case: round(seconds, 3)})
