"""Input of a network at any place of a volume: the padded image, in a cascade with the previous stage's organs as channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image

from ..preprocessing.adjacent_slices import adjacent_slice_indices
from ..schema import Configuration, Labels
from .cascade import organs_as_channels
from .volume_predictor import Volume

Tile = tuple[slice, ...]


@dataclass(frozen=True)
class NetworkInput:
    """A volume padded at least to the patch.

    Attributes:
        image: ``(C, Z, Y, X)`` float32.
        previous: In a cascade the first stage's label map ``(Z, Y, X)`` int16.
        region: Candidate region ``(Z, Y, X)`` bool, or None.
        crop: Index that takes the padding off an array ``(K, Z, Y, X)``.
        context: Voxels (z, y, x) around a tile that the network sees too; outside of the volume they are 0, as in training.
    """

    image: torch.Tensor
    previous: torch.Tensor | None
    region: torch.Tensor | None
    crop: Tile
    context: tuple[int, ...] = (0, 0, 0)

    @classmethod
    def of(cls, volume: Volume, configuration: Configuration, *, whole_tiles: bool = False) -> NetworkInput:
        """Checks and pads a volume for the networks of a configuration; with `whole_tiles` to a multiple of its patch along each axis.

        Raises:
            ValueError: The image has not four axes, or the others are of another shape, missing or not expected.
        """
        image, previous, region = torch.as_tensor(volume.image), volume.previous, volume.region
        if image.ndim != 4:
            raise ValueError(f"{volume.case}: expected an image (C, Z, Y, X), got shape {tuple(image.shape)}")
        shape = tuple(image.shape[1:])
        stage = configuration.previous_stage if configuration.sees_previous else None
        if (previous is None) != (stage is None):
            expected = f"the segmentation of {stage}" if stage else "no segmentation of a previous stage"
            raise ValueError(f"{volume.case}: {configuration.name} expects {expected}, got {'none' if previous is None else 'one'}")
        for name, array in ((f"segmentation of {stage}", previous), ("region", region)):
            if array is not None and tuple(array.shape) != shape:
                raise ValueError(f"{volume.case}: expected a {name} on the image's grid {shape}, got {tuple(array.shape)}")
        patch = patch_3d(configuration)
        if whole_tiles:
            patch = tuple(-(-size // edge) * edge for size, edge in zip(shape, patch, strict=True))
        padded, inner = pad_nd_image(image.float(), patch, return_slicer=True)
        organs = None if previous is None else pad_nd_image(torch.as_tensor(previous).to(torch.int16), patch)
        inside = None if region is None else pad_nd_image(torch.as_tensor(region, dtype=torch.bool), patch)
        around = configuration.context or (0,) * configuration.dim
        return cls(padded, organs, inside, (slice(None), *inner[1:]), (0,) * (3 - len(around)) + tuple(around))

    def touches_region(self, tile: Tile) -> bool:
        """Whether some voxel of the tile lies in the candidate region."""
        return self.region is None or bool(self.region[tile].any())

    def batch(self, tiles: Sequence[Tile], labels: Labels, device: torch.device, *, slices: int = 1) -> torch.Tensor:
        """Input of the network ``(B, C, *input)`` on `device`; label maps become channels there, a tile of them at a time.

        Several adjacent `slices` become channels in the order of `conventions`; the tiles are one slice thick then.
        """
        images = torch.stack([self._cut(tile, slices) for tile in tiles]).to(device, non_blocking=True)
        if self.previous is None:
            return images
        organs = torch.stack([self._surrounded(self.previous, tile) for tile in tiles]).to(device, non_blocking=True)
        return torch.cat([images, organs_as_channels(organs, labels)], 1)

    def _cut(self, tile: Tile, slices: int) -> torch.Tensor:
        """A tile ``(C, *input)`` of the image."""
        if slices == 1:
            return self._surrounded(self.image, tile)
        planes = self._surrounded(self.image, (slice(0, self.image.shape[1]), *tile[1:]))
        return planes[:, adjacent_slice_indices(tile[0].start, slices, self.image.shape[1])].flatten(0, 1)[:, None]

    def _surrounded(self, array: torch.Tensor, tile: Tile) -> torch.Tensor:
        """The voxels of a tile of ``(..., Z, Y, X)`` and those around it, 0 outside of the array."""
        inside: list[slice] = []
        missing: list[int] = []
        for part, more, size in zip(tile, self.context, array.shape[-3:], strict=True):
            start, stop = part.start - more, part.stop + more
            inside.append(slice(max(0, start), min(size, stop)))
            missing = [max(0, -start), max(0, stop - size), *missing]
        z, y, x = inside
        cut = array[..., z, y, x]
        return torch.nn.functional.pad(cut, missing) if any(missing) else cut


def patch_3d(configuration: Configuration) -> tuple[int, ...]:
    """The patch in voxels of a volume: that of a 2D configuration is one slice thick."""
    return (1, *configuration.patch_size) if configuration.dim == 2 else configuration.patch_size
