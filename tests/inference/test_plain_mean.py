"""Tiles that are joined by the plain mean of their probabilities (Roth et al. 2018), and those that do not overlap."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from factories import LIVER_KIDNEYS, patch_configuration, random_image, regions, voxelwise

from autoseg.inference.low_memory import LowMemoryPredictor
from autoseg.inference.patch_aggregator import PatchAggregator
from autoseg.inference.plain_mean import probabilities_of
from autoseg.inference.predictor import Predictor
from autoseg.inference.volume_predictor import Volume
from autoseg.schema import Tiling

CPU = torch.device("cpu")
OVERLAPPING = regions(a=(1, 2), b=(2,), c=(3,), d=(4,))


def plain(*networks, step: float = 0.5, labels=LIVER_KIDNEYS, patch=(8, 8, 8), **options) -> Predictor:
    configuration = patch_configuration(patch, tiling=Tiling(step, "plain"))
    return Predictor(networks, configuration, labels, device=CPU, **options)


@pytest.mark.parametrize("labels", [LIVER_KIDNEYS, OVERLAPPING], ids=["organs", "regions"])
def test_probabilities_are_averaged_all_voxels_of_a_tile_alike(labels):
    """Two tiles that overlap by half along the last axis; equation 5 by hand."""
    probable = probabilities_of(labels)
    tiles = torch.randn(2, 4, 2, 2, 4, generator=torch.Generator().manual_seed(0)) * 5
    result = torch.empty(4, 2, 2, 6, dtype=torch.float16)
    aggregator = PatchAggregator(result, (2, 2, 4), 2, device=CPU, source="c", probable=probable)
    for start, tile in zip((0, 2), probable.of(tiles), strict=True):
        aggregator.add((0, 0, start), tile)
    aggregator.finish()
    first, second = probable.of(tiles)
    expected = torch.cat([first[..., :2], (first[..., 2:] + second[..., :2]) / 2, second[..., 2:]], -1)
    torch.testing.assert_close(probable.of(result[None])[0], expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 8, 24), (9, 13, 20), (5, 8, 30)])
def test_with_a_step_of_one_every_voxel_is_predicted_once(shape):
    seen = []
    one = plain(lambda x: seen.append(x) or voxelwise(x), step=1.0, batch=1, mirror=False)
    volume = random_image(*shape)
    logits = one.logits(Volume(volume))
    assert len(seen) == np.prod([-(-size // 8) for size in shape])
    expected = voxelwise(torch.from_numpy(volume)[None])[0].softmax(0)
    torch.testing.assert_close(logits.float().softmax(0), expected, rtol=5e-3, atol=2e-3)
    together = torch.cat([tile.flatten() for tile in seen])
    assert (together != 0).sum() == volume.size, "and no voxel twice"


def test_folds_and_little_memory_average_probabilities_too():
    networks = [voxelwise, lambda x: voxelwise(2 * x).flip(1)]
    volume = Volume(random_image(8, 10, 20))
    together = plain(*networks).logits(volume)
    image = torch.from_numpy(volume.image)[None]
    expected = torch.stack([network(image)[0].softmax(0) for network in networks]).mean(0)
    torch.testing.assert_close(together.float().softmax(0), expected, rtol=1e-2, atol=3e-3)
    loaders = [lambda network=network: _Module(network) for network in networks]
    configuration = patch_configuration((8, 8, 8), tiling=Tiling(0.5, "plain"))
    apart = LowMemoryPredictor(loaders, configuration, LIVER_KIDNEYS, CPU).logits(volume)
    torch.testing.assert_close(apart.float().softmax(0), expected, rtol=1e-2, atol=3e-3)


class _Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_outside_of_a_region_is_background_as_ever():
    region = np.zeros((8, 8, 24), bool)
    region[2:4, 2:4, 10:12] = True
    one = plain(voxelwise, step=1.0)
    logits = one.logits(Volume(random_image(8, 8, 24), region=region))
    assert (one.computed, one.skipped) == (1, 2)
    assert (logits.float().softmax(0)[0, ~region] == 1).all()


def test_steps_come_from_the_model_unless_asked_for():
    configuration = patch_configuration((8, 8, 8), tiling=Tiling(1.0, "plain"))
    own = Predictor([voxelwise], configuration, LIVER_KIDNEYS, device=CPU)
    asked = dataclasses.replace(own, step=0.63)
    assert (own.step, asked.step, asked.tiling) == (1.0, 0.63, Tiling(0.63, "plain"))
    for wrong in ({"step": 0.0}, {"step": 1.1}, {"mean": "median"}):
        with pytest.raises(ValueError, match="step|mean of tiles"):
            Tiling(**wrong)
