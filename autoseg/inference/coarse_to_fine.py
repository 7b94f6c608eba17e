"""Coarse to fine with one network: it looks at the volume at half the resolution first, and at full resolution only where organs may be.

After Zhang et al., Efficient Context-Aware Network for Abdominal Multi-organ Segmentation (FLARE challenge at MICCAI 2021), who have a
network of its own for the first look. Here it is the same one, which has learnt from images of other scales (augmentation); what that loses
is measured on held-out cases (`autoseg.trainers.cheaper_validation`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from ..schema import Configuration, Labels
from .candidate_region_mask import dilated
from .low_memory import LowMemoryPredictor
from .network_input import patch_3d
from .predictor import Predictor
from .tiling import axis_starts
from .volume_predictor import Progress, Volume

log = logging.getLogger(__name__)

FACTOR = 2
"""Voxels of the volume that become one along each axis for the first look ..."""
THICK = 1.5
"""... but along axes whose voxels are larger than the smallest by more than this: there it stays one."""
LEAST_SAVED = 0.5
"""A first look that needs more than this share of all fine tiles is not taken."""
MARGIN = 8
"""Voxels of the volume by which what the first look finds is grown: borders of organs are coarse there."""
DOUBT = 1.1
"""Logit by which background may exceed an organ and it still counts as found: a probability of a quarter."""
SLICES = 16
"""Of the coarse logits that are looked at at once."""


@dataclass(frozen=True)
class CoarseToFinePredictor:
    """A `VolumePredictor` of the tiles in which a first look at lower resolution found organs; outside is background."""

    predictor: Predictor | LowMemoryPredictor

    @property
    def mirror(self) -> bool:
        """Whether mirrored copies are averaged."""
        return self.predictor.mirror

    @property
    def step(self) -> float | None:
        """Distance of tiles as a share of the patch."""
        return self.predictor.step

    def logits(self, volume: Volume, *, progress: Progress | None = None) -> torch.Tensor:
        """As `Predictor.logits`."""
        return self.predictor.logits(replace(volume, region=self.region(volume)), progress=progress)

    def region(self, volume: Volume) -> np.ndarray | None:
        """Where organs may be, ``(Z, Y, X)`` bool; None for everywhere: nothing was found, or the first look would save nothing."""
        configuration, shape = self.predictor.configuration, volume.image.shape[1:]
        factors = coarse_factors(configuration)
        coarse_shape = [math.ceil(n / factor) for n, factor in zip(shape, factors, strict=True)]
        patch = patch_3d(configuration)
        if _tiles(coarse_shape, patch, 1.0) > LEAST_SAVED * _tiles(shape, patch, self.predictor.step or configuration.tiling.step):
            return None
        found = self._found(volume, factors)
        if not found.any():
            log.warning("%s: the first look found no organ; the whole volume is segmented", volume.case)
            return None
        grown = dilated(found, math.ceil(MARGIN / min(factors)))
        for axis, (factor, n) in enumerate(zip(factors, shape, strict=True)):
            grown = np.repeat(grown, factor, axis).take(np.arange(n), axis)
        return grown

    def _found(self, volume: Volume, factors: Sequence[int]) -> np.ndarray:
        """The coarse voxels that may be an organ."""
        image = torch.as_tensor(np.asarray(volume.image, np.float32))
        channels = [functional.avg_pool3d(one[None, None], tuple(factors), ceil_mode=True, count_include_pad=False)[0, 0] for one in image]
        quick = replace(self.predictor, mirror=False, step=1.0)
        logits = quick.logits(Volume(torch.stack(channels).numpy(), case=volume.case, limit=volume.limit))
        return np.concatenate([_may_be_organ(part, self.predictor.labels) for part in logits.split(SLICES, 1)])


def is_suited(configuration: Configuration) -> bool:
    """Whether a configuration may predict so: not one that is a part of a cascade of its own, or localises its organs."""
    others = (configuration.region, configuration.locator, configuration.previous_stage)
    return all(one is None for one in others)


def coarse_factors(configuration: Configuration) -> tuple[int, ...]:
    """Voxels z, y, x that become one: two along axes of about the smallest spacing; every second of slices that are seen alone."""
    spacing = configuration.spacing
    factors = tuple(FACTOR if size <= THICK * min(spacing) else 1 for size in spacing)
    if configuration.dim == 3:
        return factors
    return (FACTOR if configuration.slices == 1 else 1, *factors[-2:])


def _tiles(shape: Sequence[int], patch: Sequence[int], step: float) -> int:
    return math.prod(len(axis_starts(max(n, edge), edge, step)) for n, edge in zip(shape, patch, strict=True))


def _may_be_organ(logits: torch.Tensor, labels: Labels) -> np.ndarray:
    """Logits ``(K, Z, Y, X)`` to ``(Z, Y, X)`` bool."""
    values = logits.float()
    above = values if labels.regions else values[1:] - values[:1]
    return (above.amax(0) > -DOUBT).numpy()
