"""The label maps of a training patch, on one grid: they are augmented together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from .augmentation.augment import Augmentation, apply

INTENSITIES = ("blur", "offset", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma", "relabel")
"""Parts of an `Augmentation` that change values and not places; and so does its noise."""


@dataclass(frozen=True)
class LabelMaps:
    """What is known of the voxels of a patch. All label maps are int16, and `OUTSIDE` where the image has no voxels.

    Attributes:
        labels: ``(*size)`` internal values.
        previous: ``(*size)`` organs found by the previous stage of a cascade, internal values; None without one.
        region: ``(*size)`` above 0 in the candidate region; None where there is none.
        slice_masks: ``(slices, *size)`` `OUTSIDE` where each slice of a 2.5D patch has no data, if its channels are zero there; else None.
        weight: ``(*size)`` float, how much each voxel counts, 0 to 1; None means fully. It is no label map, and augmented as an image.
    """

    labels: Tensor
    previous: Tensor | None = None
    region: Tensor | None = None
    slice_masks: Tensor | None = None
    weight: Tensor | None = None

    def augmented(self, augmentation: Augmentation, image: Tensor, *, masked: Sequence[bool]) -> tuple[Tensor, LabelMaps]:
        """Applies an augmentation to an image and these maps of it.

        Args:
            image: ``(C, *size)``.
            masked: Of each channel, whether it is zero outside a mask: its slice's in 2.5D, the labels' otherwise.
        """
        weight = None if self.weight is None else _moved(augmentation, self.weight)
        maps = {item.name: one for item in fields(self) if item.name != "weight" and (one := getattr(self, item.name)) is not None}
        stacked = torch.cat([one if name == "slice_masks" else one[None] for name, one in maps.items()])
        slices = 0 if self.slice_masks is None else len(self.slice_masks)
        masks = tuple(range(len(stacked) - slices, len(stacked))) * (len(image) // slices if slices else 0)
        image, stacked = apply(augmentation, image, stacked, masked=masked, masks=masks)
        single = dict(zip([name for name in maps if name != "slice_masks"], stacked, strict=False))
        return image, LabelMaps(**single, slice_masks=stacked[-slices:] if slices else None, weight=weight)


def _moved(augmentation: Augmentation, weight: Tensor) -> Tensor:
    """Weights ``(*size)`` after what an augmentation does to the places of voxels; 0 where there was no image to look at."""
    off: dict[str, Any] = dict.fromkeys(INTENSITIES, ())
    spatial = replace(augmentation, noise_std=0.0, **off)
    return apply(spatial, weight[None], torch.zeros(weight.shape, dtype=torch.int16, device=weight.device))[0][0].clamp_(0, 1)
