"""The choice of an organ's post-processing: proposals from the shapes in the training labels, decided on the cross-validation.

The rule, for every organ by itself: each proposal is compared with leaving the predictions as they are, case by case (patient by patient
where cases belong together). A proposal is accepted where the mean gain is above 0 and

- six or more cases change: the paired test says p < 0.05, corrected for the number of different proposals, and no case loses more than the
  changed ones gain on average;
- fewer change, too few for any test: no case loses and at least one gains.

Of those accepted the one that gains most is taken; among equals the simplest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from ..data.labels import organ_mask, union_of_boxes
from ..data.references import reference_of
from ..evaluation.metrics import higher_is_better_score
from ..evaluation.statistics import SMALLEST_TEST, holm, per_group, wilcoxon
from ..inference.postprocessing import Components, describe
from ..runtime.failures import failure_of
from ..runtime.hardware import cpu_count
from ..runtime.provenance import Stamp, annotated_setting, label_id, value_id
from ..runtime.serialization import read_json, to_jsonable, write_json_if_allowed
from ..schema import Case, Dataset, Labels, PostProcessing

SHAPES = "organ_shapes.json"
"""In ``preprocessed/<dataset>``: case to the stamp of what was measured and, for each organ, the volumes of its parts in mm³."""

READERS = 4
"""Label maps that are measured at once, at most."""

PART = 0.01
"""Share of an organ's volume in a case: smaller components are specks of the annotation and do not count as parts of the organ."""

SMALLEST_SHARE = 0.5
"""Components below this share of the smallest part of the organ in any training label are taken for false alarms."""

QUANTILE = 0.95
"""Share of the training labels that have no more components than the larger proposal keeps."""

LEVEL = 0.05
"""Level of the paired test."""

SAME = 1e-9
"""Differences below this are rounding."""


def organ_shapes(dataset: Dataset, path: Path, *, failures: MutableMapping[str, str] | None = None) -> dict[str, list[tuple[float, ...]]]:
    """Measures the volumes of every organ's parts in each training label that has it, mm³, largest first.

    Measurements are stored in `path`; label maps are read again where their content, or what their values mean, has changed since. Those
    that are damaged are left out, and their reasons put into `failures`; where that is None they are an error.
    """
    stored = read_json(path, dict) if path.is_file() else {}
    meaning = value_id(dataset.labels)
    stamps = {
        case.name: to_jsonable(Stamp({"label": label_id(case)}, {"annotated": annotated_setting(case), "labels": meaning}))
        for case in dataset.cases
    }
    known = {name: entry for name, entry in stored.items() if entry.get("made_from") == stamps.get(name)}
    missing = [case for case in dataset.cases if case.name not in known]
    if missing:
        with ThreadPoolExecutor(min(READERS, cpu_count())) as pool:
            measured = pool.map(lambda case: _measured(case, dataset.labels, failures), missing)
            found = list(tqdm(measured, desc="Measuring organs", total=len(missing), unit="case"))
        parts_of_cases = [(case.name, parts) for case, parts in zip(missing, found, strict=True) if parts is not None]
        known |= {name: {"made_from": stamps[name], "organs": parts} for name, parts in parts_of_cases}
        write_json_if_allowed(path, known)
    entries = [known[case.name]["organs"] for case in dataset.cases if case.name in known]
    return {organ: [tuple(entry[organ]) for entry in entries if entry.get(organ)] for organ in dataset.labels.names}


def _measured(case: Case, labels: Labels, failures: MutableMapping[str, str] | None) -> dict[str, tuple[float, ...]] | None:
    with nullcontext() if failures is None else failure_of(case.name, failures, "is not measured"):
        return _measure(case, labels)
    return None


def _measure(case: Case, labels: Labels) -> dict[str, tuple[float, ...]]:
    reference, spacing = reference_of(case, labels)
    boxes = ndimage.find_objects(np.maximum(reference, 0), max_label=len(labels.base_values))
    found = {}
    for index, (organ, members) in enumerate(zip(labels.names, labels.internal_members, strict=True)):
        box = union_of_boxes([boxes[value - 1] for value in members])
        if box is not None and (case.annotated is None or organ in case.annotated):
            sizes = Components.of(organ_mask(reference[box], labels, index)).sizes[1:]
            found[organ] = parts_of((sizes * math.prod(spacing)).tolist())
    return found


def parts_of(sizes_mm3: Sequence[float]) -> tuple[float, ...]:
    """The volumes of an organ's components in one case that count as parts of it, largest first."""
    total = sum(sizes_mm3)
    return tuple(sorted((size for size in sizes_mm3 if size >= PART * total), reverse=True))


def proposals(parts_mm3: Sequence[Sequence[float]]) -> tuple[PostProcessing, ...]:
    """Proposes post-processing for an organ by the volumes of its parts (`parts_of`) in each training label, simplest first.

    Holes filled; small components removed; as many components kept as most labels have, and as all but the strangest have; both of these
    also with holes filled. Empty where no label has the organ.
    """
    known = [parts for parts in parts_mm3 if len(parts)]
    if not known:
        return ()
    counts = Counter(len(parts) for parts in known)
    usual = max(counts, key=lambda count: (counts[count], -count))
    most = int(np.quantile([len(parts) for parts in known], QUANTILE, method="inverted_cdf"))
    smallest = SMALLEST_SHARE * min(min(parts) for parts in known)
    steps = [PostProcessing(components=count) for count in dict.fromkeys((usual, most))] + [PostProcessing(min_volume_mm3=smallest)]
    return (PostProcessing(fill_holes=True), *steps, *(replace(step, fill_holes=True) for step in steps))


def select_postprocessing(
    before: np.ndarray,
    after: Mapping[PostProcessing, np.ndarray],
    *,
    metric: str = "dice",
    perfect: float = 1.0,
    groups: Sequence[Hashable] | None = None,
) -> PostProcessing | None:
    """Selects the post-processing that helps an organ, with its reason in `PostProcessing.why`, by this module's rule; None without any.

    Args:
        before: ``(cases,)`` the metric without post-processing; NaN where the organ is absent from prediction and reference.
        after: Proposal to the same with it, simplest proposal first.
        metric: Its name, which says whether high or low values are good.
        perfect: Its value for a prediction that agrees: what an absent organ counts as once its false alarm is removed.
        groups: Of each case the patient.
    """
    if not after:
        return None
    gains = {one: _gains(before, values, metric, perfect, groups) for one, values in after.items()}
    different = {gain.round(9).tobytes(): one for one, gain in reversed(gains.items()) if np.any(np.abs(gain) > SAME)}
    tried = [one for one in gains if one in different.values()]  # of proposals with the same effect the simplest
    corrected = holm([wilcoxon(gains[one]) for one in tried])
    accepted = {one: float(gains[one].mean()) for one, p in zip(tried, corrected, strict=True) if _is_accepted(gains[one], p)}
    if not accepted:
        return None
    winner = next(one for one, gain in accepted.items() if max(accepted.values()) - gain <= SAME)
    p_value = float(corrected[tried.index(winner)])
    known = ~np.isnan(before)
    change = " -> ".join(f"{_filled(values, perfect)[known].mean():.4f}" for values in (before, after[winner]))
    support = "too few change for a test" if math.isnan(p_value) else f"p = {p_value:.2g} corrected for {len(tried)} tried"
    cases = f"{known.sum()} {'case' if known.sum() == 1 else 'cases'}"
    counts = f"{np.sum(gains[winner] > SAME)} better and {np.sum(gains[winner] < -SAME)} worse"
    return replace(winner, why=f"{describe(winner)}: mean {metric} {change} over {cases}, {counts}, {support}")


def _gains(before: np.ndarray, after: np.ndarray, metric: str, perfect: float, groups: Sequence[Hashable] | None) -> np.ndarray:
    """Gain of each patient, ``(patients,)``; 0 where nothing changed."""
    was, now = _filled(before, perfect), _filled(after, perfect)
    return per_group(higher_is_better_score(now, metric) - higher_is_better_score(was, metric), groups)


def _filled(values: np.ndarray, perfect: float) -> np.ndarray:
    array = np.asarray(values, np.float64)
    return np.where(np.isnan(array), perfect, array)


def _is_accepted(gains: np.ndarray, p_value: float) -> bool:
    changed = gains[np.abs(gains) > SAME]
    if gains.mean() <= 0:
        return False
    if len(changed) < SMALLEST_TEST:
        return bool((changed >= 0).all())
    return bool(p_value < LEVEL and -changed.min() <= changed.mean())
