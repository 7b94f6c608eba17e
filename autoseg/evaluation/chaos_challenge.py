"""The score of the CHAOS challenge (Kavur et al., Medical Image Analysis 2021): four metrics, each turned into 0..100, and their mean."""

from __future__ import annotations

DICE_PERCENT, RAVD_PERCENT, ASSD_MM, MSSD_MM = 80.0, 5.0, 15.0, 60.0
"""Where each metric begins to count for something."""


def chaos_score(*, dice: float, ravd: float, assd_mm: float, mssd_mm: float) -> float:
    """Mean of four parts, 0..100: Dice in percent above 80, the others falling linearly from 100 at no error to 0 at the threshold.

    Dice is 0..1, the relative absolute volume difference in percent, average and maximum symmetric distance are those of the borders.
    """
    percent = 100 * dice
    parts = [percent if percent > DICE_PERCENT else 0.0]
    parts += [100 * max(0.0, 1 - error / limit) for error, limit in ((ravd, RAVD_PERCENT), (assd_mm, ASSD_MM), (mssd_mm, MSSD_MM))]
    return sum(parts) / len(parts)
