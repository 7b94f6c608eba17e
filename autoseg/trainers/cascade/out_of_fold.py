"""Input of a cascade's second stage: the first stage's out-of-fold (cross-validation) predictions, on the second stage's grid."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...data.images import label_ending, read_label
from ...data.label_subsets import translate_labels
from ...data.labels import to_internal_values
from ...inference.cascade import on_grid
from ...preprocessing.storage import Store, read_array, write_array
from ...runtime.locks import remove_partial_files
from ...runtime.provenance import Stamp, content_id, forget, is_current, record, value_id
from ...runtime.runs import ModelFolder
from ...schema import Plan, Split, Trace

log = logging.getLogger(__name__)


def folds_that_validate(splits: Sequence[Split]) -> dict[str, str]:
    """Maps each case to the fold that held it out: only that fold's prediction is like one of a new image."""
    return {case: str(fold) for fold, split in enumerate(splits) for case in split.val}


def cases_without_prediction(model: Path, folds: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """The cases that the fold which held them out has not validated (yet).

    Args:
        folds: From `folds_that_validate`.
    """
    return [name for name in names if name not in folds or not ModelFolder(model).run(folds[name]).case_scores(name).is_file()]


def prepare_previous(model: Path, folds: Mapping[str, str], names: Sequence[str], data: Path, plan: Plan, *, progress: bool = True) -> Path:
    """Resamples the first stage's out-of-fold label maps to the second stage's preprocessed cases.

    Args:
        folds: From `folds_that_validate`.
        names: Cases that are wanted; those without a prediction are left out and named in a warning.
        data: Preprocessed cases of the second stage.

    Returns:
        Folder with one ``(1, Z, Y, X)`` array of internal values a case; those that are current stay.

    Raises:
        ValueError: Not one case has a prediction.
    """
    out = model / f"predicted_on_{data.name}"
    remove_partial_files(out)
    missing = cases_without_prediction(model, folds, names)
    if missing:
        log.warning("%s did not predict these cases, which are left out of the second stage: %s", model.name, ", ".join(missing))
    for name in missing:
        forget(out / f"{name}.b2nd")
        (out / f"{name}.b2nd").unlink(missing_ok=True)
    predicted = [name for name in names if name not in missing]
    if not predicted:
        raise ValueError(f"{model}: no cross-validation prediction of any of the {len(names)} cases")
    store, stage_labels = Store(data), ModelFolder(model).labels(plan.labels)
    settings = {} if stage_labels == plan.labels else {"labels": value_id([stage_labels, plan.labels])}
    for name in tqdm(predicted, desc="First stage onto the second stage's grid", unit="case", disable=not progress):
        source = ModelFolder(model).run(folds[name]).label_map(name, label_ending(plan.file_ending))
        target, trace = out / f"{name}.b2nd", store.load(name).trace
        stamp = Stamp({"prediction": content_id(source), "case": store.content_id(name)}, settings)
        if is_current(target, stamp) and _lies_on(target, trace):
            continue
        forget(target)
        labels = to_internal_values(read_label(source).array, stage_labels, source=str(source))
        labels = translate_labels(labels, stage_labels, plan.labels)
        write_array(target, on_grid(labels, trace)[None].astype(np.min_scalar_type(len(plan.labels.base_values) + 1)))
        record(target, stamp)
    return out


def _lies_on(target: Path, trace: Trace) -> bool:
    """Whether an array is readable and lies on the trace's grid."""
    try:
        return tuple(read_array(target).shape[1:]) == tuple(trace.shape)
    except ValueError:
        return False
