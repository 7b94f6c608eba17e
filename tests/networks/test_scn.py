"""SpatialConfiguration-Net: operations, what each spatial network sees, the merge, noise, low memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scn_operations import convolution_operations, linear_upsampling_operations
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoseg.networks import build_network
from autoseg.networks.cubic_upsampling import upsample_cubic
from autoseg.networks.scn import SpatialConfigurationNet, entropy_in_bits, merge, salt_and_pepper

SMALL: dict[str, Any] = {"features": 6, "levels": 3, "spatial_features": 4, "spatial_levels": 2, "downsampling": 2}


def small(dim: int = 3, **options: Any) -> SpatialConfigurationNet:
    torch.manual_seed(0)
    return SpatialConfigurationNet(**{"dim": dim, "in_channels": 2, "out_channels": 4} | SMALL | options)


def image(*size: int, n: int = 2) -> Tensor:
    return torch.randn(n, 2, *size, generator=torch.Generator().manual_seed(1))


def paper() -> SpatialConfigurationNet:
    with torch.device("meta"):
        return build_network("scn", dim=3, in_channels=1, out_channels=5).eval()


@pytest.mark.parametrize(("size", "operations"), [((32, 32, 32), 8_797_627_020), ((160, 128, 160), 879_762_672_300)])
def test_operations_are_those_of_the_paper(size: tuple[int, ...], operations: int) -> None:
    """Convolutions, biases, linear upsampling in all networks, cubic upsampling of five maps (4 products and 3 sums a value)."""
    x = torch.zeros(1, 1, *size, device="meta")
    convolutions, biases = convolution_operations(paper(), x)
    linear = linear_upsampling_operations(2, levels=5, features=32) + 5 * linear_upsampling_operations(1, levels=4, features=16)
    cubic = 7 * 5 * (4 + 16 + 64) * 8**3 + 15
    cubes, shapes = x.numel() // 32**3, 15 * (4 + 5 * 3 + 1)
    assert convolutions == 8_784_439_296 * cubes
    assert convolutions + biases + cubes * (linear + cubic - shapes) + shapes == operations


def test_sizes_are_padded_for_both_resolutions() -> None:
    assert paper().multiples == (32, 32, 32)
    assert small(levels=4, spatial_levels=1).multiples == (8, 8, 8)


def test_parts_are_what_the_logits_are_made_of() -> None:
    network, x = small().eval(), image(5, 8, 6)
    with torch.no_grad():
        p, local, spatial = network.parts(x)
        assert torch.allclose(network(x).softmax(1), p, atol=1e-6)
    assert p.shape == local.shape == spatial.shape == (2, 4, 5, 8, 6)
    merged = merge(local, spatial)
    assert torch.allclose(p, merged / merged.sum(1, keepdim=True))


def test_each_spatial_network_sees_the_image_and_all_other_organs() -> None:
    network, x, seen = small().eval(), image(8, 8, 8), []
    for net in network.spatial:
        net.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    with torch.no_grad():
        _, local, spatial = network.parts(x)
        coarse, organs = F.avg_pool3d(x, 2), F.avg_pool3d(local.sigmoid(), 2)
        for label, others in enumerate([[1, 2, 3], [2, 3], [1, 3], [1, 2]]):
            assert torch.equal(seen[label], torch.cat((coarse, organs[:, others]), dim=1))
            assert torch.equal(spatial[:, label], upsample_cubic(network.spatial[label](seen[label]), 2)[:, 0])


def test_no_gradient_from_the_spatial_networks_to_the_local_one() -> None:
    network, x = small().train(), image(8, 8, 8)
    network.parts(x)[2].sum().backward()
    assert all(p.grad is None for p in network.local.parameters())
    assert all(p.grad is not None for p in network.spatial.parameters())
    network.zero_grad()
    network.parts(x)[1].sum().backward()
    assert all(p.grad is not None for p in network.local.parameters())
    assert all(p.grad is None for p in network.spatial.parameters())


def test_entropy() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 3.0, -200.0], dtype=torch.float64)
    p = logits[1:4].sigmoid()
    expected = -(p * p.log2() + (1 - p) * (1 - p).log2())
    result = entropy_in_bits(logits)
    assert result[0] == pytest.approx(1.0)
    assert torch.allclose(result[1:4], expected)
    assert 0 <= result[4] < 1e-80
    assert torch.allclose(entropy_in_bits(torch.tensor([30.0])), torch.tensor([31 * math.exp(-30) / math.log(2)]), rtol=1e-4, atol=0)


def test_merge_listens_to_the_local_network_where_the_spatial_one_is_undecided() -> None:
    local = torch.tensor([2.0, -1.0, 2.0, -2.0])
    merged = merge(local, torch.tensor([0.0, 0.0, 50.0, -50.0]))
    assert torch.allclose(merged, torch.tensor([2.0, -1.0, 50.0, -50.0]).sigmoid().clamp(min=1e-8))
    u = float(entropy_in_bits(torch.tensor(1.0)))
    between = u * torch.tensor(2.0).sigmoid() + (1 - u) * torch.tensor(1.0).sigmoid()
    assert torch.allclose(merge(torch.tensor(2.0), torch.tensor(1.0)), between)


def test_logits_stay_finite_where_every_label_is_denied() -> None:
    denied = torch.full((1, 3, 2, 2), -500.0, requires_grad=True)
    merged = merge(denied, denied)
    logits = (merged / merged.sum(1, keepdim=True)).log()
    assert torch.allclose(logits, torch.tensor(1 / 3).log())
    logits.sum().backward()
    assert torch.isfinite(denied.grad).all()


def test_noise_is_for_the_spatial_networks_alone() -> None:
    network, x = small(dropout=0.0).train(), image(8, 8, 8)
    (_, local, spatial), (_, local_again, spatial_again) = network.parts(x), network.parts(x)
    assert torch.equal(local, local_again)
    assert not torch.equal(spatial, spatial_again)


@pytest.mark.parametrize("dim", [2, 3])
def test_whole_channels_are_dropped(dim: int) -> None:
    network, seen = small(dim, local_dropout=0.25, image_dropout=0.5, salt_and_pepper=0.0).train(), []
    network.spatial[0].register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    x = 5 + image(*(8,) * dim, n=64)
    with torch.no_grad():
        network.parts(x)
    dropped = (seen[0].flatten(2) == 0).float().mean(2)
    assert set(dropped.unique().tolist()) == {0.0, 1.0}
    assert dropped[:, :2].mean() == pytest.approx(0.5, abs=0.15)
    assert dropped[:, 2:].mean() == pytest.approx(0.25, abs=0.12)


@pytest.mark.parametrize("size", [(16, 20), (12, 16, 10)])
def test_salt_and_pepper(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.full((2, 3, *size), 0.5)
    assert salt_and_pepper(x, 0.0) is x
    fine = salt_and_pepper(x, 0.4, scales=(1,))
    assert set(fine.unique().tolist()) == {0.0, 0.5, 1.0}
    assert (fine == 0).float().mean() == pytest.approx(0.2, abs=0.05)
    assert (fine == 1).float().mean() == pytest.approx(0.2, abs=0.05)
    coarse = salt_and_pepper(x, 0.3)
    assert 0 <= coarse.min() < coarse.max() <= 1
    assert not torch.equal(coarse[0, 0], coarse[0, 1])
    assert torch.equal(x, torch.full_like(x, 0.5))


@pytest.mark.parametrize(("dim", "classes"), [(2, 2), (2, 5), (3, 4)])
def test_low_memory_gives_the_same_normalised_logits(dim: int, classes: int) -> None:
    network, x = small(dim, out_channels=classes).eval(), image(*(9, 8, 5)[:dim])
    assert network.spatial[1].contracting[0].first.in_channels == classes  # the image's two channels and the other organs
    with torch.inference_mode():
        expected = network(x)
        assert torch.allclose(expected.exp().sum(1), torch.tensor(1.0), atol=1e-5)
        network.low_memory = True
        assert torch.allclose(network(x), expected, atol=1e-5)


def test_low_memory_is_for_evaluation_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = small().eval(), image(8, 8, 8)
    network.low_memory = True
    monkeypatch.setattr(network, "_low_memory", None)
    network(x).sum().backward()
    assert all(p.grad is not None for p in network.local.parameters())
    with torch.no_grad():
        network.train()(x)
        with pytest.raises(TypeError):
            network.eval()(x)


class MemoryInUse(TorchDispatchMode):
    """Follows the bytes of tensors that operations made and that still live."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                storage = one.untyped_storage()
                self.alive[StorageWeakRef(storage)] = storage.nbytes()
        self.alive = {key: size for key, size in self.alive.items() if not key.expired()}
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


def test_low_memory_holds_fewer_than_78_full_size_channels() -> None:
    network, x, peaks = paper(), torch.zeros(1, 1, 32, 64, 32, device="meta"), []
    for low in (False, True):
        network.low_memory = low
        with torch.no_grad(), MemoryInUse() as memory:
            network(x)
        peaks.append(memory.peak / (4 * x.numel()))
    assert peaks[0] > 120
    assert 64 < peaks[1] < 78
