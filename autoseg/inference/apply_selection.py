"""From the predictions of the chosen models to the label map of a case: calibrated, merged organ by organ, post-processed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..data.label_subsets import subset_labels, translate_labels
from ..data.region_order import rightly_painted
from ..schema import Choice, Labels
from .averages import Members, average_all
from .export import export_labels, to_file_order
from .lazy_logits import with_temperature
from .logits import Logits
from .merge_labels import merge_organs
from .postprocessing import apply_postprocessing
from .sampled_probabilities import probabilities_at


def calibrated(predictions: Mapping[str, Logits], choice: Choice, member_labels: Mapping[str, Labels]) -> dict[str, Logits]:
    """Members' predictions of one case, each with its temperature where the choice holds one."""
    temperatures = {name: choice.calibration[name].temperature for name in predictions if name in choice.calibration}
    return {name: with_temperature(logits, temperatures.get(name, 1.0), member_labels[name]) for name, logits in predictions.items()}


def apply_selection(
    predictions: Mapping[str, Logits],
    choice: Choice,
    member_labels: Mapping[str, Labels],
    labels: Labels,
    *,
    by_fold: Mapping[str, Sequence[Logits]] | None = None,
) -> tuple[np.ndarray, int]:
    """The label map of a case.

    The members of each organ are averaged, each organ is taken from its own average, where two claim a voxel the more probable one wins
    (all of these see calibrated probabilities), and the organ's post-processing is applied to its mask.

    Args:
        predictions: By member.
        choice: Organ to members; organs that it lacks are background.
        member_labels: By member.
        labels: Of the dataset.
        by_fold: Of a choice whose members vote, the predictions of each member's folds, which vote one by one; None: members do.

    Returns:
        Label map, int16, in internal values of the dataset and the file's axis order, and the number of voxels that two organs claimed.
    """
    chosen = rightly_painted(subset_labels(labels, tuple(choice.organs)))
    candidates = list(dict.fromkeys(choice.organs.values()))
    if len(candidates) > 1 or len(candidates[0]) > 1:  # the winners of a single model are the same at every temperature
        predictions = calibrated(predictions, choice, member_labels)
    if choice.vote:
        voters = by_fold or {name: [one] for name, one in predictions.items()}
        made = {
            members: export_labels([one for name in members for one in voters[name]], member_labels[members[0]], vote=True)
            for members in candidates
        }
    else:
        made = _label_maps(predictions, candidates, member_labels)
    maps = {members: translate_labels(label_map, member_labels[members[0]], chosen) for members, label_map in made.items()}

    def confidence(organ: str, voxels: np.ndarray) -> np.ndarray:
        """Mean probability of the organ by its models."""
        members = choice.organs[organ]
        organs = member_labels[members[0]]
        return probabilities_at([predictions[name] for name in members], voxels, organs)[:, 1 + organs.names.index(organ)]

    merged, conflicts = merge_organs(maps, choice.organs, chosen, confidence)
    postprocessing = {organ: steps for organ, steps in choice.postprocessing.items() if organ in choice.organs}
    spacing = predictions[candidates[0][0]].trace.geometry.spacing
    return apply_postprocessing(translate_labels(merged, chosen, labels), labels, postprocessing, spacing), conflicts


def _label_maps(
    predictions: Mapping[str, Logits], candidates: Sequence[Members], member_labels: Mapping[str, Labels]
) -> dict[Members, np.ndarray]:
    """The label map of each candidate in its own internal values; those of the same organs are made together."""
    groups: dict[Labels, list[Members]] = {}
    for members in candidates:
        groups.setdefault(member_labels[members[0]], []).append(members)
    maps = {}
    for labels, group in groups.items():
        models = {name: predictions[name] for members in group for name in members}
        if len(group) == 1:
            maps[group[0]] = export_labels(list(models.values()), labels)
        else:
            together = average_all(models, group, labels)
            trace = next(iter(models.values())).trace
            maps |= {members: to_file_order(together.label_map(members), trace) for members in group}
    return maps
