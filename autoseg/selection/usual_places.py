"""Whether a mask lies where its organ usually does, and what Dice it can have where it does not.

The held-out references say where an organ's centre lies in the image, and from the other organs. Both are needed: images of another field
of view have all organs elsewhere, but side by side as ever; and where another organ was missed the distance from all others says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..inference.organ_places import OrganPlace
from ..schema import UsualPlace

FEWEST_PLACES = 10
"""References by which a place is called unusual: of fewer the next may lie anywhere."""

MARGIN, MARGIN_ALONE, MARGIN_OF_FEW = 0.25, 0.5, 4.0
"""A centre is out of place beyond the references' range and this share of it on either side: the first, or the second where no other organ
tells whether the image shows another part of the body, and in both cases the third divided by the number of references. Of normally
distributed centres the first is about 3.5 standard deviations from the mean for 10 references, 4 for 100."""

IMAGE_TOLERANCE = 0.1
"""An axis counts where the image is at most by this share smaller or larger than all held-out images: else its field of view is another."""


def usual_place(references: Sequence[OrganPlace]) -> UsualPlace | None:
    """Where references have an organ; None where they are fewer than `FEWEST_PLACES`."""
    if len(references) < FEWEST_PLACES:
        return None
    low, high = _range([one.centre_mm for one in references])
    apart = [one.from_others_mm for one in references]
    others = _range(apart) if all(apart) else ((), ())
    return UsualPlace(low, high, *others, *_range([one.image_mm for one in references]), len(references))


def possible_dice(place: OrganPlace, usual: UsualPlace) -> float:
    """The largest Dice that a mask can be expected to have where it lies; 1 in every place that is not far from all references.

    Else that of a ball with one of the same size in the nearest usual place, whose radius is that of a ball spread like the mask along
    the way there: 0 where the two do not touch.
    """
    if len(place.centre_mm) != len(usual.low_mm):
        return 1.0
    size = np.array(place.image_mm)
    comparable = (size >= (1 - IMAGE_TOLERANCE) * np.array(usual.smallest_image_mm)) & (
        size <= (1 + IMAGE_TOLERANCE) * np.array(usual.largest_image_mm)
    )
    has_others = bool(place.from_others_mm and usual.others_low_mm)
    margin = (MARGIN if has_others else MARGIN_ALONE) + MARGIN_OF_FEW / usual.cases
    way = np.where(comparable, _beyond(place.centre_mm, usual.low_mm, usual.high_mm, margin), 0.0)
    distance = float(np.linalg.norm(way))
    if distance == 0 or (has_others and not _beyond(place.from_others_mm, usual.others_low_mm, usual.others_high_mm, margin).any()):
        return 1.0
    radius = math.sqrt((2 + len(way)) * float((way / distance) ** 2 @ np.array(place.spread_mm) ** 2))
    apart = min(1.0, distance / (2 * radius)) if radius > 0 else 1.0
    return 1 - 1.5 * apart + 0.5 * apart**3


def _beyond(point: Sequence[float], low: Sequence[float], high: Sequence[float], margin: float) -> np.ndarray:
    """How far a point lies outside a range, which is widened by a share of itself on either side, along each axis, mm."""
    first, last, found = np.array(low), np.array(high), np.array(point)
    more = (last - first) * margin
    return np.maximum(0.0, np.maximum(first - more - found, found - last - more))


def _range(points: Sequence[tuple[float, ...]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Smallest and largest coordinates."""
    table = np.array(points)
    return tuple(table.min(axis=0).tolist()), tuple(table.max(axis=0).tolist())
