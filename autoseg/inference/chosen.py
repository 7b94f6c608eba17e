"""From what the chosen models say about a case to its label map: calibrated, merged organ by organ, tidied."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..label_subsets import subset, translate
from ..model import Choice, Labels
from ..postprocessing import clean
from .ensemble import merge_organs
from .export import Logits, export_labels
from .tempered import tempered


def calibrated(predictions: Mapping[str, Logits], choice: Choice, own: Mapping[str, Labels]) -> dict[str, Logits]:
    """Predictions of one case with the temperature of the model that made them.

    Args:
        predictions: By member.
        choice: Holds the temperatures; members without one keep what they say.
        own: Member to its labels.
    """
    temperatures = {name: choice.calibration[name].temperature for name in predictions if name in choice.calibration}
    return {name: tempered(logits, temperatures.get(name, 1.0), own[name]) for name, logits in predictions.items()}


def segment_chosen(predictions: Mapping[str, Logits], choice: Choice, own: Mapping[str, Labels], labels: Labels) -> tuple[np.ndarray, int]:
    """The label map of a case.

    The members of each organ are averaged, each organ is taken from its own average, where two claim a voxel the more confident one wins
    (all of these see calibrated probabilities), and what is known to help an organ is done to its mask.

    Args:
        predictions: What each member says, by its name.
        choice: Organ to members; organs that it lacks are background.
        own: Member to its labels.
        labels: Of the dataset.

    Returns:
        Label map, int16, in internal values of the dataset and the file's axis order, and the number of voxels that two organs claimed.
    """
    chosen = subset(labels, tuple(choice.organs))
    candidates = list(dict.fromkeys(choice.organs.values()))
    if len(candidates) > 1 or len(candidates[0]) > 1:  # the winners of a single model are the same at every temperature
        predictions = calibrated(predictions, choice, own)
    maps = {}
    for members in candidates:
        found, confidence = export_labels([predictions[name] for name in members], own[members[0]])
        maps["+".join(members)] = translate(found, own[members[0]], chosen), confidence
    merged, conflicts = merge_organs(maps, {organ: "+".join(members) for organ, members in choice.organs.items()}, chosen)
    cleaning = {organ: steps for organ, steps in choice.cleaning.items() if organ in choice.organs}
    spacing = predictions[candidates[0][0]].trace.geometry.spacing
    return clean(translate(merged, chosen, labels), labels, cleaning, spacing), conflicts
