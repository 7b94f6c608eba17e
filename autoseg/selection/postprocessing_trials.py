"""The label maps that a choice makes of held-out cases, scored as they are and with every post-processing that may help.

Each case is segmented once, in `try_case`; what merging its organs changes, which post-processing helps, and how well the Dice can be
estimated without a reference all follow from that.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from scipy import ndimage

from ..data.labels import organ_mask, union_of_boxes
from ..data.references import reference_image
from ..evaluation.counts import dice
from ..evaluation.masks import TOLERANCE_MM, MaskPair, diagonal, grow_box
from ..evaluation.metrics import find_metric, metric_function
from ..inference.organ_measures import MM3_PER_ML
from ..inference.organ_places import LabelMapPlaces, OrganPlace, organ_places
from ..inference.postprocessing import apply_postprocessing, forced, requested_steps
from ..runtime.workspace import Workspace
from ..schema import Case, Choice, Dataset, Geometry, Labels, PostProcessing, Score
from .cross_validation import CrossValidation, for_each_case
from .dice_regression import fit_dice_regression
from .evidence import perfect_value
from .held_out import HeldOut, check_same_grid
from .organ_merging import summarise_merging
from .postprocessing_choice import SHAPES, organ_shapes, proposals, select_postprocessing
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
        places: Organ to where its mask lies under each proposal, None where it is empty.
        reference_places: The same in the reference, without organs that it lacks.
    """

    tried: dict[str, Tried]
    merged: tuple[list[Score], int] | None = None
    reference_ml: dict[str, float] = field(default_factory=dict)
    places: dict[str, dict[PostProcessing, OrganPlace | None]] = field(default_factory=dict)
    reference_places: dict[str, OrganPlace] = field(default_factory=dict)

    def true_dice(self, organ: str, steps: PostProcessing) -> TrueDice:
        """What is known of an organ with its post-processing."""
        place, of_reference = self.places[organ][steps], self.reference_places.get(organ)
        return TrueDice(self.tried[organ][steps][1], self.reference_ml[organ], place, of_reference)


def choose_postprocessing(
    workspace: Workspace,
    dataset: Dataset,
    cross_validation: CrossValidation,
    choice: Choice,
    scores: Mapping[str, Sequence[Score]],
    *,
    instead: Callable[[Choice], Choice | None] = lambda _: None,
) -> Choice:
    """Adds to a choice what merging changes, the post-processing that helps each organ, and how its Dice is estimated.

    The choice is already calibrated, since the more confident organ wins a voxel; the dataset has its references.

    Args:
        instead: Is asked when `Choice.merged` is known; the choice that it gives takes the place of this one.

    Raises:
        ValueError: A case's files are damaged or do not belong together.
    """
    if not cross_validation.held_out:
        write_quality_estimates(cross_validation.results, {}, choice.made_from)
        return replace(choice, postprocessing=forced(choice.postprocess, cross_validation.plan.labels, {}))
    held_out = HeldOut(cross_validation.results, cross_validation.plan, replace(choice, postprocessing={}))
    asked = requested_steps(choice.postprocess, cross_validation.plan.labels.names)
    tries = _tries(workspace, dataset, cross_validation, asked)
    models = len(held_out.member_labels)
    function = partial(try_case, held_out, cross_validation, tries)
    trials = for_each_case(function, cross_validation, what="Trying post-processing", models=models)
    choice = replace(choice, merged=summarise_merging(choice, [one.merged for one in trials.values() if one.merged is not None], scores))
    if (other := instead(choice)) is not None:
        return choose_postprocessing(workspace, dataset, cross_validation, other, scores)
    of_organs = {organ: {case: one.tried[organ] for (_, case), one in trials.items() if organ in one.tried} for organ in choice.organs}
    free = {organ: tried for organ, tried in of_organs.items() if organ not in asked}
    dim = len(cross_validation.plan.transpose)
    selected = {organ: _select(organ, tried, choice.metric, tries[organ], dim=dim) for organ, tried in free.items()}
    wanted = selected | {organ: steps for organ, steps in asked.items() if tries[organ] and organ in choice.organs}
    postprocessing = {organ: steps for organ, steps in wanted.items() if steps is not None}
    for organ, steps in postprocessing.items():
        log.info("Post-processing of %s: %s.", organ, steps.why)
    choice = replace(choice, postprocessing=postprocessing)
    steps_of = {organ: replace(postprocessing.get(organ, UNCHANGED), why="") for organ in choice.organs}
    true = {
        organ: {case.name: one.true_dice(organ, steps_of[organ]) for (_, case), one in trials.items() if organ in one.tried}
        for organ in choice.organs
    }
    estimates = estimate_quality(replace(held_out, choice=choice), cross_validation, true)
    write_quality_estimates(cross_validation.results, estimates, choice.made_from)
    regressions = {organ: fit_dice_regression(some) for organ, some in estimates.items()}
    return replace(choice, dice_regression={organ: one for organ, one in regressions.items() if one is not None})


def _tries(
    workspace: Workspace, dataset: Dataset, cross_validation: CrossValidation, asked: Mapping[str, PostProcessing]
) -> dict[str, tuple[PostProcessing, ...]]:
    """Organ to what is tried: what was asked for, else what may help."""
    steps = {organ: replace(one, why="") for organ, one in asked.items()}
    given: dict[str, tuple[PostProcessing, ...]] = {organ: () if one == UNCHANGED else (one,) for organ, one in steps.items()}
    all_asked = set(given) == set(cross_validation.plan.labels.names)
    return given if all_asked else _proposals(workspace, dataset, cross_validation) | given


def _proposals(workspace: Workspace, dataset: Dataset, cross_validation: CrossValidation) -> dict[str, tuple[PostProcessing, ...]]:
    """Organ to what is tried; nothing for regions, which share voxels."""
    labels = cross_validation.plan.labels
    if labels.regions:
        log.info("No post-processing: the organs of %s overlap, so what is removed from one would be missing in another.", dataset.name)
        return dict.fromkeys(labels.names, ())
    shapes = organ_shapes(dataset, workspace.preprocessed(dataset.name) / SHAPES, failures=cross_validation.failures)
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
    image = reference_image(case, labels)
    reference, geometry = image.array, image.geometry
    check_same_grid(case, prediction, reference)
    pair = _LabelMapPair(prediction, reference, labels, geometry, choice.metric, cross_validation.tolerances)
    judged = [organ for organ in organs if case.annotated is None or organ in case.annotated]
    merged = None
    if len(set(choice.organs.values())) > 1 and not labels.regions and len(organs) == len(choice.organs):
        merged = cross_validation.score(case, prediction, reference, labels, geometry.spacing), segmentation.conflicts
    volumes = {organ: pair.reference_ml(organ) for organ in judged}
    tried = {organ: pair.tried(organ, tries[organ]) for organ in judged}
    places = {organ: of_organ for organ, (_, of_organ) in tried.items()}
    references = {organ: place for organ, place in organ_places(reference, labels, geometry).items() if organ in judged}
    if case.annotated is not None:  # of the other organs not all are there
        references = {organ: replace(place, from_others_mm=()) for organ, place in references.items()}
    return CaseTrials({organ: values for organ, (values, _) in tried.items()}, merged, volumes, places, references)


@dataclass(frozen=True, eq=False)
class _LabelMapPair:
    """Predicted and reference label map of a case, internal values ``(Z, Y, X)`` or ``(Y, X)``, and by what the two are compared."""

    prediction: np.ndarray
    reference: np.ndarray
    labels: Labels
    geometry: Geometry
    metric: str
    tolerances: Mapping[str, float]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Of both maps, mm."""
        return self.geometry.spacing

    @cached_property
    def places(self) -> LabelMapPlaces:
        """Measures where masks lie in the prediction."""
        return LabelMapPlaces.of(self.prediction, self.labels, self.geometry)

    @cached_property
    def boxes(self) -> list[list[tuple[slice, ...] | None]]:
        """Bounding box of every internal value, in both maps."""
        maps = (np.maximum(self.prediction, 0), np.maximum(self.reference, 0))
        return [ndimage.find_objects(one, max_label=len(self.labels.base_values)) for one in maps]

    def reference_ml(self, organ: str) -> float:
        """Volume of an organ in the reference (of a 2D image as if it were 1 mm thick)."""
        voxels = np.count_nonzero(organ_mask(self.reference, self.labels, self.labels.names.index(organ)))
        return float(voxels * math.prod(self.spacing) / MM3_PER_ML)

    def tried(self, organ: str, tries: Sequence[PostProcessing]) -> tuple[Tried, dict[PostProcessing, OrganPlace | None]]:
        """Scores and places of an organ with each proposal; one that leaves the mask as it is has those of `UNCHANGED`."""
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

        values, places = {UNCHANGED: score(before)}, {UNCHANGED: self.places.place(index, before, box)}
        for proposal in tries:
            after = organ_mask(apply_postprocessing(prediction, self.labels, {organ: proposal}, self.spacing), self.labels, index)
            same = np.array_equal(before, after)
            values[proposal] = values[UNCHANGED] if same else score(after)
            places[proposal] = places[UNCHANGED] if same else self.places.place(index, after, box)
        return values, places


def _select(organ: str, tried: Mapping[Case, Tried], metric: str, tries: Sequence[PostProcessing], *, dim: int) -> PostProcessing | None:
    """The proposal that helps an organ, None without any, which is explained where one was tested."""
    if not tried:
        return None
    before, *after = (np.array([of_case[proposal][0] for of_case in tried.values()]) for proposal in (UNCHANGED, *tries))
    patients = [case.group or case.name for case in tried]
    values = dict(zip(tries, after, strict=True))
    selection = select_postprocessing(before, values, metric=metric, perfect=perfect_value(metric), groups=patients, dim=dim)
    if selection.kept is None and selection.tested:
        log.info("Post-processing of %s: none; not kept: %s.", organ, "; ".join(trial.described() for trial in selection.tested))
    return selection.postprocessing
