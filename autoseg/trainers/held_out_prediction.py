"""A held-out case predicted as a whole volume in some way, and scored by its Dice."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from ..data.label_subsets import translate_labels
from ..data.references import reference_of
from ..evaluation.case_scores import score_case
from ..inference.export import export_labels
from ..inference.volume_predictor import Volume, VolumePredictor, predict_preprocessed
from ..preprocessing.storage import Store, read_array
from ..schema import Case, Score
from ..schema.run_record import RunRecord
from .run_options import RunFolders


@dataclass(frozen=True)
class HeldOutPrediction:
    """Scores of a held-out case (Dice and IoU), seconds until its logits and of their export, and its voxels on the model's grid."""

    scores: list[Score]
    seconds: float
    export_seconds: float = 0.0
    voxels: int = 0


def predict_held_out(case: Case, predictor: VolumePredictor, job: RunRecord, folders: RunFolders) -> HeldOutPrediction:
    """Predicts a preprocessed case and scores what was annotated in it."""
    labels, stored = job.plan.labels, Store(folders.data).load(case.name)
    started = time.perf_counter()
    previous = None if folders.previous is None else read_array(folders.previous_of(case.name))[0].astype(np.int16)
    image = np.asarray(stored.image[:])
    logits = predict_preprocessed(predictor, job.configuration, Volume(image, previous, case=case.name), stored.trace)
    seconds = time.perf_counter() - started
    predicted = export_labels([logits], labels)
    export_seconds = time.perf_counter() - started - seconds
    reference = translate_labels(reference_of(case, job.plan.stored_labels)[0], job.plan.stored_labels, labels)
    scores = score_case(case.name, predicted, reference, labels, metrics=(), organs=case.annotated)
    return HeldOutPrediction(scores, seconds, export_seconds, math.prod(image.shape[1:]))
