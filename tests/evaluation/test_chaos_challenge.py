"""The CHAOS score: figures of the paper, and its thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.evaluation import masks
from autoseg.evaluation.chaos_challenge import chaos_score
from autoseg.evaluation.masks import MaskPair


@pytest.mark.parametrize(
    ("dice", "ravd", "assd", "mssd", "expected"),
    [
        (0.9794, 1.12, 0.76, 17.08, pytest.approx(85.5, abs=0.05)),  # published
        (1.0, 0.0, 0.0, 0.0, 100.0),
        (0.80, 5.0, 15.0, 60.0, 0.0),
        (0.81, 9.0, 99.0, 99.0, 81 / 4),
        (0.0, 2.5, 99.0, 99.0, 50 / 4),
        (0.0, 9.0, 7.5, 99.0, 50 / 4),
        (0.0, 9.0, 99.0, 30.0, 50 / 4),
    ],
)
def test_thresholds(dice, ravd, assd, mssd, expected):
    assert chaos_score(dice=dice, ravd=ravd, assd_mm=assd, mssd_mm=mssd) == expected


def test_of_masks_by_hand():
    reference, prediction = np.zeros((2, 20, 20), bool)
    reference[5:15, 5:15], prediction[5:15, 6:16] = True, True
    # Dice 0.9, equal volumes; of 36 border voxels each the 18 on the left and on the right side are a voxel away
    pair = MaskPair.crop(reference, prediction, (1.0, 1.0))
    assert masks.chaos(pair) == pytest.approx((90 + 100 + 100 * (1 - 0.5 / 15) + 100 * (1 - 1 / 60)) / 4)
