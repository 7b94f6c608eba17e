"""The models of a choice with their labels: from an image to every member's logits, and on to one label map."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..data.label_subsets import label_conflict, labels_as_in
from ..runtime.registry import unknown_name_error
from ..schema import Choice, Image, Labels, Plan
from .apply_selection import apply_selection, calibrated
from .export import probabilities
from .lazy_logits import in_order_of, lazy_mean
from .logits import Logits
from .low_memory import LowMemoryPredictor
from .predictor import Predictor
from .trained_model import TrainedModel, logits_cache_for
from .uncertainty import CandidatePrediction
from .volume_predictor import Progress, scaled

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ensemble:
    """Everything that is needed to segment an image: the members that are averaged for each organ.

    Attributes:
        choice: Organ to members; organs that it lacks are background.
        models: By member, of all organs or of some.
        labels: Of the dataset.
        fold_models: Member to its folds, each as a model of its own; a member that is missing has a single one.

    Raises:
        ValueError: A member does not know the organ that it is chosen for, or members that are averaged have different organs.
    """

    choice: Choice
    models: Mapping[str, TrainedModel]
    labels: Labels
    fold_models: Mapping[str, tuple[TrainedModel, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, model in self.models.items():
            if reason := label_conflict(model.plan.labels, self.labels):
                raise ValueError(f"{name}: does not fit the organs of the dataset: {reason}; train it again")
        known = self.member_labels
        for organ, members in self.choice.organs.items():
            for name in members:
                if organ not in known[name].names:
                    raise unknown_name_error(f"organ of {name}", organ, known[name].names)
            if len({known[name] for name in members}) > 1:
                listed = "; ".join(f"{name}: {', '.join(known[name].names)}" for name in members)
                raise ValueError(f"models to average for {organ}: expected the same organs, found {listed}")

    @property
    def member_labels(self) -> dict[str, Labels]:
        """Member to its organs in the order and with the values of the dataset (`labels_as_in`), as its logits have them here."""
        return {name: labels_as_in(model.plan.labels, self.labels) for name, model in self.models.items()}

    @property
    def channels(self) -> tuple[str, ...]:
        """Of an image, the same for all models."""
        return next(iter(self.models.values())).plan.channels

    def logits(self, image: Image, *, case: str = "", progress: Progress | None = None) -> dict[str, Logits]:
        """Every member's logits of one image; `progress` gets shares that add up to one."""
        progress = scaled(progress, 1 / len(self.models))
        cache = logits_cache_for(self.models.values())  # a cascade's first stage, or an ensemble's member, predicts once
        return {
            name: self._in_order(model, model.logits(image, case=case, progress=progress, cache=cache))
            for name, model in self.models.items()
        }

    def _in_order(self, model: TrainedModel, logits: Logits) -> Logits:
        return in_order_of(logits, model.plan.labels, self.labels)

    def logits_by_fold(
        self, image: Image, *, case: str = "", progress: Progress | None = None
    ) -> tuple[dict[str, Logits], dict[str, list[Logits]]]:
        """Every member's logits of one image, and those of each of its folds alone, each computed once.

        Where a model is the mean of its folds' logits, that mean stands for the model, which then is not run: the same but for rounding.
        """
        folds = {name: self.fold_models.get(name, (model,)) for name, model in self.models.items()}
        whole = {name: model for name, model in self.models.items() if not _is_mean_of(model, folds[name])}
        models = [model for alone in folds.values() for model in alone] + list(whole.values())
        cache = logits_cache_for(models)
        share = scaled(progress, 1 / len(models))

        def predict(model: TrainedModel) -> Logits:
            return self._in_order(model, model.logits(image, case=case, progress=share, cache=cache))

        by_fold = {name: [predict(model) for model in alone] for name, alone in folds.items()}
        return {name: predict(whole[name]) if name in whole else lazy_mean(by_fold[name]) for name in self.models}, by_fold

    def segment(self, logits: Mapping[str, Logits], by_fold: Mapping[str, Sequence[Logits]] | None = None) -> np.ndarray:
        """The merged and post-processed label map in internal values of the dataset and the file's axis order.

        `by_fold` are the predictions of `logits_by_fold`, needed where folds vote.
        """
        label_map, conflicts = apply_selection(logits, self.choice, self.member_labels, self.labels, by_fold=by_fold)
        if conflicts:
            log.debug("%d voxels were claimed by two organs and went to the more confident one", conflicts)
        return label_map

    def probabilities(self, logits: Mapping[str, Logits]) -> Iterator[tuple[int, int, np.ndarray]]:
        """Of each chosen organ: its place in `labels`, the first slice of a slab, and its probabilities there ``(slab, Y, X)``.

        They are calibrated, and those of the models: post-processing changes only the label map.
        """
        for candidate in self.candidate_predictions(logits):
            for start, slab in probabilities(candidate.members, candidate.labels):
                for organ, channel in zip(candidate.organs, candidate.channels, strict=True):
                    yield self.labels.names.index(organ), start, slab[channel]

    def candidate_predictions(
        self, logits: Mapping[str, Logits], by_fold: Mapping[str, Sequence[Logits]] | None = None
    ) -> list[CandidatePrediction]:
        """The calibrated prediction of each candidate; without `by_fold` each member counts as a single network."""
        labels, folds = self.member_labels, by_fold or {name: [one] for name, one in logits.items()}
        means = calibrated(logits, self.choice, labels)
        networks = {name: [calibrated({name: one}, self.choice, labels)[name] for one in several] for name, several in folds.items()}
        predictions = []
        for members in dict.fromkeys(self.choice.organs.values()):
            organs = tuple(organ for organ in self.labels.names if self.choice.organs.get(organ) == members)
            alone = tuple(one for name in members for one in networks[name])
            predictions.append(CandidatePrediction(labels[members[0]], organs, tuple(means[name] for name in members), alone))
        return predictions


def check_channels(models: Mapping[str, TrainedModel], plan: Plan) -> None:
    """Refuses models that see other channels than the dataset has: raises a ValueError that names the model."""
    for name, model in models.items():
        if model.plan.channels != plan.channels:
            expected, found = (", ".join(one) for one in (plan.channels, model.plan.channels))
            raise ValueError(f"{name}: expected the channels {expected} of {plan.dataset}, found {found}; was it trained on other data?")


def _is_mean_of(model: TrainedModel, folds: Sequence[TrainedModel]) -> bool:
    """Whether a model's logits are the mean of its folds': not where it first localises the organs, or computes with what it averaged."""
    plain = type(model) is TrainedModel and isinstance(model.predictor, (Predictor, LowMemoryPredictor))
    return plain or (len(folds) == 1 and folds[0] is model)
