"""How sure the chosen models are of the label map that they give, voxel by voxel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .ensemble import Ensemble
from .logits import Logits


def label_confidence(ensemble: Ensemble, label_map: np.ndarray, logits: Mapping[str, Logits]) -> np.ndarray:
    """The calibrated probability that each voxel's label is right.

    That of the organ in the label map by its own models; in the background, what the probabilities of all organs leave. Where organs
    overlap (regions), the smallest of any region's: of being there where the label map has it, of not being there elsewhere. The label map
    is that after post-processing: where a component was removed is background that the models hardly believe in.

    Args:
        label_map: ``(Z, Y, X)`` or ``(Y, X)``, of `Ensemble.segment`.
        logits: Of each member, that it was made from.

    Returns:
        Float32, 0 to 1, in the shape of the label map.
    """
    labels = ensemble.labels
    volume = label_map.reshape((-1, *label_map.shape[-2:]))
    confidence = np.ones(volume.shape, np.float32) if labels.regions else np.zeros(volume.shape, np.float32)
    total = np.zeros(volume.shape, np.float32)
    for index, start, share in ensemble.probabilities(logits):
        part = slice(start, start + len(share))
        here = np.isin(volume[part], labels.internal_members[index])
        if labels.regions:
            np.minimum(confidence[part], np.where(here, share, 1 - share), out=confidence[part])
        else:
            confidence[part][here] = share[here]
            total[part] += share
    if not labels.regions:
        confidence = np.where(volume == 0, np.clip(1 - total, 0, 1), confidence)
    return confidence.reshape(label_map.shape)
