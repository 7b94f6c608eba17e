"""Augmentation of training patches: parameters are drawn first, from a generator, then applied deterministically.

The transforms, their order, probabilities and ranges are nnU-Net's (Isensee et al., Nature Methods 2021, doi 10.1038/s41592-020-01008-z);
shear, elastic deformation, grid distortion, translation and offsets of grey values are drawn only where the options ask for them.
As they are drawn before the patch is read, `size_for` can tell how much of the image an augmentation needs: most patches are read at their
own size, and none has zeros at its corners that the image could fill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...schema import Labels, Mirroring
from ...schema.conventions import OUTSIDE
from ...schema.training_options import AugmentationOptions, Range
from . import intensity
from .deformation import ControlGrid, draw_elastic, draw_stretch
from .spatial import Matrix, SpatialMap, center_crop, rotation_matrix, shear_matrix, warp

PerChannel = tuple[float | None, ...]


@dataclass(frozen=True)
class Augmentation:
    """One drawn augmentation: numbers only. With the defaults nothing but cropping to the patch happens.

    Attributes:
        patch_size: Voxels of the result, per spatial axis.
        planar: A 3D patch that is treated slice by slice.
        matrix: Affine map from the patch to the loaded image, about the centres, or None; 2x2 where `planar`.
        stretch: Grid distortion of the axes of `matrix` (`deformation.draw_stretch`); empty for none.
        elastic: Elastic deformation of these axes, or None.
        translation: Whole voxels, an axis, from the patch's place to where it is read instead; empty for none.
        noise_std: 0 for no noise.
        noise_seed: Of the noise.
        blur: Per channel a sigma for each axis, or None. Empty, here and below: not at all.
        offset: Added to the grey values, a channel.
        brightness, contrast: Factor a channel.
        low_resolution: Relative grid size a channel.
        inverted_gamma, gamma: Exponent a channel.
        flips: Spatial axes that are reversed.
        relabel: Internal label value -> value after the flips; empty where they exchange no sides.
    """

    patch_size: tuple[int, ...]
    planar: bool = False
    matrix: Matrix | None = None
    stretch: tuple[tuple[float, ...], ...] = ()
    elastic: ControlGrid | None = None
    translation: tuple[int, ...] = ()
    noise_std: float = 0.0
    noise_seed: int = 0
    blur: tuple[tuple[float, ...] | None, ...] = ()
    offset: PerChannel = ()
    brightness: PerChannel = ()
    contrast: PerChannel = ()
    low_resolution: PerChannel = ()
    inverted_gamma: PerChannel = ()
    gamma: PerChannel = ()
    flips: tuple[int, ...] = ()
    relabel: tuple[int, ...] = ()

    @property
    def spatial_map(self) -> SpatialMap | None:
        """How the patch is read by interpolation; None where its voxels are taken as they are."""
        if self.matrix is None and not self.stretch and self.elastic is None:
            return None
        dim = len(self.patch_size) - self.planar
        identity = tuple(tuple(float(i == j) for j in range(dim)) for i in range(dim))
        return SpatialMap(self.matrix or identity, self.stretch, self.elastic)


def is_planar(patch_size: Sequence[int], options: AugmentationOptions) -> bool:
    """Whether a patch is 3D and so flat that it is rotated, scaled and coarsened slice by slice."""
    return len(patch_size) == 3 and max(patch_size) > options.planar_ratio * patch_size[0]


def _largest_angle(patch_size: Sequence[int], options: AugmentationOptions) -> float:
    """Radians, in one direction."""
    if len(patch_size) == 3:
        return math.radians(options.planar_rotation_degrees if is_planar(patch_size, options) else options.rotation_degrees)
    elongated = max(patch_size) / min(patch_size) > options.elongated_ratio
    return math.radians(options.elongated_rotation_degrees if elongated else options.planar_rotation_degrees)


def load_size(patch_size: Sequence[int], options: AugmentationOptions) -> tuple[int, ...]:
    """The reference's fixed size to load for any augmentation: room for a rotation about one axis and a scale of ``1 / load_scale``.

    Stronger draws run into zeros at the corners. `size_for` gives the exact size for one drawn augmentation instead.
    """
    planar = is_planar(patch_size, options)
    size = np.asarray(patch_size[1:] if planar else patch_size, dtype=float)
    angle = min(_largest_angle(patch_size, options), math.pi / 2)
    turns = [(angle,)] if len(size) == 2 else [tuple(angle if axis == about else 0.0 for axis in range(3)) for about in range(3)]
    reach = np.max([size, *(np.abs(size @ rotation_matrix(turn)) for turn in turns)], axis=0)
    grown = tuple(int(r / options.load_scale) for r in reach)
    return (patch_size[0], *grown) if planar else grown


def size_for(augmentation: Augmentation) -> tuple[int, ...]:
    """What has to be loaded, centred where the patch is read, so that every voxel of the result lies inside it."""
    patch_size, mapping = augmentation.patch_size, augmentation.spatial_map
    if mapping is None:
        return patch_size
    mapped = len(mapping.matrix)
    return (*patch_size[:-mapped], *mapping.source_size(patch_size[-mapped:]))


def draw(
    rng: np.random.Generator,
    options: AugmentationOptions,
    *,
    patch_size: Sequence[int],
    channels: int,
    mirroring: Mirroring,
    labels: Labels,
) -> Augmentation:
    """Draws one augmentation.

    Args:
        patch_size: Voxels of the result per spatial axis, two or three.
        mirroring: Axes that may be flipped, and the labels that change places when the lateral one is.
        labels: The organs `mirroring` refers to.
    """
    flips = tuple(axis for axis in mirroring.axes if rng.random() < options.mirror_probability)
    planar = is_planar(patch_size, options)
    deformed = tuple(patch_size[planar:])
    return Augmentation(
        patch_size=tuple(patch_size),
        planar=planar,
        matrix=_draw_matrix(rng, options, patch_size),
        stretch=draw_stretch(rng, options, deformed) if _happens(rng, options.distortion_probability) else (),
        elastic=draw_elastic(rng, options, deformed) if _happens(rng, options.elastic_probability) else None,
        translation=_draw_translation(rng, options, patch_size) if _happens(rng, options.translation_probability) else (),
        noise_std=float(rng.uniform(*options.noise_std_range)) if rng.random() < options.noise_probability else 0.0,
        noise_seed=int(rng.integers(2**63)),
        blur=_draw_blur(rng, options, channels, len(patch_size)),
        offset=_draw_offsets(rng, options, channels) if _happens(rng, options.offset_probability) else (),
        brightness=_per_channel(rng, channels, options.brightness_probability, lambda: _around_one(rng, options.brightness_range)),
        contrast=_per_channel(rng, channels, options.contrast_probability, lambda: _around_one(rng, options.contrast_range)),
        low_resolution=_draw_zooms(rng, options, channels),
        inverted_gamma=_per_channel(rng, channels, options.inverted_gamma_probability, lambda: _around_one(rng, options.gamma_range)),
        gamma=_per_channel(rng, channels, options.gamma_probability, lambda: _around_one(rng, options.gamma_range)),
        flips=flips,
        relabel=exchanged_sides(mirroring, labels) if mirroring.lateral_axis in flips else (),
    )


def _happens(rng: np.random.Generator, probability: float) -> bool:
    """Draws whether something happens; what is switched off draws nothing, so that all other draws are as without it."""
    return probability > 0 and rng.random() < probability


def _per_channel(
    rng: np.random.Generator, channels: int, probability: float, draw_value: Callable[[], float], channel_probability: float = 1.0
) -> PerChannel:
    """With `probability` a drawn value for each channel, itself with `channel_probability`; otherwise nothing."""
    if rng.random() >= probability:
        return ()
    return tuple(draw_value() if rng.random() < channel_probability else None for _ in range(channels))


def _draw_zooms(rng: np.random.Generator, options: AugmentationOptions, channels: int) -> PerChannel:
    per_channel = options.low_resolution_channel_probability
    return _per_channel(
        rng, channels, options.low_resolution_probability, lambda: float(rng.uniform(*options.low_resolution_range)), per_channel
    )


def _draw_matrix(rng: np.random.Generator, options: AugmentationOptions, patch_size: Sequence[int]) -> Matrix | None:
    """Rotation times shear times scale."""
    rotates = rng.random() < options.rotation_probability
    scales = rng.random() < options.scale_probability
    shears = _happens(rng, options.shear_probability)
    if not rotates and not scales and not shears:
        return None
    limit = _largest_angle(patch_size, options)
    in_plane = len(patch_size) == 2 or is_planar(patch_size, options)
    turns, dim = (1, 2) if in_plane else (3, 3)
    angles = [float(rng.uniform(-limit, limit)) if rotates else 0.0 for _ in range(turns)]
    scale = float(rng.uniform(*options.scale_range)) if scales else 1.0
    matrix = rotation_matrix(angles)
    if shears:
        most = math.radians(options.shear_degrees)
        matrix = matrix @ shear_matrix(rng.uniform(-most, most, turns).tolist())
    if scales and options.axis_scale_range != (1.0, 1.0):
        matrix = matrix * rng.uniform(*options.axis_scale_range, dim)
    return tuple(tuple(map(float, row)) for row in matrix * scale)


def _draw_translation(rng: np.random.Generator, options: AugmentationOptions, patch_size: Sequence[int]) -> tuple[int, ...]:
    limits = [options.translation_voxels + options.translation_share * size for size in patch_size]
    return tuple(round(rng.uniform(-limit, limit)) for limit in limits)


def _draw_offsets(rng: np.random.Generator, options: AugmentationOptions, channels: int) -> PerChannel:
    return tuple(rng.uniform(-options.offset_limit, options.offset_limit, channels).tolist())


def _draw_blur(rng: np.random.Generator, options: AugmentationOptions, channels: int, dim: int) -> tuple[tuple[float, ...] | None, ...]:
    if rng.random() >= options.blur_probability:
        return ()
    sigmas = rng.uniform(*options.blur_sigma_range, size=(channels, dim)).tolist()
    return tuple(tuple(sigma) if rng.random() < options.blur_channel_probability else None for sigma in sigmas)


def _around_one(rng: np.random.Generator, limits: Range) -> float:
    """A factor: half of the draws weaken (below 1), half strengthen, also where the limits are not symmetric."""
    low, high = limits
    if rng.random() < 0.5 and low < 1:
        return float(rng.uniform(low, min(1.0, high)))
    return float(rng.uniform(max(low, 1.0), max(high, 1.0)))


def exchanged_sides(mirroring: Mirroring, labels: Labels) -> tuple[int, ...]:
    """Internal label value -> internal value after a lateral flip.

    Raises:
        ValueError: A pair stands for different numbers of label values, so that they cannot change places.
    """
    table = list(range(len(labels.base_values) + 2))
    for left, right in mirroring.pairs:
        ours, theirs = labels.internal_members[left], labels.internal_members[right]
        if len(ours) != 1 or len(theirs) != 1:
            raise ValueError(
                f"mirroring: {labels.names[left]!r} and {labels.names[right]!r} can only change places if each is one label value, "
                f"found {len(ours)} and {len(theirs)}; leave the lateral axis out of the flips"
            )
        table[ours[0]], table[theirs[0]] = theirs[0], ours[0]
    return tuple(table)


def apply(
    augmentation: Augmentation, image: Tensor, segmentation: Tensor, *, masked: Sequence[bool] = (), masks: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """Carries out a drawn augmentation.

    Args:
        augmentation: From `draw`, or ``Augmentation(patch_size)`` to crop only (validation).
        image: ``(C, *loaded)`` float32, of any size, centred on the patch. Not changed.
        segmentation: ``(*loaded)`` int16 internal labels, or ``(S, *loaded)`` where further label maps (a cascade's previous stage) go
            through the same rotation and flips. Not changed.
        masked: `Configuration.mask_normalization`: channels that are set to 0 outside the image's non-zero mask.
        masks: For each channel, which of the label maps says where that is; empty means the first for all.

    Returns:
        Image ``(C, *patch_size)`` float32 and segmentation ``(*patch_size)`` or ``(S, *patch_size)`` int16 without `OUTSIDE`.
    """
    image, segmentation = _place(augmentation, image, segmentation)
    _change_intensities(augmentation, image)
    if augmentation.flips:
        dims = [axis - len(augmentation.patch_size) for axis in augmentation.flips]
        image, segmentation = image.flip(dims), segmentation.flip(dims)
    if augmentation.relabel:
        table = torch.tensor((OUTSIDE, *augmentation.relabel), dtype=segmentation.dtype, device=segmentation.device)
        segmentation = table.index_select(0, segmentation.reshape(-1).long() - OUTSIDE).reshape(segmentation.shape)
    if any(masked):
        maps = segmentation if segmentation.ndim == image.ndim else segmentation[None]
        for channel, is_masked, number in zip(image, masked, masks or (0,) * len(image), strict=True):
            if is_masked:
                channel.masked_fill_(maps[number] < 0, 0.0)
    return image, segmentation.clamp_(min=0)


def _place(augmentation: Augmentation, image: Tensor, segmentation: Tensor) -> tuple[Tensor, Tensor]:
    """The patch's voxels, as new tensors."""
    patch_size, shift, mapping = augmentation.patch_size, augmentation.translation, augmentation.spatial_map
    if mapping is None:
        cropped = center_crop(image, patch_size, 0.0, shift), center_crop(segmentation, patch_size, OUTSIDE, shift)
        return cropped[0].clone(memory_format=torch.contiguous_format), cropped[1].clone(memory_format=torch.contiguous_format)
    untouched = len(patch_size) - len(mapping.matrix)
    if untouched or shift:
        source = size_for(augmentation) if shift else (*patch_size[:untouched], *image.shape[image.ndim - len(mapping.matrix) :])
        image, segmentation = center_crop(image, source, 0.0, shift), center_crop(segmentation, source, OUTSIDE, shift)
    new_image, new_segmentation = warp(image[None], segmentation[None], [mapping], patch_size[untouched:])
    return new_image[0], new_segmentation[0]


def _change_intensities(augmentation: Augmentation, image: Tensor) -> None:
    """Applies the intensity transforms in place, in the reference's order."""
    if augmentation.noise_std:
        intensity.add_noise(image, augmentation.noise_std, augmentation.noise_seed)
    if augmentation.blur:
        intensity.blur(image, augmentation.blur)
    if augmentation.offset:
        intensity.add_offset(image, augmentation.offset)
    if augmentation.brightness:
        intensity.change_brightness(image, augmentation.brightness)
    if augmentation.contrast:
        intensity.change_contrast(image, augmentation.contrast)
    if augmentation.low_resolution:
        intensity.lower_resolution(image, augmentation.low_resolution, first_axis=int(augmentation.planar))
    if augmentation.inverted_gamma:
        intensity.change_gamma(image, augmentation.inverted_gamma, invert=True)
    if augmentation.gamma:
        intensity.change_gamma(image, augmentation.gamma, invert=False)
