"""Organ localisation: a small network finds the organs' box on a coarse grid of the whole volume; the other one segments that box only.

Thaler et al., FLARE challenge at MICCAI 2021.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from ..networks import build_network
from ..preprocessing.cropping import bounding_box, slices_of
from ..preprocessing.resampling import resample_image
from ..runtime.hardware import autocast, memory_format, release_memory
from ..schema import Box, Configuration, Locator, Plan
from .low_memory import LowMemoryPredictor
from .patch_aggregator import background_logits, empty_logits
from .predictor import Predictor
from .volume_predictor import Progress, Volume

log = logging.getLogger(__name__)

COARSE_MM = 6.0
"""Voxel of the coarse grid; a case that then has too many gets larger ones."""
MOST_COARSE = (256, 80, 80)
"""Voxels z, y, x of the coarse grid at the most."""
MOST_REGION = (160, 128, 160)
"""Voxels z, y, x of a located region at the most; larger ones are made coarser."""
MIN_VOXELS = 32
"""Voxels along the longest axis of the largest case, and along each axis of a region where the image has them, at the least."""
MULTIPLE = 16
"""Of the voxels along each axis of the coarse grid."""
MUCH_LARGER = 2.0
"""With locators of earlier versions, a case of more coarse voxels than this multiple of the largest that was planned for: it gets a coarser
grid."""


def plan_locator(spacing: Sequence[float], shapes: Sequence[Sequence[int]], *, most: Sequence[int] = MOST_COARSE) -> Locator:
    """The coarse grid for a dataset: 6 mm, finer where the largest case had fewer than 32 voxels along its longest axis.

    No axis gets finer than the image's own spacing in mm. The Gaussian has half a coarse voxel, the paper's 3 mm at 6.

    Args:
        shapes: Of the cases.
        most: Voxels along each axis at the most; a case that had more gets a coarser grid of its own (`coarse_shape`).
    """
    longest = max(n * size for shape in shapes for n, size in zip(shape, spacing, strict=True))
    edge = min(COARSE_MM, longest / MIN_VOXELS)
    coarse = tuple(max(edge, size) for size in spacing)
    locator = Locator(coarse, (MULTIPLE,) * len(coarse), edge / 2, most=tuple(most))
    largest = [max(sizes) for sizes in zip(*(coarse_shape(locator, shape, spacing) for shape in shapes), strict=True)]
    return replace(locator, shape=tuple(math.ceil(n / MULTIPLE) * MULTIPLE for n in largest))


def coarse_shape(locator: Locator, shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """Voxels of a case on the coarse grid; one with more than the locator's most along some axis gets a coarser grid along all."""
    exact = [n * size / coarse for n, size, coarse in zip(shape, spacing, locator.spacing, strict=True)]
    if locator.most:
        return fitted_shape(exact, locator.most)
    larger = math.prod(exact) / (MUCH_LARGER * math.prod(locator.shape))
    return tuple(max(1, round(n / max(1.0, larger) ** (1 / 3))) for n in exact)


def fitted_shape(sizes: Sequence[float], most: Sequence[int]) -> tuple[int, ...]:
    """Voxels along each axis, all fewer by the same factor where along some axis there are more than `most`."""
    factor = max(1.0, *(size / limit for size, limit in zip(sizes, most, strict=True)))
    return tuple(max(1, round(size / factor)) for size in sizes)


def by_anatomy(values: Sequence[int], plan: Plan) -> tuple[int, ...]:
    """Values of the axes z (to the head), y (to the back) and x, in the order of preprocessed volumes where their orientation is known."""
    if not plan.orientation:
        return tuple(values)
    return tuple(values[["SI", "AP", "LR"].index(_sides(plan.orientation[axis]))] for axis in plan.transpose)


def _sides(letter: str) -> str:
    return next(sides for sides in ("SI", "AP", "LR") if letter in sides)


def region_around(box: Box, shape: Sequence[int], margin: int, least: Sequence[int]) -> Box:
    """A box grown by `margin` on each side, then to `least` voxels, as far as the volume of this shape has them."""
    grown = []
    for (low, high), n, fewest in zip(box, shape, least, strict=True):
        grown.append(_at_least(max(0, low - margin), min(n, high + margin), min(n, fewest), n))
    return tuple(grown)


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
        fine = [
            (math.floor(low * n / m), math.ceil(high * n / m)) for (low, high), n, m in zip(inside, shape, probability.shape, strict=True)
        ]
        return region_around(tuple(fine), shape, locator.margin, least_region(self.configuration))


def least_region(configuration: Configuration) -> tuple[int, ...]:
    """Voxels along each axis that a region has at the least: a patch, or the paper's 32 where it is one input."""
    return (MIN_VOXELS,) * configuration.dim if locator_of(configuration).whole else configuration.patch_size


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
    def step(self) -> float | None:
        """Distance of tiles as a share of the patch."""
        return self.predictor.step

    def logits(self, volume: Volume, *, progress: Progress | None = None) -> torch.Tensor:
        """As `Predictor.logits`."""
        shape = tuple(volume.image.shape[1:])
        box = self.localiser.box(np.asarray(volume.image), source=volume.case)
        release_memory(self.localiser.device)
        if locator_of(self.predictor.configuration).whole:
            return self._whole(volume, box or tuple((0, n) for n in shape), progress)
        if box is None:
            return self.predictor.logits(volume, progress=progress)
        log.debug("%s: organs located in %s of %s", volume.case, box, shape)
        z, y, x = slices_of(box)
        previous, region = (None if array is None else array[z, y, x] for array in (volume.previous, volume.region))
        inside = self.predictor.logits(Volume(volume.image[:, z, y, x], previous, region, volume.case, volume.limit), progress=progress)
        if inside.shape[1:] == shape:
            return inside
        result = self._background(volume)
        result[:, z, y, x] = inside
        return result

    def _whole(self, volume: Volume, box: Box, progress: Progress | None) -> torch.Tensor:
        """Logits of the volume, with the box as one input of the network; on a coarser grid where it is larger than the patch."""
        z, y, x = slices_of(box)
        region = np.asarray(volume.image[:, z, y, x])
        shape = fitted_shape(region.shape[1:], self.predictor.configuration.patch_size)
        log.debug("%s: organs located in %s of %s, seen as %s voxels", volume.case, box, volume.image.shape[1:], shape)
        one_tile = replace(self.predictor, configuration=replace(self.predictor.configuration, patch_size=shape))
        inside = one_tile.logits(Volume(_resized(region, shape), case=volume.case, limit=volume.limit), progress=progress)
        result = self._background(volume)
        for channel, logits in zip(result, inside, strict=True):
            channel[z, y, x] = torch.from_numpy(_resized(logits.float().numpy()[None], region.shape[1:])[0])
        return result

    def _background(self, volume: Volume) -> torch.Tensor:
        """Logits ``(K, Z, Y, X)`` of background everywhere."""
        labels, limit = self.predictor.labels, volume.limit
        shape = (labels.n_outputs, *volume.image.shape[1:])
        result = empty_logits(shape, volume.case) if limit is None else limit.empty(shape, torch.float16, volume.case)
        for channel, value in zip(result, background_logits(labels), strict=True):
            channel.fill_(float(value))
            if limit is not None:
                limit.release()
        return result


def _resized(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """An array ``(C, Z, Y, X)`` float32 interpolated linearly to other numbers of voxels of the same extent."""
    cube = (1.0,) * 3  # mixes all axes alike
    return resample_image(array, shape, spacing=cube, new_spacing=cube, order=1)
