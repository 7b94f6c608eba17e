"""For the report: pictures of held-out cases as the chosen models segment them, and which cases are worth a look."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..data.images import read_image
from ..data.labels import organ_mask
from ..evaluation.overlap import score_case
from ..inference.postprocessing import apply_postprocessing
from ..inference.quantised_logits import has_logits
from ..schema import Case, Dataset, Labels
from ..selection.held_out import HeldOut, check_same_grid, reference_of
from .content import CasePicture, Plane, Report
from .views import Cut, cuts, grey, upright, upright_spacing, window_for

log = logging.getLogger(__name__)

WORST_OF = 4
"""Organs of which the worst case is shown besides, at most."""


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


def case_values(report: Report, organ: str) -> dict[str, float]:
    """Case to the score of the organ's candidate; where it is an average that is not known case by case, the mean of its members' scores.

    Without a choice the first model that has scores of the organ stands in.
    """
    chosen = report.chosen_name(organ)
    known = report.scores.get(chosen, {}).get(organ)
    if known is not None:
        return known
    members = chosen.split(" + ") if chosen else [next((name for name, organs in report.scores.items() if organ in organs), "")]
    of_members = [report.scores.get(name, {}).get(organ, {}) for name in members]
    common = set.intersection(*map(set, of_members)) if of_members else set()
    return {case: sum(one[case] for one in of_members) / len(of_members) for case in sorted(common)}


def ranked_cases(report: Report) -> list[tuple[str, float]]:
    """Cases and the mean over their organs, worst first; cases without any value are left out.

    Of a signed error the mean is of its sizes: too much of one organ and too little of another do not make a good case.
    """
    values = {organ: case_values(report, organ) for organ in report.organs}
    means = []
    for case in sorted({case for one in values.values() for case in one}):
        known = [one[case] for one in values.values() if math.isfinite(one.get(case, math.nan))]
        sizes = [abs(value) for value in known] if report.better == "zero" else known
        if sizes:
            means.append((case, sum(sizes) / len(sizes)))
    return sorted(means, key=lambda pair: report.badness(pair[1]), reverse=True)


def draw_case(held_out: HeldOut, dataset: Dataset, case: Case, fold: str, why: str) -> CasePicture:
    """A held-out case as the chosen models segment it: organs merged and post-processed as in prediction.

    Args:
        held_out: The choice, and where the validation of its models lies.
        dataset: With image and reference.
        case: To draw.
        fold: In which it was held out.
        why: It is shown.

    Returns:
        The picture, with the Dice of what is drawn.

    Raises:
        ValueError: A file is missing or does not fit.
    """
    labels, postprocessing = held_out.plan.labels, held_out.choice.postprocessing
    bare = HeldOut(held_out.results, held_out.plan, replace(held_out.choice, postprocessing={}))
    found, organs = bare.label_map(fold, case.name, bare.kept(fold, case.name))
    if found is None:
        raise ValueError(f"{case.name}: its stored predictions were removed")
    reference, spacing = reference_of(case, labels)
    check_same_grid(case, found, reference)
    found = apply_postprocessing(found, labels, {organ: one for organ, one in postprocessing.items() if organ in organs}, spacing)
    scores = score_case(case.name, found, reference, labels, metrics=(), organs=case.annotated)
    values = {score.organ: score.dice for score in scores if score.organ in organs}
    known = np.where(reference == labels.internal_ignore, 0, reference) if labels.ignore is not None else reference
    planes, window = _planes(dataset, labels, case, known, found)
    return CasePicture(case.name, why, fold, planes, values, window)


def _planes(dataset: Dataset, labels: Labels, case: Case, reference: np.ndarray, found: np.ndarray) -> tuple[tuple[Plane, ...], str]:
    """Slices through the organs of the plan, whose label values both maps have, and the window in words."""
    image = read_image(case.images)
    geometry, spacing = image.geometry, upright_spacing(image.geometry)
    standing, truth, guess = (upright(one, geometry) for one in (image.array[0], reference, found))
    either = np.where(truth > 0, truth, np.maximum(guess, 0))
    window, said = window_for(standing, either > 0, dataset.channels[0], labels.names, dataset.windows)
    planes = []
    for cut in cuts(either, spacing):
        maps = (_masks(cut, truth, labels), _masks(cut, guess, labels))
        planes.append(Plane(cut.title, grey(cut.of(standing), window), cut.pixel, *maps))
    return tuple(planes), said


def _masks(cut: Cut, array: np.ndarray, labels: Labels) -> dict[str, np.ndarray]:
    """Organ to its mask in a slice, of those that are in it."""
    plane = cut.of(array)
    masks = {organ: organ_mask(plane, labels, place) for place, organ in enumerate(labels.names)}
    return {organ: mask for organ, mask in masks.items() if mask.any()}


def is_there(held_out: HeldOut, case: str, fold: str) -> bool:
    """Whether all that a picture needs is still stored."""
    candidates = set(held_out.choice.organs.values())
    names = {name for members in candidates for name in members}
    if len(candidates) == 1 and len(names) == 1:
        path = held_out.folder(next(iter(names)), fold) / f"{case}{held_out.plan.file_ending}"
        return path.is_file() or has_logits(path.parent, case)
    return all(has_logits(held_out.folder(name, fold), case) for name in names)
