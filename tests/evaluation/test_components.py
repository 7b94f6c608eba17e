"""Components of two masks: which match, and what follows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.measure import label as skimage_label

from autoseg.evaluation import lesions
from autoseg.evaluation.components import ComponentMatches, match_components
from autoseg.evaluation.masks import MaskPair


def row(*spans, length=40):
    """A mask of one row with the half-open spans set, three voxels high."""
    mask = np.zeros((5, length), bool)
    for start, stop in spans:
        mask[1:4, start:stop] = True
    return mask


def test_found_missed_and_false():
    reference, prediction = row((0, 4), (10, 14), (20, 24)), row((1, 5), (30, 33), (20, 24))
    assert match_components(reference, prediction) == ComponentMatches((1.0, 0.75), n_prediction=3, n_reference=3)
    both = MaskPair.crop(reference, prediction, (1.0, 1.0))
    assert lesions.lesion_recall(both) == lesions.lesion_precision(both) == lesions.lesion_f1(both) == pytest.approx(2 / 3)
    assert (lesions.lesion_false_positives(both), lesions.lesion_dice(both)) == (1.0, pytest.approx(0.875))


def test_little_overlap_is_no_match():
    reference, prediction = row((0, 10)), row((9, 20))  # 1 of 20
    assert match_components(reference, prediction).dice == ()
    assert match_components(reference, prediction, threshold=0.05).dice == (pytest.approx(2 / 21),)


def test_a_component_matches_once_and_the_better_one():
    whole, parts = row((0, 20)), row((0, 5), (6, 20))
    assert match_components(whole, parts) == ComponentMatches((pytest.approx(28 / 34),), n_prediction=2, n_reference=1)
    assert match_components(parts, whole) == ComponentMatches((pytest.approx(28 / 34),), n_prediction=1, n_reference=2)


def test_corners_connect():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert match_components(mask, mask).n_reference == 2


def test_organ_that_one_side_lacks():
    missed, alarm = (MaskPair.crop(row(*true), row(*found), (1.0, 1.0)) for true, found in (([(0, 4)], []), ([], [(0, 4)])))
    assert lesions.lesion_recall(missed) == lesions.lesion_f1(missed) == 0.0
    assert math.isnan(lesions.lesion_precision(missed)) and math.isnan(lesions.lesion_recall(alarm))


def test_equals_matching_every_pair():
    rng = np.random.default_rng(0)
    for _ in range(20):
        reference, prediction = rng.random((2, 7, 8, 9)) < 0.08
        true, found = skimage_label(reference, connectivity=3), skimage_label(prediction, connectivity=3)
        candidates = []
        for one in range(1, true.max() + 1):
            for other in range(1, found.max() + 1):
                shared, either = ((true == one) & (found == other)).sum(), ((true == one) | (found == other)).sum()
                if shared / either >= 0.1:
                    candidates.append((shared / either, one, other, 2 * shared / (shared + either)))
        dice, rows, columns = [], set(), set()
        for _, one, other, value in sorted(candidates, key=lambda some: (-some[0], some[1], some[2])):
            if one not in rows and other not in columns:
                rows.add(one), columns.add(other), dice.append(value)
        assert match_components(reference, prediction) == ComponentMatches(tuple(map(pytest.approx, dice)), found.max(), true.max())
