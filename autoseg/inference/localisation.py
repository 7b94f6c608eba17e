"""Organ localisation: a small network finds the organs' box on a coarse grid of the whole volume; the other one segments that box only.

Thaler et al., FLARE challenge at MICCAI 2021.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from ..networks import build_network
from ..preprocessing.cropping import bounding_box, slices_of
from ..preprocessing.resampling import resample_image
from ..runtime.hardware import autocast, memory_format, release_memory
from ..schema import Box, Configuration, Locator
from .low_memory import LowMemoryPredictor
from .patch_aggregator import background_logits, empty_logits
from .predictor import Predictor
from .volume_predictor import Progress, Volume

log = logging.getLogger(__name__)

COARSE_MM = 6.0
"""Voxel of the coarse grid, where the largest case then has neither too few nor too many."""
MAX_VOXELS = (256, 80, 80)
"""Voxels of the coarse grid along the longest, second and third axis of the largest case, at the most."""
MIN_VOXELS = 32
"""Voxels along the longest axis of the largest case, at the least."""
MULTIPLE = 16
"""Of the voxels along each axis of the coarse grid."""
MUCH_LARGER = 2.0
"""A case of more coarse voxels than this multiple of the largest case that was planned for gets a coarser grid."""


def plan_locator(spacing: Sequence[float], shapes: Sequence[Sequence[int]]) -> Locator:
    """The coarse grid for a dataset: 6 mm, coarser or finer so that the largest case has 32 to 256 voxels along its longest axis.

    No axis gets finer than the image's own spacing in mm. The Gaussian has half a coarse voxel, the paper's 3 mm at 6.
    """
    extents = [max(shape[axis] for shape in shapes) * size for axis, size in enumerate(spacing)]
    edge = max([COARSE_MM, *(extent / most for extent, most in zip(sorted(extents, reverse=True), MAX_VOXELS, strict=True))])
    edge = min(edge, max(extents) / MIN_VOXELS)
    coarse = tuple(max(edge, size) for size in spacing)
    shape = tuple(math.ceil(max(1, round(extent / size)) / MULTIPLE) * MULTIPLE for extent, size in zip(extents, coarse, strict=True))
    return Locator(coarse, shape, edge / 2)


def coarse_shape(locator: Locator, shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """Voxels of a case on the coarse grid; a case that is much larger than those that were planned for gets a coarser one."""
    exact = [n * size / coarse for n, size, coarse in zip(shape, spacing, locator.spacing, strict=True)]
    larger = math.prod(exact) / (MUCH_LARGER * math.prod(locator.shape))
    return tuple(max(1, round(n / max(1.0, larger) ** (1 / 3))) for n in exact)


def to_coarse(image: np.ndarray, locator: Locator, spacing: Sequence[float]) -> np.ndarray:
    """A preprocessed image ``(C, Z, Y, X)`` float32 with its spacing in mm, smoothed and brought to the coarse grid channel by channel."""
    shape = coarse_shape(locator, image.shape[1:], spacing)
    sigma = [locator.sigma / size if n < m else 0.0 for n, m, size in zip(shape, image.shape[1:], spacing, strict=True)]
    result = np.empty((len(image), *shape), np.float32)
    for channel, source in zip(result, image, strict=True):
        smooth = ndimage.gaussian_filter(source, sigma) if any(sigma) else source
        channel[...] = resample_image(smooth[None], shape, spacing=spacing, new_spacing=locator.spacing, order=1)[0]
    return result


def build_locator(configuration: Configuration, channels: int) -> nn.Module:
    """The locator's network with random weights: from the image's channels to logits of background and organ."""
    locator = locator_of(configuration)
    return build_network(locator.network, dim=configuration.dim, in_channels=channels, out_channels=2, **locator.network_options)


def locator_of(configuration: Configuration) -> Locator:
    """The locator of a configuration; raises ValueError where it has none."""
    if configuration.locator is None:
        raise ValueError(f"{configuration.name}: expected a configuration with a locator, got none")
    return configuration.locator


@dataclass(frozen=True)
class Localiser:
    """Finds the box in which the organs are.

    Attributes:
        networks: One a fold: gives its network, on the device and in evaluation mode; may load it each time.
        configuration: With a locator.
        device: Where to compute.
    """

    networks: Sequence[Callable[[], nn.Module]]
    configuration: Configuration
    device: torch.device

    @torch.inference_mode()
    def box(self, image: np.ndarray, *, source: str = "image") -> Box | None:
        """The box around every voxel that the networks, averaged, call an organ, grown by the locator's margin and at least to the patch.

        Inside the preprocessed image ``(C, Z, Y, X)`` of a case; None where nothing was found.
        """
        locator, shape = locator_of(self.configuration), image.shape[1:]
        coarse = torch.from_numpy(to_coarse(image, locator, self.configuration.spacing))[None]
        coarse = coarse.to(self.device, memory_format=memory_format(self.configuration.dim))
        probability = torch.zeros(coarse.shape[2:])
        for load in self.networks:
            with autocast(self.device):
                probability += load()(coarse).float().softmax(1)[0, 1].cpu() / len(self.networks)
        inside = bounding_box((probability > 0.5).numpy())
        if inside is None:
            log.warning("%s: no organ was located; the whole volume is segmented", source)
            return None
        box = []
        for (low, high), n, m, patch in zip(inside, shape, probability.shape, self.configuration.patch_size, strict=True):
            start, stop = math.floor(low * n / m) - locator.margin, math.ceil(high * n / m) + locator.margin
            box.append(_at_least(max(0, start), min(n, stop), min(n, patch), n))
        return tuple(box)


def _at_least(start: int, stop: int, size: int, n: int) -> tuple[int, int]:
    """The interval, widened on both sides alike to `size` within 0..`n`."""
    lack = max(0, size - (stop - start))
    start = min(max(0, start - lack // 2), n - max(size, stop - start))
    return start, max(stop, start + size)


@dataclass(frozen=True)
class LocatedPredictor:
    """A `VolumePredictor` of the box that a localiser finds; outside is background."""

    predictor: Predictor | LowMemoryPredictor
    localiser: Localiser

    @property
    def mirror(self) -> bool:
        """Whether mirrored copies are averaged."""
        return self.predictor.mirror

    @property
    def step(self) -> float:
        """Distance of tiles as a share of the patch."""
        return self.predictor.step

    def logits(self, volume: Volume, *, progress: Progress | None = None) -> torch.Tensor:
        """As `Predictor.logits`."""
        shape = tuple(volume.image.shape[1:])
        box = self.localiser.box(np.asarray(volume.image), source=volume.case)
        release_memory(self.localiser.device)
        if box is None:
            return self.predictor.logits(volume, progress=progress)
        log.debug("%s: organs located in %s of %s", volume.case, box, shape)
        z, y, x = slices_of(box)
        previous, region = (None if array is None else array[z, y, x] for array in (volume.previous, volume.region))
        inside = self.predictor.logits(Volume(volume.image[:, z, y, x], previous, region, volume.case), progress=progress)
        if inside.shape[1:] == shape:
            return inside
        result = empty_logits((len(inside), *shape), volume.case)
        for channel, value in zip(result, background_logits(self.predictor.labels), strict=True):
            channel.fill_(float(value))
        result[:, z, y, x] = inside
        return result
