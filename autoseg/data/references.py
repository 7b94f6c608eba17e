"""The reference label map of a case, by which predictions are judged: the one that the dataset was planned with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..runtime.provenance import content_id, same_content
from ..schema import Case, Image, Labels
from .label_placement import read_case_label
from .labels import to_internal_values


def reference_image(case: Case, labels: Labels) -> Image:
    """Reads a case's reference, internal values ``(Z, Y, X)`` or ``(Y, X)``, with its geometry.

    Raises:
        ValueError: It has none to read, or one that was changed since the dataset was planned.
    """
    if case.label is None:
        raise ValueError(f"case {case.name}: expected a label map, by which predictions are judged, found none")
    if case.digests and not same_content(case.digests[-1], content_id(case.label)):
        raise ValueError(
            f"case {case.name}: {case.label}: expected the label map that was planned with, found another content; "
            "after a change of the data run autoseg_plan_and_preprocess again"
        )
    image = read_case_label(case, labels)
    return replace(image, array=to_internal_values(image.array, labels, source=str(case.label)))


def reference_of(case: Case, labels: Labels) -> tuple[np.ndarray, tuple[float, ...]]:
    """The array of `reference_image` and its spacing in mm."""
    image = reference_image(case, labels)
    return image.array, image.geometry.spacing
