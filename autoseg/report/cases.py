"""Ranking of the held-out cases, and pictures of some of them as the chosen models segment them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..data.images import read_case_image
from ..data.labels import organ_mask
from ..data.references import reference_of
from ..evaluation.case_scores import score_case
from ..inference.postprocessing import apply_postprocessing
from ..inference.quantised_logits import has_logits
from ..schema import Case, Dataset, Labels, candidate_members
from ..selection.held_out import HeldOut, check_same_grid
from .content import CasePicture, Plane, Report
from .directions import directions_of
from .views import Cut, cuts, grey, upright, upright_spacing, window_for

MAX_WORST = 4
"""Most organs of which the worst case is shown besides."""


def pick_cases(ranked: Sequence[tuple[str, float]], n: int) -> dict[str, str]:
    """Selects `n` cases at even distances between the best and the worst; case to the reason for showing it.

    Args:
        ranked: Cases and their mean score, worst first.
        n: Number of cases; fewer where there are fewer.
    """
    total = len(ranked)
    n = min(n, total)
    if n <= 0:
        return {}
    places = [total // 2] if n == 1 else [round(step * (total - 1) / (n - 1)) for step in range(n)]
    reasons: dict[str, str] = {}
    for place in sorted(places, reverse=True):
        rank = total - place
        middle = f"Rank {rank} of {total}" if abs(2 * place - (total - 1)) > 1 else "Median"
        reasons[ranked[place][0]] = "Best" if rank == 1 else "Worst" if place == 0 else middle
    return reasons


def worst_of_organs(report: Report, values: dict[str, dict[str, float]], shown: dict[str, str]) -> dict[str, str]:
    """Selects the worst case of every organ where it is not shown yet; case to the reason for showing it."""
    organs_of: dict[str, list[str]] = {}
    for organ, of_cases in values.items():
        known = {case: value for case, value in of_cases.items() if value == value}
        if known and len(values) > 1:
            worst = max(known, key=lambda case: report.higher_is_worse_score(known[case]))
            if worst not in shown:
                organs_of.setdefault(worst, []).append(organ)
    return {case: f"Worst of {', '.join(organs)}" for case, organs in list(organs_of.items())[:MAX_WORST]}


def case_values(report: Report, organ: str) -> dict[str, float]:
    """Case to the Dice of the final result where that is compared and known, so that a case has one Dice all over the report.

    Else to the score of the organ's candidate; where it is an average that is not known case by case, the mean of its members' scores.
    Without a choice the first model that has scores of the organ stands in.
    """
    return {**_candidate_values(report, organ), **report.final.get(organ, {})}


def _candidate_values(report: Report, organ: str) -> dict[str, float]:
    chosen = report.chosen_name(organ)
    known = report.scores.get(chosen, {}).get(organ)
    if known is not None:
        return known
    members = candidate_members(chosen) if chosen else [next((name for name, organs in report.scores.items() if organ in organs), "")]
    of_members = [report.scores.get(name, {}).get(organ, {}) for name in members]
    common = set.intersection(*map(set, of_members)) if of_members else set()
    return {case: sum(one[case] for one in of_members) / len(of_members) for case in sorted(common)}


def ranked_cases(report: Report) -> list[tuple[str, float]]:
    """Cases and the mean over their organs, worst first; cases without any value are left out.

    Of a signed error the mean is of its sizes: too much of one organ and too little of another do not make a good case.
    """
    of_organs = [case_values(report, organ) for organ in report.organs]
    means = []
    for case in sorted({case for of_cases in of_organs for case in of_cases}):
        known = [of_cases[case] for of_cases in of_organs if math.isfinite(of_cases.get(case, math.nan))]
        sizes = [abs(value) for value in known] if report.better == "zero" else known
        if sizes:
            means.append((case, sum(sizes) / len(sizes)))
    return sorted(means, key=lambda pair: report.higher_is_worse_score(pair[1]), reverse=True)


def draw_case(held_out: HeldOut, dataset: Dataset, case: Case, fold: str, why: str) -> CasePicture:
    """Draws a held-out case as the chosen models segment it: organs merged and post-processed as in prediction.

    Returns:
        The picture, with the Dice of the prediction.

    Raises:
        ValueError: A file is missing or does not fit.
    """
    labels, postprocessing = held_out.plan.labels, held_out.choice.postprocessing
    bare = HeldOut(held_out.results, held_out.plan, replace(held_out.choice, postprocessing={}))
    segmentation = bare.segmentation(fold, case.name)
    if segmentation is None:
        raise ValueError(f"{case.name}: its stored predictions were removed")
    reference, spacing = reference_of(case, labels)
    organs = segmentation.organs
    check_same_grid(case, segmentation.array, reference)
    steps = {organ: step for organ, step in postprocessing.items() if organ in organs}
    prediction = apply_postprocessing(segmentation.array, labels, steps, spacing)
    scores = score_case(case.name, prediction, reference, labels, metrics=(), organs=case.annotated)
    values = {score.organ: score.dice for score in scores if score.organ in organs}
    annotated = np.where(reference == labels.internal_ignore, 0, reference) if labels.ignore is not None else reference
    planes, window = _planes(dataset, labels, case, annotated, prediction)
    return CasePicture(case.name, why, fold, planes, values, window)


def _planes(dataset: Dataset, labels: Labels, case: Case, reference: np.ndarray, prediction: np.ndarray) -> tuple[tuple[Plane, ...], str]:
    """Slices through the organs of the plan, whose label values both maps have, and the intensity window in words."""
    image = read_case_image(case)
    geometry, spacing = image.geometry, upright_spacing(image.geometry)
    volume, true, predicted = (upright(array, geometry) for array in (image.array[0], reference, prediction))
    either = np.where(true > 0, true, np.maximum(predicted, 0))
    window, window_words = window_for(volume, either > 0, dataset.channels[0], labels.names, dataset.windows)
    planes = []
    for cut in cuts(either, spacing, directions_of(geometry)):
        masks = (_masks(cut, true, labels), _masks(cut, predicted, labels))
        planes.append(Plane(cut.title, grey(cut.of(volume), window), cut.pixel, *masks, cut.edges))
    return tuple(planes), window_words


def _masks(cut: Cut, array: np.ndarray, labels: Labels) -> dict[str, np.ndarray]:
    """Organ to its mask in a slice, of the organs that are in it."""
    plane = cut.of(array)
    masks = {organ: organ_mask(plane, labels, place) for place, organ in enumerate(labels.names)}
    return {organ: mask for organ, mask in masks.items() if mask.any()}


def has_predictions(held_out: HeldOut, case: str, fold: str) -> bool:
    """Whether all predictions that a picture needs are still stored."""
    candidates = set(held_out.choice.organs.values())
    names = {name for members in candidates for name in members}
    if len(candidates) == 1 and len(names) == 1:
        run = held_out.run(next(iter(names)), fold)
        return run.label_map(case, held_out.plan.file_ending).is_file() or has_logits(run.validation, case)
    return all(has_logits(held_out.run(name, fold).validation, case) for name in names)
