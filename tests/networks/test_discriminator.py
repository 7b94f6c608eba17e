"""The discriminator: exact size, patch-wise logits for any size of patch, and that it can tell right from wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.networks.discriminator import Discriminator


def tiny(dim: int = 2, n_maps: int = 2, patch_size=None) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(dim=dim, in_channels=1, n_maps=n_maps, features=4, patch_size=patch_size)


def inputs(*size: int, batch: int = 2, n_maps: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 1, *size, generator=generator), torch.rand(batch, n_maps, *size, generator=generator)


@pytest.mark.parametrize(("dim", "taps"), [(2, 16), (3, 64)])
def test_five_convolutions_of_kernel_four(dim: int, taps: int) -> None:
    with torch.device("meta"):
        network = Discriminator(dim=dim, in_channels=1, n_maps=1)
    convolutions = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))]
    assert [m.kernel_size for m in convolutions] == [(4,) * dim] * 5
    assert [m.out_channels for m in convolutions] == [64, 128, 256, 512, 1]
    weights = taps * (2 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512)
    assert sum(p.numel() for p in network.parameters()) == weights + 64 + 2 * (128 + 256 + 512) + 1


@pytest.mark.parametrize(
    ("size", "eighth", "at_least_four"),
    [
        ((64, 48), (8, 6), (8, 6)),
        ((65, 1), (9, 1), (9, 1)),
        ((8, 16, 16), (1, 2, 2), (4, 4, 4)),
        ((10, 64, 64), (2, 8, 8), (5, 8, 8)),
        ((3, 20, 7), (1, 3, 1), (3, 5, 4)),
        ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    ],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_axes_are_halved_three_times_or_down_to_four_where_the_patch_size_is_known(size, eighth, at_least_four, batch: int) -> None:
    for patch_size, expected in ((None, eighth), (size, at_least_four)):
        logits = tiny(len(size), patch_size=patch_size).train()(*inputs(*size, batch=batch))
        assert logits.shape == (batch, 1, *expected)
        assert torch.isfinite(logits).all()


def test_a_far_voxel_does_not_matter() -> None:
    network = tiny().eval()
    image, maps = inputs(128, 128, batch=1)
    changed = maps.clone()
    changed[..., :8, :8] += 1
    difference = (network(image, maps) - network(image, changed)).abs()[0, 0]
    assert difference[0, 0] > 0
    assert difference[-4:, -4:].max() == 0


def test_gradients_reach_the_weights_and_the_mask() -> None:
    network = tiny().train()
    image, maps = inputs(32, 32)
    maps.requires_grad_()
    network(image, maps).sigmoid().mean().backward()
    assert maps.grad.abs().amax((0, 2, 3)).min() > 0
    assert [key for key, p in network.named_parameters() if p.grad is None] == []


def test_it_learns_to_tell_masks_that_fit_from_those_that_do_not() -> None:
    generator = torch.Generator().manual_seed(3)
    mask = torch.zeros(4, 1, 32, 32)
    for sample, (y, x) in enumerate(((2, 3), (12, 4), (5, 14), (13, 12))):
        mask[sample, :, y : y + 14, x : x + 14] = 1
    image = mask + 0.2 * torch.randn(mask.shape, generator=generator)
    network, wrong = tiny(n_maps=1).train(), mask.flip(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    loss = nn.BCEWithLogitsLoss()
    for _ in range(60):
        optimiser.zero_grad()
        real, fake = network(image, mask), network(image, wrong)
        (loss(real, torch.ones_like(real)) + loss(fake, torch.zeros_like(fake))).backward()
        optimiser.step()
    assert network(image, mask).sigmoid().mean() - network(image, wrong).sigmoid().mean() > 0.5


def test_wrong_inputs_and_options_are_refused() -> None:
    image, maps = inputs(16, 16)
    for pair in ((image, maps[:, :1]), (image[..., :8], maps)):
        with pytest.raises(ValueError, match=r"image and maps .*\(B, 1, \*spatial\) and \(B, 2, \*spatial\)"):
            tiny()(*pair)
    with pytest.raises(ValueError, match="3 numbers"):
        tiny(3, patch_size=(16, 16))
    with pytest.raises(ValueError, match="dim 2 or 3"):
        tiny(4)
