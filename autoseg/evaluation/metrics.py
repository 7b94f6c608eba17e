"""The metrics by name. A new one: write a function of an `Overlap` and add its line here; the contract tests pick it up."""

from __future__ import annotations

METRICS: dict[str, str] = {
    "dice": "autoseg.evaluation.overlap:dice",
    "iou": "autoseg.evaluation.overlap:iou",
    "sensitivity": "autoseg.evaluation.overlap:sensitivity",
    "precision": "autoseg.evaluation.overlap:precision",
}
"""Name -> ``module:function`` of ``(Overlap) -> float``: 1 for perfect agreement, 0 for none, NaN where the organ is absent from both."""
