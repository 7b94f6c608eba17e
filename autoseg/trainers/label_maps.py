"""The label maps of a training patch, on one grid: they are augmented together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .augmentation.augment import Augmentation, apply


@dataclass(frozen=True)
class LabelMaps:
    """What is known of the voxels of a patch. All maps are int16, and `OUTSIDE` where the image has no voxels.

    Attributes:
        labels: ``(*size)`` internal values.
        previous: ``(*size)`` organs found by the previous stage of a cascade, internal values; None without one.
        region: ``(*size)`` above 0 in the candidate region; None where there is none.
        slice_masks: ``(slices, *size)`` `OUTSIDE` where each slice of a 2.5D patch has no data, if its channels are zero there; else None.
    """

    labels: Tensor
    previous: Tensor | None = None
    region: Tensor | None = None
    slice_masks: Tensor | None = None

    def augmented(self, augmentation: Augmentation, image: Tensor, *, masked: Sequence[bool]) -> tuple[Tensor, LabelMaps]:
        """Applies an augmentation to an image and these maps of it.

        Args:
            image: ``(C, *size)``.
            masked: Of each channel, whether it is zero outside a mask: its slice's in 2.5D, the labels' otherwise.
        """
        maps = {item.name: one for item in fields(self) if (one := getattr(self, item.name)) is not None}
        stacked = torch.cat([one if name == "slice_masks" else one[None] for name, one in maps.items()])
        slices = 0 if self.slice_masks is None else len(self.slice_masks)
        masks = tuple(range(len(stacked) - slices, len(stacked))) * (len(image) // slices if slices else 0)
        image, stacked = apply(augmentation, image, stacked, masked=masked, masks=masks)
        single = dict(zip([name for name in maps if name != "slice_masks"], stacked, strict=False))
        return image, LabelMaps(**single, slice_masks=stacked[-slices:] if slices else None)
