"""Label values are integers: what is stored as other numbers is rounded where that is exact enough, and else refused."""

from __future__ import annotations

import numpy as np

LABEL_ROUNDING = 1e-5
"""Label values nearer to an integer than this are that integer: files with a scale factor do not give it exactly."""


class FractionalError(ValueError):
    """Label values that are no integers."""


def integer_labels(array: np.ndarray, source: str, *, tolerance: float = LABEL_ROUNDING) -> np.ndarray:
    """Label values as integers; those within `tolerance` of one are rounded, others a ValueError that begins with `source`."""
    if array.dtype.kind in "iub":
        return array
    rounded = np.rint(array)
    wrong = ~(np.abs(array - rounded) <= tolerance)
    if wrong.any():
        raise FractionalError(
            f"{source}: expected integer labels, found {int(wrong.sum())} voxels with other values, for example {array[wrong][0]:.6g}"
        )
    return rounded.astype(np.int32 if np.abs(rounded).max(initial=0) < 2**31 else np.int64)
