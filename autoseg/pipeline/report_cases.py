"""For the report: pictures of held-out cases as the chosen candidates segment them, and which cases are worth a look."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..evaluation.overlap import score_case
from ..evaluation.report import CasePicture, Plane, Report
from ..images import read_image, read_label
from ..inference.export import export_labels
from ..inference.quantised import is_kept, kept
from ..inference.trained import model_labels
from ..label_subsets import subset, translate
from ..labels import organ_mask, to_internal
from ..model import Case, Dataset, Labels, Plan
from ..views import Cut, cuts, grey, upright, upright_spacing, window_for

log = logging.getLogger(__name__)

WORST_OF = 4
"""Organs of which the worst case is shown besides, at most."""


@dataclass(frozen=True)
class Source:
    """Where predictions lie.

    Attributes:
        results: Folder of the dataset's results.
        plan: Of the dataset.
        members: Organ to the models that segment it.
    """

    results: Path
    plan: Plan
    members: dict[str, tuple[str, ...]]


def pick_cases(ranked: Sequence[tuple[str, float]], n: int) -> dict[str, str]:
    """Case to why it is shown: `n` cases at even distances between the best and the worst.

    Args:
        ranked: Cases and their mean score, worst first.
        n: How many; fewer where there are fewer.
    """
    total = len(ranked)
    n = min(n, total)
    if n <= 0:
        return {}
    places = [total // 2] if n == 1 else [round(step * (total - 1) / (n - 1)) for step in range(n)]
    found: dict[str, str] = {}
    for place in sorted(places, reverse=True):
        rank = total - place
        why = (
            "Best" if rank == 1 else "Worst" if place == 0 else "Median" if abs(2 * place - (total - 1)) <= 1 else f"Rank {rank} of {total}"
        )
        found[ranked[place][0]] = why
    return found


def worst_of_organs(report: Report, values: dict[str, dict[str, float]], shown: dict[str, str]) -> dict[str, str]:
    """Case to why it is shown, of organs whose worst case is not shown yet."""
    found: dict[str, list[str]] = {}
    for organ, of_cases in values.items():
        known = {case: value for case, value in of_cases.items() if value == value}
        if known and len(values) > 1:
            worst = max(known, key=lambda case: report.badness(known[case]))
            if worst not in shown:
                found.setdefault(worst, []).append(organ)
    return {case: f"Worst of {', '.join(organs)}" for case, organs in list(found.items())[:WORST_OF]}


def draw_cases(
    source: Source, dataset: Dataset, whys: dict[str, str], folds_of: dict[str, str], *, exact: bool
) -> tuple[tuple[CasePicture, ...], list[str]]:
    """Pictures of the cases, and sentences about those that cannot be drawn.

    Args:
        source: Of the predictions.
        dataset: With images and references.
        whys: Case to why it is shown.
        folds_of: Case to the fold in which it was held out.
        exact: Also compute each organ's Dice from what is drawn.
    """
    cases = {case.name: case for case in dataset.cases}
    drawn, problems = [], []
    for name, why in whys.items():
        try:
            if name not in cases or name not in folds_of:
                raise ValueError(f"{name}: no longer in the dataset, or not held out in any fold")
            drawn.append(_draw(source, dataset, cases[name], (why, folds_of[name]), exact=exact))
        except (ValueError, OSError, RuntimeError) as error:
            problems.append(str(error))
            log.warning("%s is not drawn: %s", name, error)
    return tuple(drawn), problems


def _draw(source: Source, dataset: Dataset, case: Case, why: tuple[str, str], *, exact: bool) -> CasePicture:
    image = read_image(case.images)
    reference = to_internal(read_label(case.label).array, dataset.labels, source=str(case.label))
    predictions = predicted(source, case.name, why[1])
    values = _dice(source, dataset.labels, case, reference, predictions) if exact else {}
    labels, geometry = dataset.labels, image.geometry
    known = reference * (reference != labels.internal_ignore) if labels.ignore is not None else reference
    either = np.maximum(known, 0)
    for found, _ in predictions.values():
        either = np.where(either > 0, either, np.maximum(found, 0))
    spacing = upright_spacing(geometry)
    standing = upright(image.array[0], geometry)
    organs = upright(either, geometry)
    window, said = window_for(standing, organs > 0, dataset.channels[0], labels.names, dataset.windows)
    planes = []
    for cut in cuts(organs, spacing):
        truth = _masks(cut, upright(known, geometry), labels, labels.names)
        found = {}
        for candidate, (array, own) in predictions.items():
            mine = tuple(organ for organ, members in source.members.items() if " + ".join(members) == candidate)
            found |= _masks(cut, upright(array, geometry), own, mine)
        planes.append(Plane(cut.title, grey(cut.of(standing), window), cut.pixel, truth, found))
    return CasePicture(case.name, why[0], why[1], tuple(planes), values, said)


def _masks(cut: Cut, array: np.ndarray, labels: Labels, organs: Sequence[str]) -> dict[str, np.ndarray]:
    """Organ to its mask in a slice, of those that are in it."""
    plane = cut.of(array)
    masks = {organ: organ_mask(plane, labels, labels.names.index(organ)) for organ in organs if organ in labels.names}
    return {organ: mask for organ, mask in masks.items() if mask.any()}


def predicted(source: Source, case: str, fold: str) -> dict[str, tuple[np.ndarray, Labels]]:
    """Candidate to its label map of a held-out case, on the file's grid in internal values, and its labels; before post-processing.

    Raises:
        ValueError: A stored prediction was removed.
    """
    found = {}
    for members in dict.fromkeys(source.members.values()):
        labels = subset(source.plan.labels, model_labels(source.results / members[0], source.plan.labels).names)
        folders = [source.results / member / f"fold_{fold}" / "validation" for member in members]
        if len(members) == 1:
            path = folders[0] / f"{case}{source.plan.file_ending}"
            array = to_internal(read_label(path).array, labels, source=str(path))
        else:
            array, _ = export_labels([kept(folder, case) for folder in folders], labels)
        found[" + ".join(members)] = (array, labels)
    return found


def is_there(source: Source, case: str, fold: str) -> bool:
    """Whether all that a picture needs is still stored."""
    for members in set(source.members.values()):
        folders = [source.results / member / f"fold_{fold}" / "validation" for member in members]
        single = len(members) == 1 and (folders[0] / f"{case}{source.plan.file_ending}").is_file()
        if not single and not all(is_kept(folder, case) for folder in folders):
            return False
    return True


def _dice(
    source: Source, labels: Labels, case: Case, reference: np.ndarray, predictions: dict[str, tuple[np.ndarray, Labels]]
) -> dict[str, float]:
    """Organ to the Dice of its candidate, as the choice counts it."""
    found = {}
    for candidate, (array, own) in predictions.items():
        for score in score_case(case.name, array, translate(reference, labels, own), own, metrics=(), organs=case.annotated):
            if " + ".join(source.members.get(score.organ, ())) == candidate:
                found[score.organ] = score.dice
    return {organ: found[organ] for organ in labels.names if organ in found}
