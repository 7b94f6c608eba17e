"""The label maps of a patch are augmented together."""

from __future__ import annotations

import pytest
import torch

from autoseg.schema.conventions import OUTSIDE
from autoseg.trainers.augmentation.augment import Augmentation, apply
from autoseg.trainers.label_maps import LabelMaps

FLIPPED = Augmentation((4, 4), matrix=((0.8, 0.6), (-0.6, 0.8)), flips=(1,))


def random_map(seed: int, *lead: int) -> torch.Tensor:
    return torch.randint(OUTSIDE, 3, (*lead, 8, 8), generator=torch.Generator().manual_seed(seed)).to(torch.int16)


@pytest.mark.parametrize("names", [(), ("previous",), ("region",), ("slice_masks",), ("previous", "region", "slice_masks")])
def test_every_map_is_moved_as_alone_and_keeps_its_name(names):
    image, labels = torch.randn(3, 8, 8), random_map(0)
    others = {name: random_map(number, 3) if name == "slice_masks" else random_map(number) for number, name in enumerate(names, 1)}
    _, moved = LabelMaps(labels, **others).augmented(FLIPPED, image, masked=(False,) * 3)
    for name, given in {"labels": labels, **others}.items():
        assert torch.equal(getattr(moved, name), apply(FLIPPED, image, given)[1]), name
    assert all(getattr(moved, name) is None for name in {"previous", "region", "slice_masks"} - set(names))


def test_channels_are_zero_outside_their_slice_or_outside_the_labels():
    image, labels = torch.ones(2, 4, 4), torch.zeros(4, 4, dtype=torch.int16)
    masks = torch.stack([labels.clone(), labels.clone()])
    labels[0], masks[0, 1], masks[1, 2] = OUTSIDE, OUTSIDE, OUTSIDE
    for maps, rows in ((LabelMaps(labels), (0, 0)), (LabelMaps(labels, previous=labels, slice_masks=masks), (1, 2))):
        masked, _ = maps.augmented(Augmentation((4, 4)), image, masked=(True, True))
        assert [channel.sum(1).tolist().index(0) for channel in masked] == list(rows)
        assert masked.sum() == 24
