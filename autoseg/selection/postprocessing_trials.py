"""What is done to the masks of the chosen models, and how well their Dice can be foretold: both from the cross-validation."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from ..data.labels import organ_mask
from ..evaluation.counts import dice
from ..evaluation.masks import TOLERANCE_MM, MaskPair, diagonal, grow_box
from ..evaluation.metrics import find_metric, metric_function
from ..inference.postprocessing import Components, apply_postprocessing
from ..runtime.hardware import cpu_count
from ..runtime.provenance import Stamp, annotated_setting, label_id, value_id
from ..runtime.serialization import read_json, to_jsonable, write_json
from ..runtime.workspace import Workspace
from ..schema import Case, Choice, Dataset, Labels, PostProcessing
from .candidate_scores import SelectionTask, file_voxels, memory_for, run_all
from .estimated_dice import write_quality_estimates
from .evidence import perfect_value
from .held_out import HeldOut, check_same_grid, reference_of
from .postprocessing_choice import parts_of, proposals, select_postprocessing
from .quality_estimation import dice_regression_of, estimate_quality

log = logging.getLogger(__name__)

SHAPES = "organ_shapes.json"
"""In ``preprocessed/<dataset>``: case to the stamp of what was measured and, for each organ, the volumes of its parts in mm³."""

READERS = 4
"""Label maps that are measured at once, at most."""

AS_IT_IS = PostProcessing()


@dataclass(frozen=True)
class _Trial:
    """One organ of one case: proposal to metric and Dice (`AS_IT_IS`: untouched)."""

    case: str
    group: str
    tried: dict[PostProcessing, tuple[float, float]]


def choose_postprocessing(workspace: Workspace, dataset: Dataset, task: SelectionTask, choice: Choice) -> Choice:
    """The choice with the post-processing that helps each organ, and with how its Dice is predicted where there is no reference.

    Args:
        workspace: Where the models lie.
        dataset: With the references.
        task: The plan, and the validation cases that the choice rests on.
        choice: Already calibrated.

    Raises:
        ValueError: A label file does not fit its predictions any more.
    """
    held_out = HeldOut(task.results, task.plan, replace(choice, postprocessing={}))
    todo = [(fold, case) for fold, some in task.cases.items() if fold != "all" for case in some]
    if not todo:
        write_quality_estimates(workspace.results(dataset.name), {})
        return choice
    tries = _proposals(workspace, dataset, task.plan.labels)
    jobs = {f"fold {fold}, {case.name}": (held_out, fold, case, tries, dataset.tolerances) for fold, case in todo}
    voxels = sum(file_voxels(task, fold, case) for fold, case in todo)
    work = {"voxels": voxels * len(held_out.own), "memory": memory_for(task, todo)}
    trials: dict[str, list[_Trial]] = {organ: [] for organ in choice.organs}
    for found in run_all(try_case, jobs, what="Trying post-processing", **work).values():
        for organ, trial in found.items():
            trials[organ].append(trial)
    postprocessing = {organ: found for organ, some in trials.items() if (found := _select(some, choice.metric, tries[organ])) is not None}
    for organ, found in postprocessing.items():
        log.info("Post-processing of %s: %s.", organ, found.why)
    steps = {organ: replace(found, why="") for organ, found in postprocessing.items()}
    dice_of = {organ: {one.case: one.tried[steps.get(organ, AS_IT_IS)][1] for one in some} for organ, some in trials.items()}
    quality_estimates = estimate_quality(replace(held_out, choice=replace(choice, postprocessing=postprocessing)), todo, dice_of, **work)
    write_quality_estimates(workspace.results(dataset.name), quality_estimates)
    lines = {organ: dice_regression_of(some) for organ, some in quality_estimates.items()}
    return replace(
        choice, postprocessing=postprocessing, dice_regression={organ: line for organ, line in lines.items() if line is not None}
    )


def organ_shapes(dataset: Dataset, path: Path) -> dict[str, list[tuple[float, ...]]]:
    """Of every organ the volumes of its parts in each training label that has it, mm³, largest first.

    Label maps that were measured before are not read again unless their content, or what their values mean, has changed since.

    Args:
        dataset: Whose labels.
        path: Where the measurements are kept.
    """
    stored = read_json(path, dict) if path.is_file() else {}
    stamps = {case.name: to_jsonable(_stamp(case, dataset.labels)) for case in dataset.cases}
    known = {name: entry for name, entry in stored.items() if entry.get("made_from") == stamps.get(name)}
    missing = [case for case in dataset.cases if case.name not in known]
    if missing:
        with ThreadPoolExecutor(min(READERS, cpu_count())) as pool:
            measured = pool.map(lambda case: _measure(case, dataset.labels), missing)
            found = list(tqdm(measured, desc="Measuring organs", total=len(missing), unit="case"))
        known |= {case.name: {"made_from": stamps[case.name], "organs": parts} for case, parts in zip(missing, found, strict=True)}
        write_json(path, known)
    entries = [known[case.name]["organs"] for case in dataset.cases]
    return {organ: [tuple(entry[organ]) for entry in entries if entry.get(organ)] for organ in dataset.labels.names}


def _stamp(case: Case, labels: Labels) -> Stamp:
    return Stamp({"label": label_id(case)}, {"annotated": annotated_setting(case), "labels": value_id(labels)})


def _measure(case: Case, labels: Labels) -> dict[str, tuple[float, ...]]:
    reference, spacing = reference_of(case, labels)
    boxes = ndimage.find_objects(np.maximum(reference, 0), max_label=len(labels.base_values))
    found = {}
    for index, (organ, members) in enumerate(zip(labels.names, labels.internal_members, strict=True)):
        box = _union([boxes[value - 1] for value in members])
        if box is not None and (case.annotated is None or organ in case.annotated):
            sizes = Components.of(organ_mask(reference[box], labels, index)).sizes[1:]
            found[organ] = parts_of((sizes * math.prod(spacing)).tolist())
    return found


def _union(boxes: Sequence[tuple[slice, ...] | None]) -> tuple[slice, ...] | None:
    """The smallest box around several, None where all are."""
    there = [box for box in boxes if box is not None]
    return tuple(slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*there, strict=True)) if there else None


def _proposals(workspace: Workspace, dataset: Dataset, labels: Labels) -> dict[str, tuple[PostProcessing, ...]]:
    """Organ to what is tried; nothing for regions, which share voxels."""
    if labels.regions:
        log.info("No post-processing: the organs of %s overlap, so what is removed from one would be missing in another.", dataset.name)
        return dict.fromkeys(labels.names, ())
    shapes = organ_shapes(dataset, workspace.preprocessed(dataset.name) / SHAPES)
    return {organ: proposals(parts) for organ, parts in shapes.items()}


@dataclass(frozen=True, eq=False)
class _Scene:
    """A case: internal values ``(Z, Y, X)`` or ``(Y, X)`` of what was found and of the reference, and by what the two are compared."""

    found: np.ndarray
    reference: np.ndarray
    labels: Labels
    spacing: tuple[float, ...]
    metric: str
    tolerances: Mapping[str, float]

    @cached_property
    def boxes(self) -> list[list[tuple[slice, ...] | None]]:
        """Of every internal value, in both maps."""
        maps = (np.maximum(self.found, 0), np.maximum(self.reference, 0))
        return [ndimage.find_objects(one, max_label=len(self.labels.base_values)) for one in maps]

    def tried(self, organ: str, tries: Sequence[PostProcessing]) -> dict[PostProcessing, tuple[float, float]]:
        """Proposal to metric and Dice of an organ; what leaves the mask as it is has the values of `AS_IT_IS`."""
        index = self.labels.names.index(organ)
        box = _union([boxes[value - 1] for value in self.labels.internal_members[index] for boxes in self.boxes])
        box = grow_box(box or (slice(0, 1),) * self.found.ndim, self.found.shape)
        found, reference = self.found[box], self.reference[box]
        ignored, before = reference == self.labels.internal_ignore, organ_mask(found, self.labels, index)
        truth, size = organ_mask(reference, self.labels, index), diagonal(self.found.shape, self.spacing)
        tolerance = self.tolerances.get(organ, TOLERANCE_MM)

        def score(mask: np.ndarray) -> tuple[float, float]:
            return _score(MaskPair(truth, mask & ~ignored, self.spacing, size, tolerance), self.metric)

        values = {AS_IT_IS: score(before)}
        for proposal in tries:
            after = organ_mask(apply_postprocessing(found, self.labels, {organ: proposal}, self.spacing), self.labels, index)
            values[proposal] = values[AS_IT_IS] if np.array_equal(before, after) else score(after)
        return values


def try_case(
    held_out: HeldOut, fold: str, case: Case, tries: Mapping[str, Sequence[PostProcessing]], tolerances: Mapping[str, float]
) -> dict[str, _Trial]:
    """Organ to how it did in a case, of those that its candidate segmented and that were annotated; in a process of its own."""
    predictions = held_out.kept(fold, case.name)
    found, organs = held_out.label_map(fold, case.name, predictions)
    if found is None:
        return {}
    reference, spacing = reference_of(case, held_out.plan.labels)
    check_same_grid(case, found, reference)
    scene = _Scene(found, reference, held_out.plan.labels, spacing, held_out.choice.metric, tolerances)
    judged = [organ for organ in organs if case.annotated is None or organ in case.annotated]
    return {organ: _Trial(case.name, case.group or case.name, scene.tried(organ, tries[organ])) for organ in judged}


def _score(pair: MaskPair, metric: str) -> tuple[float, float]:
    """The metric and Dice; 0 where one that shall be high has no number although the organ is there, as the precision of an empty mask."""
    wanted, overlap = find_metric(metric), pair.overlap
    value = float(metric_function(wanted)(pair if wanted.needs == "masks" else overlap))
    if math.isnan(value) and wanted.better == "higher" and overlap.n_prediction + overlap.n_reference:
        value = 0.0
    return value, dice(overlap)


def _select(trials: Sequence[_Trial], metric: str, tries: Sequence[PostProcessing]) -> PostProcessing | None:
    if not trials:
        return None
    values = {one: np.array([trial.tried[one][0] for trial in trials]) for one in (AS_IT_IS, *tries)}
    before = values.pop(AS_IT_IS)
    return select_postprocessing(before, values, metric=metric, perfect=perfect_value(metric), groups=[trial.group for trial in trials])
