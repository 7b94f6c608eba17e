"""Drawn augmentations: how often, how strong, the same for the same generator, and right for the labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from autoseg.schema import Labels, Mirroring
from autoseg.schema.conventions import OUTSIDE
from autoseg.schema.training_options import AugmentationOptions
from autoseg.trainers.augmentation.augment import Augmentation, apply, draw, is_planar, load_size, size_for

LABELS = Labels(("kidney_left", "liver", "kidney_right"), ((10,), (20,), (30,)))
MIRRORING = Mirroring((0, 1, 2), lateral_axis=2, pairs=((0, 2),))
OPTIONS = AugmentationOptions()
PATCH = (8, 12, 10)


def draws(n: int, patch: tuple[int, ...] = PATCH, options: AugmentationOptions = OPTIONS, channels: int = 2) -> Iterator[Augmentation]:
    for number in range(n):
        rng = np.random.default_rng([1, number])
        yield draw(rng, options, patch_size=patch, channels=channels, mirroring=MIRRORING, labels=LABELS)


def a_patch(size: tuple[int, ...], channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(OUTSIDE, 4, size, generator=generator).to(torch.int16)
    return torch.randn((channels, *size), generator=generator), labels


def test_probabilities_and_ranges_are_the_reference_s():
    many = list(draws(3000))
    share = {field.name: np.mean([bool(getattr(a, field.name)) for a in many]) for field in dataclasses.fields(Augmentation)}
    assert share["matrix"] == pytest.approx(1 - 0.8 * 0.8, abs=0.03)
    shares = {
        "noise_std": 0.1,
        "blur": 0.2,
        "brightness": 0.15,
        "contrast": 0.15,
        "low_resolution": 0.25,
        "inverted_gamma": 0.1,
        "gamma": 0.3,
    }
    assert {name: share[name] for name in shares} == pytest.approx(shares, abs=0.02)
    assert np.mean([0 in a.flips for a in many]) == pytest.approx(0.5, abs=0.03)
    gammas = np.array([g for a in many for g in a.gamma])
    assert 0.7 <= gammas.min() <= gammas.max() <= 1.5
    assert np.mean(gammas < 1) == pytest.approx(0.5, abs=0.05)
    assert np.mean([s is None for a in many for s in a.blur]) == pytest.approx(0.5, abs=0.05)
    scales = np.array([np.linalg.norm(a.matrix[0]) for a in many if a.matrix])
    assert 0.7 - 1e-6 <= scales.min() <= scales.max() <= 1.4 + 1e-6


def test_nothing_else_than_the_generator_decides():
    image, labels = a_patch((14, 16, 14))
    for first, second in zip(draws(20), draws(20), strict=True):
        assert first == second
        one, two = apply(first, image, labels), apply(second, image, labels)
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


@pytest.mark.parametrize(("patch", "size"), [(PATCH, (14, 16, 14)), (PATCH, (5, 9, 6)), ((4, 20, 16), (4, 26, 26)), ((16, 12), (20, 20))])
def test_any_loaded_size_gives_a_sound_patch_and_is_left_unchanged(patch, size):
    image, labels = a_patch(size)
    before = image.clone(), labels.clone()
    mirroring = Mirroring(tuple(range(len(patch))))
    often = dataclasses.replace(OPTIONS, rotation_probability=0.7, noise_probability=0.5, blur_probability=0.5, gamma_probability=0.7)
    for number in range(30):
        rng = np.random.default_rng(number)
        augmentation = draw(rng, often, patch_size=patch, channels=2, mirroring=mirroring, labels=LABELS)
        new_image, new_labels = apply(augmentation, image, labels, masked=(True, False))
        assert (new_image.shape, new_image.dtype) == ((2, *patch), torch.float32)
        assert new_image.isfinite().all()
        assert (new_labels.shape, new_labels.dtype) == (patch, torch.int16)
        assert set(new_labels.unique().tolist()) <= {0, 1, 2, 3}
        assert torch.equal(image, before[0])
        assert torch.equal(labels, before[1])


def test_without_anything_drawn_the_patch_is_the_centre():
    image, labels = a_patch((14, 16, 14))
    new_image, new_labels = apply(Augmentation(PATCH), image, labels)
    assert torch.equal(new_image, image[:, 3:11, 2:14, 2:12])
    assert torch.equal(new_labels, labels[3:11, 2:14, 2:12].clamp(min=0))


def test_lateral_flip_exchanges_left_and_right_and_other_flips_do_not():
    image, labels = a_patch(PATCH)
    flipped_with_pairs = {a.flips: a for a in draws(60) if a.flips}
    assert all(bool(a.relabel) == (2 in flips) for flips, a in flipped_with_pairs.items())
    relabel = flipped_with_pairs[(2,)].relabel
    new_image, new_labels = apply(Augmentation(PATCH, flips=(2,), relabel=relabel), image, labels)
    assert torch.equal(new_image, image.flip(3))
    exchange = torch.tensor([0, 3, 2, 1], dtype=torch.int16)
    assert torch.equal(new_labels, exchange[labels.clamp(min=0).long()].flip(2))
    assert torch.equal(apply(Augmentation(PATCH, flips=(0, 1)), image, labels)[1], labels.clamp(min=0).flip((0, 1)))


def test_lateral_flip_of_regions_of_several_values_is_refused():
    regions = Labels(("left", "right"), ((1, 2), (3,)), regions=True)
    always = dataclasses.replace(OPTIONS, mirror_probability=1.0)
    with pytest.raises(ValueError, match="'left' and 'right'"):
        draw(np.random.default_rng(0), always, patch_size=PATCH, channels=1, mirroring=Mirroring((2,), 2, ((0, 1),)), labels=regions)


def test_masked_channels_are_zero_outside_even_after_noise():
    image, labels = a_patch(PATCH)
    new_image, _ = apply(Augmentation(PATCH, noise_std=1.0), image, labels, masked=(True, False))
    outside = labels == OUTSIDE
    assert (new_image[0][outside] == 0).all()
    assert (new_image[1][outside] != 0).all()
    assert (new_image[0][~outside] != 0).all()


def test_a_second_label_map_moves_along():
    image, labels = a_patch((14, 16, 14))
    for augmentation in draws(30):
        _, alone = apply(augmentation, image, labels)
        _, both = apply(augmentation, image, torch.stack([labels, labels]), masked=(True, True))
        assert torch.equal(both[0], alone)
        assert torch.equal(both[1], alone)


def test_exact_size_never_looks_outside():
    options = dataclasses.replace(OPTIONS, rotation_probability=1.0, scale_probability=1.0, noise_probability=0.0)
    for patch in (PATCH, (4, 20, 16), (16, 12)):
        mirroring = Mirroring(tuple(range(len(patch))))
        for number in range(10):
            rng = np.random.default_rng(number)
            augmentation = draw(rng, options, patch_size=patch, channels=1, mirroring=mirroring, labels=LABELS)
            size = size_for(augmentation)
            _, labels = apply(augmentation, torch.zeros((1, *size)), torch.ones(size, dtype=torch.int16))
            assert (labels == 1).all()
    assert size_for(Augmentation(PATCH)) == PATCH


@pytest.mark.parametrize(
    ("patch", "size"),
    [
        ((40, 56, 40), (73, 80, 64)),
        ((128, 128, 128), (205, 205, 205)),
        ((20, 320, 256), (20, 376, 376)),
        ((56, 40), (65, 65)),
        ((192, 96), (247, 112)),
    ],
)
def test_load_size_is_the_reference_s(patch, size):
    assert load_size(patch, OPTIONS) == size


def test_flat_patches_are_treated_slice_by_slice():
    assert [is_planar(patch, OPTIONS) for patch in ((20, 320, 256), (80, 192, 160), (320, 20))] == [True, False, False]
    image, labels = a_patch((4, 26, 26))
    options = dataclasses.replace(OPTIONS, rotation_probability=1.0, low_resolution_probability=1.0, low_resolution_channel_probability=1.0)
    augmentation = next(draws(1, (4, 20, 16), options))
    assert augmentation.planar
    assert len(augmentation.matrix) == 2
    augmentation = dataclasses.replace(augmentation, noise_std=0.0, contrast=(), gamma=(), inverted_gamma=(), blur=(), flips=(), relabel=())
    changed = image.clone()
    changed[:, 1] += 5
    difference = (apply(augmentation, changed, labels)[0] - apply(augmentation, image, labels)[0]).abs().amax((0, 2, 3))
    assert difference[1] > 1
    assert (difference[[0, 2, 3]] == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blur_probability": 1.5}, "blur_probability.*0..1.*1.5"),
        ({"gamma_range": (2.0, 1.0)}, "gamma_range"),
        ({"scale_range": (0.0, 1.0)}, "scale_range"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        AugmentationOptions(**options)
