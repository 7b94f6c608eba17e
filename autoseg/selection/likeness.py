"""Whether new images look like the training images: their estimated Dice beside that of the cross-validation's held-out cases.

Both are estimated by the same regression, each held-out case by the other patients', so that for images of the same kind they differ by
chance only. How large chance may be, two tests say whose error rates hold whatever the distribution is:

- of one image: the share of the held-out cases, with the image among them, that look as bad (a conformal p-value; Vovk et al.,
  Algorithmic Learning in a Random World, 2005). A case looks as bad as its worst organ, by its rank among all estimates of that organ.
- of several images: a permutation test of the difference of the mean estimates of each organ, corrected for the number of organs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its `stats`, which takes half a second to load, when it is used first

from ..evaluation.counts import nan_mean
from ..evaluation.statistics import holm
from .quality_estimation import EstimatedDice

CASE_LEVEL = 0.05
"""So many of a hundred images like the training images are said to be unlike them, each looked at alone."""

SET_LEVEL = 0.01
"""So many of a hundred predictions of several images like the training images are said to be unlike them."""

PERMUTATIONS, DRAWS = 10_000, 1000
"""Of the test of several images, and how many of them are drawn at once."""

SEED = 17

LISTED = 10
"""Cases that are named in the text; the table has all."""


@dataclass(frozen=True)
class OrganLikeness:
    """Mean estimated Dice of one organ in new images, and in the held-out cases of the cross-validation.

    Attributes:
        p_value: That images like the training images have a mean as low by chance, corrected for the number of organs; NaN of one image.
    """

    organ: str
    estimated: float
    held_out: float
    p_value: float


@dataclass(frozen=True)
class Likeness:
    """How new images compare to the cross-validation.

    Attributes:
        organs: Of those with estimates in both.
        p_values: Image to the share of held-out cases that look as bad; images without an estimate are missing.
        held_out: Number of held-out cases.
    """

    organs: tuple[OrganLikeness, ...]
    p_values: dict[str, float]
    held_out: int

    @property
    def unlike(self) -> tuple[str, ...]:
        """Images that look worse than all but `CASE_LEVEL` of the held-out cases, the most unlike first."""
        low = {case: value for case, value in self.p_values.items() if value <= CASE_LEVEL}
        return tuple(sorted(low, key=lambda case: (low[case], case)))

    @property
    def unlike_organs(self) -> tuple[str, ...]:
        """Organs whose mean estimate is clearly lower than in the cross-validation."""
        return tuple(one.organ for one in self.organs if one.p_value <= SET_LEVEL)


def likeness(estimated: Mapping[str, Mapping[str, float]], held_out: Mapping[str, Sequence[EstimatedDice]]) -> Likeness:
    """Compares new images with held-out cases.

    Args:
        estimated: Image to organ to estimated Dice; NaN where nothing hints at an organ that may be absent.
        held_out: Organ to the estimates of the cross-validation.
    """
    organs = [organ for organ, points in held_out.items() if points and any(organ in found for found in estimated.values())]
    known = {organ: {one.case: one.estimated for one in held_out[organ]} for organ in organs}
    cases = sorted({case for found in known.values() for case in found})
    old = np.array([[known[organ].get(case, math.nan) for organ in organs] for case in cases]).reshape(len(cases), len(organs))
    new = np.array([[found.get(organ, math.nan) for organ in organs] for found in estimated.values()]).reshape(len(estimated), len(organs))
    alone = {case: _share_as_bad(row, old) for case, row in zip(estimated, new, strict=True)}
    together = holm(_means_are_lower(new, old)) if len(new) > 1 else np.full(len(organs), math.nan)
    found = zip(organs, new.T, together.tolist(), strict=True)
    listed = (OrganLikeness(organ, nan_mean(column), nan_mean([one.true for one in held_out[organ]]), p) for organ, column, p in found)
    return Likeness(tuple(listed), {case: value for case, value in alone.items() if not math.isnan(value)}, len(cases))


def _share_as_bad(image: np.ndarray, held_out: np.ndarray) -> float:
    """The conformal p-value of an image's estimates ``(organs,)`` among those of held-out cases ``(cases, organs)``; NaN without any."""
    columns = ~np.isnan(image)
    if not columns.any():
        return math.nan
    pool = np.vstack([held_out[:, columns], image[columns]])
    pool = pool[~np.isnan(pool).all(axis=1)]
    ranks = np.where(
        np.isnan(pool), math.inf, scipy.stats.rankdata(pool, method="max", axis=0, nan_policy="omit") / (~np.isnan(pool)).sum(axis=0)
    )
    worst = ranks.min(axis=1)
    return float(np.mean(worst <= worst[-1]))


def _means_are_lower(new: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """P-values of one-sided permutation tests of the difference of means of each organ; NaN where one side has no estimate.

    Takes ``(images, organs)`` and ``(cases, organs)``, gives ``(organs,)``. Whole cases change sides.
    """
    table, rng = np.concatenate([new, held_out]), np.random.default_rng(SEED)
    known = (~np.isnan(table)).astype(np.float64)
    values = np.where(known > 0, table, 0.0)

    def differences(chosen: np.ndarray) -> np.ndarray:
        """Mean of the chosen ``(draws, all)`` minus that of the others, ``(draws, organs)``."""
        sums, counts = chosen @ values, chosen @ known
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(sums / counts - (values.sum(axis=0) - sums) / (known.sum(axis=0) - counts))

    found = differences((np.arange(len(table)) < len(new)).astype(np.float64)[None])[0]
    as_low = np.ones(len(found))  # the images as they are
    for _ in range(PERMUTATIONS // DRAWS):
        order = rng.random((DRAWS, len(table))).argsort(axis=1)
        as_low += (differences((order < len(new)).astype(np.float64)) <= found + 1e-12).sum(axis=0)
    return np.where(np.isnan(found), np.nan, as_low / (PERMUTATIONS // DRAWS * DRAWS + 1))


def describe_likeness(found: Likeness) -> tuple[list[str], list[str]]:
    """What a prediction ends with: the mean estimated Dice of each organ beside the cross-validation's, and what is unlike it.

    Returns:
        Lines to inform, and lines to warn; the latter are empty where the images look like the training images.
    """
    if not found.organs:
        return [], []
    images = len(found.p_values)
    width = max(len(one.organ) for one in found.organs)
    title = f"Estimated mean Dice of {images} images" if images > 1 else "Estimated Dice of the image"
    lines = [f"{title}, without references, beside the mean of {found.held_out} cases of the cross-validation:"]
    for one in found.organs:
        clear = f"  clearly lower, p = {one.p_value:.4f}" if one.organ in found.unlike_organs else ""
        lines.append(f"  {one.organ:<{width}}  {_shown(one.estimated)}  {_shown(one.held_out)}{clear}")
    if found.held_out + 1 < 1 / CASE_LEVEL:  # no fault of the images: --quiet and a program that predicts one by one need not hear it
        few = f"Whether single images are unlike the training images, {found.held_out} held-out cases are too few to say."
        return [*lines, few], _about_all(found)
    return lines, [*_about_all(found), *_about_single(found)]


def _about_all(found: Likeness) -> list[str]:
    if not found.unlike_organs:
        return []
    organs = ", ".join(found.unlike_organs)
    chance = f"chance leads to that in {SET_LEVEL:.0%} of predictions"
    return [f"UNLIKE THE TRAINING IMAGES: the estimated Dice of {organs} is clearly lower than in the cross-validation ({chance})."]


def _about_single(found: Likeness) -> list[str]:
    if not found.unlike:
        return []
    some = f"{', '.join(found.unlike[:LISTED])}{' ...' if len(found.unlike) > LISTED else ''}"
    if len(found.p_values) == 1:
        return [f"UNLIKE THE TRAINING IMAGES: {some} looks worse than {1 - CASE_LEVEL:.0%} of them did. Check it."]
    expected = CASE_LEVEL * len(found.p_values)
    counts = f"{len(found.unlike)} of {len(found.p_values)} (of images like them about {expected:.0f})"
    return [f"Unlike the training images, worse than {1 - CASE_LEVEL:.0%} of them looked: {counts}. Check these first: {some}"]


def _shown(dice: float) -> str:
    return "     -" if math.isnan(dice) else f"{dice:.4f}"
