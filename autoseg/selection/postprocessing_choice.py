"""The choice of an organ's post-processing: proposals from the shapes in the training labels, decided on the cross-validation.

The rule, for every organ by itself: every proposal is compared with leaving the predictions as they are, patient by patient, by a one-sided
paired test at p < 0.05, as two questions. Which components are kept is a fixed-sequence test (Maurer, Hothorn & Lehmacher 1995; Westfall &
Krishen, Journal of Statistical Planning and Inference 2001): the proposals stand in the order in which the training labels make them
likely, before any prediction is looked at, none is corrected for their number, and the first that fails ends the sequence. Whether holes
are filled is a test of its own.

- A proposal that changes fewer than three patients, or that does the same as one before it, is not tested, and ends nothing: that depends
  on how much changes and not on the signs, which alone are random under the hypothesis of the test.
- One that passes is kept where its mean gain is worth the trouble (0.002 in Dice). Of several the first in order is taken, unless a later
  one gains as much more again. Both questions' answers are taken together where that gains at least as much as either.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from ..data.labels import organ_mask, union_of_boxes
from ..data.references import reference_of
from ..evaluation.metrics import higher_is_better_score
from ..evaluation.statistics import per_group, wilcoxon
from ..inference.postprocessing import Components, describe
from ..runtime.failures import failure_of
from ..runtime.hardware import cpu_count
from ..runtime.provenance import Stamp, annotated_setting, label_id, value_id
from ..runtime.serialization import read_json, to_jsonable, write_json_if_allowed
from ..runtime.shown_text import number_of
from ..schema import Case, Dataset, Labels, PostProcessing
from .evidence import worthwhile

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
"""Level of the one-sided paired test."""

FEWEST_CHANGED = 3
"""Patients that must change for a proposal to be tested."""

SMALLEST_GAIN = 0.002
"""Mean gain in Dice, or as much of another metric (`worthwhile`), below which a proposal is not worth keeping."""

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
    """Proposes post-processing for an organ by the volumes of its parts (`parts_of`) in each training label, the likeliest to help first.

    As many components kept as most labels have; as many as all but the strangest have; small components removed; holes filled, alone and
    with each of these. Empty where no label has the organ. A number of components that is not that of most labels is not tried first.
    """
    known = [parts for parts in parts_mm3 if len(parts)]
    if not known:
        return ()
    counts = Counter(len(parts) for parts in known)
    usual = [count for count, n in counts.items() if 2 * n > len(known)]
    most = int(np.quantile([len(parts) for parts in known], QUANTILE, method="inverted_cdf"))
    smallest = SMALLEST_SHARE * min(min(parts) for parts in known)
    steps = [PostProcessing(components=count) for count in dict.fromkeys((*usual, most))] + [PostProcessing(min_volume_mm3=smallest)]
    return (*steps, PostProcessing(fill_holes=True), *(replace(step, fill_holes=True) for step in steps))


@dataclass(frozen=True, eq=False)
class Trial:
    """One proposal beside the predictions as they are.

    Attributes:
        before: Of each patient ``(patients,)`` the metric without it, as `after` with it.
        dim: Axes of the images.
    """

    proposal: PostProcessing
    before: np.ndarray
    after: np.ndarray
    metric: str
    dim: int = 3

    @cached_property
    def gains(self) -> np.ndarray:
        """Of each patient ``(patients,)``, above 0 where the proposal is better."""
        return higher_is_better_score(self.after, self.metric) - higher_is_better_score(self.before, self.metric)

    @property
    def mean_gain(self) -> float:
        """Over the patients."""
        return float(self.gains.mean()) if len(self.gains) else 0.0

    @property
    def needed(self) -> float:
        """Mean gain from which it is worth keeping."""
        return worthwhile(SMALLEST_GAIN, self.metric, float(self.before.mean()))

    @property
    def is_tested(self) -> bool:
        """Whether enough patients change."""
        return int(np.count_nonzero(np.abs(self.gains) > SAME)) >= FEWEST_CHANGED

    @cached_property
    def p_value(self) -> float:
        """Of the one-sided paired test; NaN where so few patients change that it cannot be below `LEVEL`."""
        return wilcoxon(self.gains, one_sided=True)

    def described(self) -> str:
        """What it is, and the numbers."""
        better, worse = (int(np.count_nonzero(sign * self.gains > SAME)) for sign in (1, -1))
        change = f"{self.before.mean():.4f} -> {self.after.mean():.4f}" if len(self.gains) else "unknown"
        counts = f"{better} better and {worse} worse" + (f" (by {-self.gains.min():.2g} at most)" if worse else "")
        test = "too few change for p < 0.05" if math.isnan(self.p_value) else f"one-sided p = {self.p_value:.2g}"
        over = number_of(len(self.gains), "patient")
        return f"{describe(self.proposal, dim=self.dim)}: mean {self.metric} {change} over {over}, {counts}, {test}"


@dataclass(frozen=True)
class Selection:
    """What was selected for an organ.

    Attributes:
        tested: In order, without what changes too few patients to be tested.
        kept: Of these, or two of them together; None where nothing helps.
    """

    tested: tuple[Trial, ...]
    kept: Trial | None

    @property
    def postprocessing(self) -> PostProcessing | None:
        """What is kept, with its reason in `PostProcessing.why`."""
        return None if self.kept is None else replace(self.kept.proposal, why=self.kept.described())


def select_postprocessing(
    before: np.ndarray,
    after: Mapping[PostProcessing, np.ndarray],
    *,
    metric: str = "dice",
    perfect: float = 1.0,
    groups: Sequence[Hashable] | None = None,
    dim: int = 3,
) -> Selection:
    """Selects the post-processing that helps an organ by this module's rule.

    Args:
        before: ``(cases,)`` the metric without post-processing; NaN where the organ is absent from prediction and reference.
        after: Proposal to the same with it, in the order in which they are tested.
        metric: Its name, which says whether high or low values are good.
        perfect: Its value for a prediction that agrees: what an absent organ counts as once its false alarm is removed.
        groups: Of each case the patient.
        dim: Axes of the images, for words about sizes.

    Raises:
        ValueError: `groups` has another length than `before`.
    """
    was = _of_patients(before, before, perfect, groups)
    trials = [Trial(proposal, was, _of_patients(values, before, perfect, groups), metric, dim) for proposal, values in after.items()]
    components = _in_sequence([trial for trial in trials if not trial.proposal.fill_holes])
    holes = _in_sequence([trial for trial in trials if trial.proposal == PostProcessing(fill_holes=True)])
    answers = [answer for answer in map(_kept, (components, holes)) if answer is not None]
    if len(answers) == 2:
        together = replace(answers[0].proposal, fill_holes=True)
        answers = [*(trial for trial in trials if trial.proposal == together), *answers]
    return Selection((*components, *holes), max(answers, key=lambda trial: round(trial.mean_gain, 9), default=None))


def _in_sequence(trials: Sequence[Trial]) -> list[Trial]:
    """Those of one question that are tested, up to the first that fails, without what does the same as one before."""
    tested: list[Trial] = []
    for trial in trials:
        if not trial.is_tested or any(np.allclose(trial.gains, one.gains, rtol=0, atol=SAME) for one in tested):
            continue
        tested.append(trial)
        if not trial.p_value < LEVEL:
            break
    return tested


def _kept(tested: Sequence[Trial]) -> Trial | None:
    """Of those that pass the first that gains enough, or a later one that gains as much more again."""
    kept = None
    for trial in tested:
        gain = trial.mean_gain - (kept.mean_gain if kept else 0.0)
        if trial.p_value < LEVEL and gain >= trial.needed - SAME:
            kept = trial
    return kept


def _of_patients(values: np.ndarray, before: np.ndarray, perfect: float, groups: Sequence[Hashable] | None) -> np.ndarray:
    """One value a patient, the mean over its cases that have the organ in reference or prediction: ``(patients,)`` without others."""
    array = np.asarray(values, np.float64)
    filled = np.where(np.isnan(array), perfect, array)
    of_patients = per_group(np.where(np.isnan(np.asarray(before, np.float64)), np.nan, filled), groups)
    return of_patients[~np.isnan(of_patients)]
