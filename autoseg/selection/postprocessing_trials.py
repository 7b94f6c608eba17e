"""The label maps that a choice makes of held-out cases, scored as they are and with every post-processing that may help.

Each case is segmented once, in `try_case`; what merging its organs changes, which post-processing helps, and how well the Dice can be
estimated without a reference all follow from that.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from scipy import ndimage

from ..data.labels import organ_mask
from ..data.references import reference_of
from ..evaluation.counts import dice
from ..evaluation.masks import TOLERANCE_MM, MaskPair, diagonal, grow_box
from ..evaluation.metrics import find_metric, metric_function
from ..inference.organ_statistics import MM3_PER_ML
from ..inference.postprocessing import apply_postprocessing
from ..runtime.workspace import Workspace
from ..schema import Case, Choice, Dataset, Labels, PostProcessing, Score
from .cross_validation import CrossValidation, for_each_case
from .dice_regression import fit_dice_regression
from .evidence import perfect_value
from .held_out import HeldOut, check_same_grid
from .organ_merging import summarise_merging
from .postprocessing_choice import SHAPES, organ_shapes, proposals, select_postprocessing, union_of_boxes
from .quality_estimation import TrueDice, estimate_quality, write_quality_estimates

log = logging.getLogger(__name__)

UNCHANGED = PostProcessing()

Tried = dict[PostProcessing, tuple[float, float]]
"""Proposal to the metric and the Dice of an organ of a case; `UNCHANGED` to those without post-processing."""


@dataclass(frozen=True)
class CaseTrials:
    """Scores of one case's label map.

    Attributes:
        tried: Organ to its scores under each proposal, of those that were segmented and annotated.
        merged: Scores of the merged map, and its voxels that two organs claimed; None where the organs come from one candidate, overlap,
            or a member's logits are gone.
        reference_ml: Organ to its volume in the reference.
    """

    tried: dict[str, Tried]
    merged: tuple[list[Score], int] | None = None
    reference_ml: dict[str, float] = field(default_factory=dict)


def choose_postprocessing(
    workspace: Workspace, dataset: Dataset, cross_validation: CrossValidation, choice: Choice, scores: Mapping[str, Sequence[Score]]
) -> Choice:
    """Adds to a choice what merging changes, the post-processing that helps each organ, and how its Dice is estimated.

    The choice is already calibrated, since the more confident organ wins a voxel; the dataset has its references.

    Raises:
        ValueError: A case's files are damaged or do not belong together.
    """
    if not cross_validation.held_out:
        write_quality_estimates(cross_validation.results, {})
        return choice
    held_out = HeldOut(cross_validation.results, cross_validation.plan, replace(choice, postprocessing={}))
    tries = _proposals(workspace, dataset, cross_validation.plan.labels)
    models = len(held_out.member_labels)
    function = partial(try_case, held_out, cross_validation, tries)
    trials = for_each_case(function, cross_validation, what="Trying post-processing", models=models)
    choice = replace(choice, merged=summarise_merging(choice, [one.merged for one in trials.values() if one.merged is not None], scores))
    of_organs = {organ: {case: one.tried[organ] for (_, case), one in trials.items() if organ in one.tried} for organ in choice.organs}
    selected = {organ: _select(tried, choice.metric, tries[organ]) for organ, tried in of_organs.items()}
    postprocessing = {organ: steps for organ, steps in selected.items() if steps is not None}
    for organ, steps in postprocessing.items():
        log.info("Post-processing of %s: %s.", organ, steps.why)
    choice = replace(choice, postprocessing=postprocessing)
    steps_of = {organ: replace(postprocessing.get(organ, UNCHANGED), why="") for organ in choice.organs}
    volumes = {case.name: one.reference_ml for (_, case), one in trials.items()}
    true = {
        organ: {case.name: TrueDice(tried[steps_of[organ]][1], volumes[case.name][organ]) for case, tried in cases.items()}
        for organ, cases in of_organs.items()
    }
    estimates = estimate_quality(replace(held_out, choice=choice), cross_validation, true)
    write_quality_estimates(cross_validation.results, estimates)
    regressions = {organ: fit_dice_regression(some) for organ, some in estimates.items()}
    return replace(choice, dice_regression={organ: one for organ, one in regressions.items() if one is not None})


def _proposals(workspace: Workspace, dataset: Dataset, labels: Labels) -> dict[str, tuple[PostProcessing, ...]]:
    """Organ to what is tried; nothing for regions, which share voxels."""
    if labels.regions:
        log.info("No post-processing: the organs of %s overlap, so what is removed from one would be missing in another.", dataset.name)
        return dict.fromkeys(labels.names, ())
    shapes = organ_shapes(dataset, workspace.preprocessed(dataset.name) / SHAPES)
    return {organ: proposals(parts) for organ, parts in shapes.items()}


def try_case(
    held_out: HeldOut, cross_validation: CrossValidation, tries: Mapping[str, Sequence[PostProcessing]], fold: str, case: Case
) -> CaseTrials:
    """Segments a case and scores its label map, merged and with each proposal; runs in a process of its own where there is much to do."""
    segmentation = held_out.segmentation(fold, case.name)
    if segmentation is None:
        return CaseTrials({})
    labels, choice = held_out.plan.labels, held_out.choice
    prediction, organs = segmentation.array, segmentation.organs
    reference, spacing = reference_of(case, labels)
    check_same_grid(case, prediction, reference)
    pair = _LabelMapPair(prediction, reference, labels, spacing, choice.metric, cross_validation.tolerances)
    judged = [organ for organ in organs if case.annotated is None or organ in case.annotated]
    merged = None
    if len(set(choice.organs.values())) > 1 and not labels.regions and len(organs) == len(choice.organs):
        merged = cross_validation.score(case, prediction, reference, labels, spacing), segmentation.conflicts
    volumes = {organ: pair.reference_ml(organ) for organ in judged}
    return CaseTrials({organ: pair.tried(organ, tries[organ]) for organ in judged}, merged, volumes)


@dataclass(frozen=True, eq=False)
class _LabelMapPair:
    """Predicted and reference label map of a case, internal values ``(Z, Y, X)`` or ``(Y, X)``, and by what the two are compared."""

    prediction: np.ndarray
    reference: np.ndarray
    labels: Labels
    spacing: tuple[float, ...]
    metric: str
    tolerances: Mapping[str, float]

    @cached_property
    def boxes(self) -> list[list[tuple[slice, ...] | None]]:
        """Bounding box of every internal value, in both maps."""
        maps = (np.maximum(self.prediction, 0), np.maximum(self.reference, 0))
        return [ndimage.find_objects(one, max_label=len(self.labels.base_values)) for one in maps]

    def reference_ml(self, organ: str) -> float:
        """Volume of an organ in the reference (of a 2D image as if it were 1 mm thick)."""
        voxels = np.count_nonzero(organ_mask(self.reference, self.labels, self.labels.names.index(organ)))
        return float(voxels * math.prod(self.spacing) / MM3_PER_ML)

    def tried(self, organ: str, tries: Sequence[PostProcessing]) -> Tried:
        """Scores an organ with each proposal; one that leaves the mask as it is has the values of `UNCHANGED`."""
        index = self.labels.names.index(organ)
        box = union_of_boxes([boxes[value - 1] for value in self.labels.internal_members[index] for boxes in self.boxes])
        box = grow_box(box or (slice(0, 1),) * self.prediction.ndim, self.prediction.shape)
        prediction, reference = self.prediction[box], self.reference[box]
        ignored, before = reference == self.labels.internal_ignore, organ_mask(prediction, self.labels, index)
        truth, size = organ_mask(reference, self.labels, index), diagonal(self.prediction.shape, self.spacing)
        tolerance, wanted = self.tolerances.get(organ, TOLERANCE_MM), find_metric(self.metric)
        function = metric_function(wanted)

        def score(mask: np.ndarray) -> tuple[float, float]:
            """The metric and Dice; 0 where one that shall be high has no number although the organ is there, as the precision."""
            pair = MaskPair(truth, mask & ~ignored, self.spacing, size, tolerance)
            value = float(function(pair if wanted.needs == "masks" else pair.overlap))
            if math.isnan(value) and wanted.better == "higher" and pair.overlap.n_prediction + pair.overlap.n_reference:
                value = 0.0
            return value, dice(pair.overlap)

        values = {UNCHANGED: score(before)}
        for proposal in tries:
            after = organ_mask(apply_postprocessing(prediction, self.labels, {organ: proposal}, self.spacing), self.labels, index)
            values[proposal] = values[UNCHANGED] if np.array_equal(before, after) else score(after)
        return values


def _select(tried: Mapping[Case, Tried], metric: str, tries: Sequence[PostProcessing]) -> PostProcessing | None:
    """The proposal that helps an organ, None without any."""
    if not tried:
        return None
    before, *after = (np.array([of_case[proposal][0] for of_case in tried.values()]) for proposal in (UNCHANGED, *tries))
    patients = [case.group or case.name for case in tried]
    return select_postprocessing(
        before, dict(zip(tries, after, strict=True)), metric=metric, perfect=perfect_value(metric), groups=patients
    )
