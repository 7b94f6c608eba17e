"""Networks under one head: it begins as their average, is all that is learnt, and is judged by cases that it was not fitted on."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autoseg.ensembling.fusion_trainer import CrossFitted, average_history, check_halves, halves
from autoseg.inference.volume_predictor import Volume
from autoseg.networks import NETWORKS, build_network
from autoseg.networks.feature_taps import FeatureTap
from autoseg.networks.fusion import Branch, Fusion
from autoseg.trainers.history import History

UNET = {"features": [4, 8], "strides": [[1, 1], [2, 2]], "kernel_sizes": [[3, 3]] * 2, "convs_per_stage": [1, 1], "decoder_convs": [1]}


def network(name: str = "plain_unet", *, outputs: int = 2, seed: int = 0, **options: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_network(name, dim=2, in_channels=1, out_channels=outputs, **(options or UNET)).eval()


def branch(one: torch.nn.Module, organs: tuple[int | None, ...], inputs: tuple[int, int] = (0, 1), *, background: bool = True) -> Branch:
    return Branch(FeatureTap(one, torch.rand(1, inputs[1] - inputs[0], 16, 16)), inputs, organs, background)


def image(channels: int = 1) -> torch.Tensor:
    return torch.rand(2, channels, 16, 16, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_it_begins_as_the_average_of_the_members_logits() -> None:
    """Two models of the first organ and a deeper one of both; compared by how much likelier an organ is than background."""
    unet, vnet, both = network(), network("vnet", seed=1, width=2), network("se_resunet", outputs=3, seed=2, width=8, levels=2, reduction=4)
    fusion = Fusion([branch(unet, (0,)), branch(vnet, (0,)), branch(both, (0, 1))], dim=2, organs=2).eval()
    logits = [one(image()) for one in (unet, vnet, both)]
    over = [one[:, 1:] - one[:, :1] for one in logits]
    expected = torch.cat([torch.zeros_like(over[0]), (over[0] + over[1] + over[2][:, :1]) / 3, over[2][:, 1:]], 1)
    assert torch.allclose(fusion(image()), expected, atol=1e-5)


@torch.no_grad()
def test_regions_have_no_background() -> None:
    one, other = network(outputs=2), network(outputs=1, seed=1)
    fusion = Fusion([branch(one, (0, 1), background=False), branch(other, (1,), background=False)], dim=2, organs=2).eval()
    expected = torch.cat([one(image())[:, :1], (one(image())[:, 1:] + other(image())) / 2], 1)
    assert torch.allclose(fusion(image()), expected, atol=1e-5)


@torch.no_grad()
def test_each_network_sees_its_own_channels_and_unwanted_organs_are_left_out() -> None:
    one, other = network(outputs=3), network(seed=1)
    fusion = Fusion([branch(one, (None, 0), (0, 1)), branch(other, (1,), (1, 2))], dim=2, organs=2).eval()
    first, second = one(image(2)[:, :1]), other(image(2)[:, 1:])
    expected = torch.stack([torch.zeros_like(first[:, 0]), first[:, 2] - first[:, 0], second[:, 1] - second[:, 0]], 1)
    assert torch.allclose(fusion(image(2)), expected, atol=1e-5)


def test_only_the_head_is_learnt_and_saved_and_the_networks_stay_in_evaluation() -> None:
    one = network("se_resunet", width=4, levels=2, reduction=2, norm="batch")
    fusion = Fusion([branch(one, (0,))], dim=2, organs=1).train()
    assert set(fusion.state_dict()) == {"head.weight", "head.bias"}
    before, start = copy.deepcopy(one.state_dict()), fusion.head.weight.detach().clone()
    fusion(image()).square().mean().backward()
    torch.optim.SGD(fusion.parameters(), lr=0.1).step()
    assert not torch.equal(fusion.head.weight, start)
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items()), "running statistics too"


def layers_of(one: torch.nn.Module, size: int = 16) -> list[str]:
    names = {module: name for name, module in one.named_modules()}
    return [names[layer] for layer in FeatureTap(one, torch.rand(1, 1, size, size)).last_layers(torch.rand(1, 1, size, size))]


def test_the_last_layers_follow_the_last_upsampling() -> None:
    def trained(found: list[str]) -> list[str]:
        return sorted({name.rsplit(".", 1)[0] for name in found})

    unet = network(features=[4, 8], strides=[[1, 1], [2, 2]], kernel_sizes=[[3, 3]] * 2, convs_per_stage=[2, 2], decoder_convs=[2])
    assert all(".up" not in name and name.startswith("decoder") for name in layers_of(unet)), layers_of(unet)
    assert len(trained(layers_of(unet))) >= 1
    for name in ("se_resunet", "vgg16_unet", "deeplabv3", "roth_unet"):
        one = build_network(name, dim=2, in_channels=1, out_channels=2, **NETWORKS[name].small).eval()
        found = [dict(one.named_modules())[layer] for layer in layers_of(one, 64)]
        larger = [layer for layer in found if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size != (1, 1)]
        assert len(larger) <= 2 and (larger or name == "deeplabv3"), name  # whose pyramid is joined by a 1x1 convolution
        assert all(max(layer.dilation) == 1 for layer in larger)
        assert sum(p.numel() for layer in found for p in layer.parameters()) < 0.5 * sum(p.numel() for p in one.parameters()), name


def test_the_last_layers_are_trained_on_and_saved_and_nothing_else_changes() -> None:
    one = network("se_resunet", width=4, levels=2, reduction=2, norm="batch")
    part = branch(one, (0,))
    last = part.tap.last_layers(torch.rand(1, 1, 16, 16))
    fusion = Fusion([part], dim=2, organs=1, last=[last]).train()
    before, plain = copy.deepcopy(one.state_dict()), Fusion([part], dim=2, organs=1)
    assert torch.equal(fusion(image()), plain(image())), "begins as before"
    for _ in range(2):
        fusion(image()).square().mean().backward()
        torch.optim.SGD(fusion.parameters(), lr=0.1).step()
    names = {module: name for name, module in one.named_modules()}
    trained = tuple(f"{names[layer]}." for layer in last)
    changed = {name for name, value in one.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(trained) and "running" not in name and "num_batches" not in name for name in changed)
    assert {"head.weight", "head.bias"} < set(fusion.state_dict())
    again = Fusion([branch(network("se_resunet", width=4, levels=2, reduction=2, norm="batch"), (0,))], dim=2, organs=1)
    with pytest.raises(RuntimeError, match="last"):
        again.load_state_dict(fusion.state_dict())


def test_organs_without_a_network_and_mixed_outputs_are_refused() -> None:
    one, region = branch(network(), (0,)), branch(network(outputs=1), (0,), background=False)
    for branches, organs, message in (([one], 2, "a network for each of 2 organs"), ([one, region], 1, "regions only, or of none")):
        with pytest.raises(ValueError, match=message):
            Fusion(branches, dim=2, organs=organs)


def test_halves_keep_patients_together_and_are_alike() -> None:
    groups = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "c1": "c", "d1": "d"}
    one, other = halves(groups, np.random.default_rng(0))
    assert sorted(one + other) == sorted(groups)
    assert {"a1", "a2", "a3"} in (set(one), set(other))
    assert len(one) == len(other) == 3
    assert halves(groups, np.random.default_rng(0)) == (one, other)
    check_halves({"0": ["a1", "b1"], "1": ["c1", "d1"]}, groups)
    with pytest.raises(ValueError, match="two patients or more in each fold, got fold 1: a1, a2. Name other folds"):
        check_halves({"0": ["a1", "b1"], "1": ["a1", "a2"]}, groups)


def test_each_case_is_predicted_by_the_head_that_has_not_seen_it() -> None:
    predictor = CrossFitted({name: SimpleNamespace(logits=lambda volume, name=name, **_: name) for name in "ab"})
    assert [predictor.logits(Volume(np.zeros(1), case=name)) for name in "ab"] == ["a", "b"]


@pytest.mark.usefixtures("no_pictures")
def test_learning_curves_are_averaged(tmp_path: Path) -> None:
    for number, losses in enumerate(([1.0, 0.5], [3.0, 1.5, 1.0])):
        history = History(tmp_path / f"half_{number}")
        history.table.parent.mkdir()
        for index, loss in enumerate(losses, start=1):
            history.begin(validation_interval=index)
            history.finish(train_loss=loss)
    average_history(tmp_path, [tmp_path / "half_0", tmp_path / "half_1"])
    assert History(tmp_path).rows == [{"validation_interval": 1.0, "train_loss": 2.0}, {"validation_interval": 2.0, "train_loss": 1.0}]
