"""What the chosen models said about the cross-validation's cases, each by the network that has not seen it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..data.images import read_label
from ..data.label_subsets import translate_labels
from ..data.labels import to_internal_values
from ..inference.apply_selection import apply_selection
from ..inference.logits import Logits
from ..inference.quantised_logits import has_logits, load_logits
from ..runtime.runs import ModelFolder
from ..schema import Case, Choice, Labels, Plan


@dataclass(frozen=True)
class HeldOut:
    """A choice and where the validation of its models lies.

    Attributes:
        results: ``results/<dataset>``.
        plan: Of the dataset.
        choice: Which member segments which organ.
    """

    results: Path
    plan: Plan
    choice: Choice

    @cached_property
    def own(self) -> dict[str, Labels]:
        """Member to its labels."""
        names = dict.fromkeys(name for members in self.choice.organs.values() for name in members)
        return {name: ModelFolder(self.results / name).labels(self.plan.labels) for name in names}

    def folder(self, member: str, fold: str) -> Path:
        """Where a member's validation of a fold lies."""
        return self.results / member / f"fold_{fold}" / "validation"

    def kept(self, fold: str, case: str) -> dict[str, Logits]:
        """What members said about a case, as they said it; members whose probabilities are not there are missing."""
        folders = {name: self.folder(name, fold) for name in self.own}
        return {name: load_logits(folder, case) for name, folder in folders.items() if has_logits(folder, case)}

    def told(self, member: str, fold: str, case: str) -> np.ndarray | None:
        """A member's own label map of a case, ``(Z, Y, X)`` or ``(Y, X)`` internal values of the dataset; None where it is not there."""
        path = self.folder(member, fold) / f"{case}{self.plan.file_ending}"
        if not path.is_file():
            return None
        own = self.own[member]
        return translate_labels(to_internal_values(read_label(path).array, own, source=str(path)), own, self.plan.labels)

    def label_map(self, fold: str, case: str, predictions: Mapping[str, Logits]) -> tuple[np.ndarray | None, tuple[str, ...]]:
        """The label map that the choice makes of a case, and the organs in it.

        Args:
            fold: In which it was held out.
            case: Its name.
            predictions: From `kept`; organs with a member that is missing there are left out.

        Returns:
            Internal values of the dataset, None where no organ's members said anything; and the organs that were segmented.
        """
        candidates = set(self.choice.organs.values())
        if len(candidates) == 1 and len(alone := next(iter(candidates))) == 1:
            found = self.told(alone[0], fold, case)
            if found is not None:
                return found, tuple(self.choice.organs)
        organs = {organ: members for organ, members in self.choice.organs.items() if all(name in predictions for name in members)}
        if not organs:
            return None, ()
        choice = replace(self.choice, organs=organs)
        return apply_selection(predictions, choice, self.own, self.plan.labels)[0], tuple(organs)


def reference_of(case: Case, labels: Labels) -> tuple[np.ndarray, tuple[float, ...]]:
    """A case's reference, internal values ``(Z, Y, X)`` or ``(Y, X)``, and its spacing in mm."""
    image = read_label(case.label)
    return to_internal_values(image.array, labels, source=str(case.label)), image.geometry.spacing


def check_same_grid(case: Case, found: np.ndarray, reference: np.ndarray) -> None:
    """Refuses a prediction of another shape than its reference.

    Raises:
        ValueError: The label file was changed since its validation.
    """
    if found.shape != reference.shape:
        raise ValueError(
            f"case {case.name}: {case.label}: expected the shape {found.shape} that it had when models were validated, "
            f"found {reference.shape}; train them again with --restart"
        )
