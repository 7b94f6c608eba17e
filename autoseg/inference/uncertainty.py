"""Uncertainty of a prediction: entropy and disagreement, voxel by voxel and along each organ.

Entropy (of calibrated probabilities) is high where the models together do not know; disagreement is the part of it that comes from the
models contradicting each other: the mutual information between the label and the choice of the network (Houlsby et al., arXiv:1112.5745;
for networks trained apart Lakshminarayanan et al., NeurIPS 2017).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy import ndimage

from ..data.labels import organ_mask
from ..schema import Labels
from .export import probabilities
from .logits import Logits
from .organ_measures import OrganMeasures
from .organ_statistics import OrganStatistics

LEVELS = 255
"""The maps have so many levels above 0, which compresses them to a fraction."""


@dataclass(frozen=True, eq=False)
class CandidatePrediction:
    """The prediction of one candidate, and that of each of its networks alone.

    Attributes:
        labels: Of its models.
        organs: That it segments in the result.
        members: Calibrated predictions, whose probabilities are averaged.
        networks: The same of every network: of each member, fold by fold.
    """

    labels: Labels
    organs: tuple[str, ...]
    members: tuple[Logits, ...]
    networks: tuple[Logits, ...]

    @property
    def channels(self) -> list[int]:
        """Channels of the organs among the probabilities."""
        first = 0 if self.labels.regions else 1
        return [self.labels.names.index(organ) + first for organ in self.organs]


@dataclass(frozen=True)
class OrganUncertainty:
    """Volume and uncertainty of one organ of one case.

    Attributes:
        volume_ml: Of its mask (of a 2D image as if it were 1 mm thick).
        expected_dice: Dice expected from the probabilities; NaN where no voxel came near being this organ.
        entropy: Mean along the organ: in its mask and one voxel around; NaN where it is empty.
        disagreement: The same of the disagreement.
        statistics: By which its Dice is estimated; None in what version 0.1.0 predicted.
        measures: Its size and intensities in the label map as it was written; None in what earlier versions predicted.
    """

    case: str
    organ: str
    volume_ml: float
    expected_dice: float
    entropy: float = math.nan
    disagreement: float = math.nan
    statistics: OrganStatistics | None = None
    measures: OrganMeasures | None = None


def uncertainty_maps(candidates: Sequence[CandidatePrediction]) -> tuple[np.ndarray, np.ndarray]:
    """Entropy and disagreement of a case on the grid of its file.

    Entropy: of the probabilities of all organs and of none of them, divided by the largest possible, the logarithm of their number. Organs
    that different candidates segment are taken together, with what they leave for background. Of regions, which may overlap, the largest
    entropy of any, in bits.

    Disagreement: the mutual information in bits between "the organ is here" and the choice of the network; the largest of any organ.

    In memory are three volumes besides the slabs: it goes slab by slab, one candidate after the other.

    Returns:
        Two arrays ``(Z, Y, X)`` or ``(Y, X)`` float32 in the file's axis order, 0 (sure, agreed) to 1, in steps of 1/255.
    """
    geometry = candidates[0].members[0].trace.geometry
    shape = geometry.shape if geometry.dim == 3 else (1, *geometry.shape)
    total, information, disagreement = (np.zeros(shape, np.float32) for _ in range(3))
    regions = candidates[0].labels.regions
    for candidate in candidates:
        for start, mean, networks in _slabs(candidate):
            part = slice(start, start + mean.shape[1])
            if networks:
                mutual = _bits(_mean(networks)) - _mean([_bits(one) for one in networks])
                np.maximum(disagreement[part], mutual.max(axis=0), out=disagreement[part])
            if regions:
                np.maximum(information[part], _bits(mean).max(axis=0), out=information[part])
            else:
                total[part] += mean.sum(axis=0)
                information[part] -= _p_log_p(mean).sum(axis=0)
    entropy = information if regions else _entropy(total, information, sum(len(candidate.organs) for candidate in candidates))
    maps = [np.round(np.clip(one, 0, 1) * LEVELS) / np.float32(LEVELS) for one in (entropy, disagreement)]
    return (maps[0], maps[1]) if geometry.dim == 3 else (maps[0][0], maps[1][0])


def along_organ(label_map: np.ndarray, labels: Labels, organ: str, maps: Sequence[np.ndarray]) -> tuple[int, list[float]]:
    """Voxels of an organ, and the means of maps over its mask and one voxel around (faces, edges and corners), NaN where it is empty."""
    mask = organ_mask(label_map, labels, labels.names.index(organ))
    count = int(np.count_nonzero(mask))
    if not count:
        return 0, [math.nan] * len(maps)
    sides = ndimage.find_objects(mask.astype(np.uint8))[0]
    box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in sides)
    near = ndimage.binary_dilation(mask[box], np.ones((3,) * mask.ndim, bool))
    return count, [float(one[box][near].mean(dtype=np.float64)) for one in maps]


def _slabs(candidate: CandidatePrediction) -> Iterator[tuple[int, np.ndarray, list[np.ndarray]]]:
    """First slice of each slab, the organs' mean probabilities ``(organs, slab, Y, X)``, and those of every network of several."""
    channels = candidate.channels
    mean = probabilities(candidate.members, candidate.labels)
    several = candidate.networks if len(candidate.networks) > 1 else ()  # a single one cannot disagree
    networks = [probabilities([network], candidate.labels) for network in several]
    for (start, slab), *others in zip(mean, *networks, strict=True):
        yield start, slab[channels], [other[channels] for _, other in others]


def _entropy(total: np.ndarray, information: np.ndarray, organs: int) -> np.ndarray:
    """Entropy 0..1 from the sums over organs of p and of ``-p log2 p``; where the organs' probabilities exceed 1 they are normalised."""
    rest = np.clip(1 - total, 0, 1)
    scale = np.maximum(total, 1)
    # H(p/Z) = (sum(-p log p) + log Z sum(p)) / Z
    entropy = (information - _p_log_p(rest) + np.log2(scale) * (total + rest)) / scale
    return entropy / np.float32(math.log2(organs + 1))


def _bits(share: np.ndarray) -> np.ndarray:
    """Entropy in bits of "yes with probability p"."""
    return -_p_log_p(share) - _p_log_p(1 - share)


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return reduce(np.add, arrays) / len(arrays)


def _p_log_p(share: np.ndarray) -> np.ndarray:
    """``p log2 p``, 0 at 0."""
    return share * np.log2(np.maximum(share, np.finfo(np.float32).tiny))
