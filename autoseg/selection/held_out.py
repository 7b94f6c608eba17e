"""Predictions of the cross-validation's cases by the chosen models, each by the network that was not trained on the case."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..data.images import read_label
from ..data.label_subsets import labels_as_in, translate_labels
from ..data.labels import to_internal_values
from ..inference.apply_selection import apply_selection
from ..inference.lazy_logits import in_order_of
from ..inference.logits import Logits
from ..inference.quantised_logits import has_logits, load_logits
from ..runtime.runs import ModelFolder, Run
from ..schema import Case, Choice, Labels, Plan


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The label map that a choice makes of a held-out case, its organs, and the number of voxels that two organs claimed."""

    array: np.ndarray
    organs: tuple[str, ...]
    conflicts: int


@dataclass(frozen=True)
class HeldOut:
    """A choice with the held-out predictions of its members.

    `results` is ``results/<dataset>``, `plan` the dataset's.
    """

    results: Path
    plan: Plan
    choice: Choice

    @cached_property
    def member_labels(self) -> dict[str, Labels]:
        """Member to its organs in the order and with the values of the dataset (`labels_as_in`), as its logits have them here."""
        return {name: labels_as_in(labels, self.plan.labels) for name, labels in self.own_labels.items()}

    @cached_property
    def own_labels(self) -> dict[str, Labels]:
        """Member to the labels that it was trained with, which its stored files have."""
        names = dict.fromkeys(name for members in self.choice.organs.values() for name in members)
        return {name: ModelFolder(self.results / name).labels(self.plan.labels) for name in names}

    def run(self, member: str, fold: str) -> Run:
        """The run that validated a member in a fold."""
        return ModelFolder(self.results / member).run(fold)

    def logits(self, fold: str, case: str) -> dict[str, Logits]:
        """Member to its stored logits of a case, before calibration; members whose file is not there are missing."""
        found = {}
        for name, labels in self.own_labels.items():
            folder = self.run(name, fold).validation
            if has_logits(folder, case):
                found[name] = in_order_of(load_logits(folder, case), labels, self.plan.labels)
        return found

    def predicted_labels(self, member: str, fold: str, case: str) -> np.ndarray | None:
        """A member's stored label map of a case, ``(Z, Y, X)`` or ``(Y, X)`` internal values of the dataset; None where it is not there."""
        path = self.run(member, fold).label_map(case, self.plan.file_ending)
        if not path.is_file():
            return None
        labels = self.own_labels[member]
        return translate_labels(to_internal_values(read_label(path).array, labels, source=str(path)), labels, self.plan.labels)

    def segmentation(self, fold: str, case: str) -> Segmentation | None:
        """Segments a case, in internal values of the dataset, without the organs of which a member's logits are gone; None without any."""
        candidates = set(self.choice.organs.values())
        if len(candidates) == 1 and len(members := next(iter(candidates))) == 1:
            array = self.predicted_labels(members[0], fold, case)
            if array is not None:
                return Segmentation(array, tuple(self.choice.organs), 0)
        logits = self.logits(fold, case)
        organs = {organ: members for organ, members in self.choice.organs.items() if all(name in logits for name in members)}
        if not organs:
            return None
        array, conflicts = apply_selection(logits, replace(self.choice, organs=organs), self.member_labels, self.plan.labels)
        return Segmentation(array, tuple(organs), conflicts)


def check_same_grid(case: Case, prediction: np.ndarray, reference: np.ndarray) -> None:
    """Refuses (ValueError) a prediction of another shape than its reference: the label file was changed since its validation."""
    if prediction.shape != reference.shape:
        raise ValueError(
            f"case {case.name}: {case.label}: expected the shape {prediction.shape} that it had when models were validated, "
            f"found {reference.shape}; train them again with --restart"
        )
