"""One output with sigmoid for one organ: as in Conze's paper the network has one map, and behaves like one with an output a class."""

from __future__ import annotations

import copy

import pytest
import torch
from factories import make_configuration, make_job, make_plan
from torch.nn import functional as F

from autoseg.networks import build_network
from autoseg.networks.cascaded import normalised
from autoseg.networks.feature_taps import FeatureTap
from autoseg.networks.single_output import has_single_output
from autoseg.schema import Labels
from autoseg.schema.settings import TrainSettings
from autoseg.trainers.adversarial import AdversarialTrainer
from autoseg.trainers.losses import build_loss
from autoseg.trainers.run_options import RunFolders
from autoseg.trainers.step_cost import _random_batch
from autoseg.trainers.training_spec import training_spec

TINY = {"features": (4, 6, 8, 8, 8)}
LIVER = Labels(("liver",), ((3,),))


def build(name: str, *, in_channels: int = 1, **options):
    torch.manual_seed(0)
    return build_network(name, dim=2, in_channels=in_channels, out_channels=2, single_output=True, **options).eval()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("conze_unet", 5_137_569),
        ("vgg16_unet", 28_804_545),
        ("vgg19_unet", 37_064_129),
        ("vgg19_unetpp", 36_290_756),
        ("unet_cascade", 10_275_426),
        ("vgg16_unet_cascade", 57_609_090),
        ("vgg19_unet_cascade", 74_128_258),
    ],
)
def test_a_network_of_one_organ_has_as_many_parameters_as_with_one_output(name, parameters):
    with torch.device("meta"):
        network = build_network(name, dim=2, in_channels=1, out_channels=2, single_output=True)
    assert sum(weight.numel() for weight in network.parameters()) == parameters


def test_the_softmax_of_its_logits_is_the_sigmoid_of_its_map():
    image = torch.randn(2, 1, 16, 16)
    torch.manual_seed(0)
    alone = build_network("vgg16_unet", dim=2, in_channels=1, out_channels=1, **TINY).eval()
    logits = build("vgg16_unet", **TINY)(image)
    assert torch.equal(logits[:, :1], torch.zeros(2, 1, 16, 16)) and torch.equal(logits[:, 1:], alone(image))
    assert torch.allclose(logits.softmax(1)[:, 1:], alone(image).sigmoid(), atol=1e-6)
    assert list(build("vgg16_unet", **TINY).state_dict()) == list(alone.state_dict())


@pytest.mark.parametrize(("channels", "order"), [(1, [0, 0]), (2, [0, 1])])
def test_the_second_network_of_a_cascade_sees_the_organs_one_map_and_the_image(channels, order):
    network, image, seen = build("vgg16_unet_cascade", in_channels=channels, **TINY), torch.randn(2, channels, 16, 16), []
    network.second.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    assert network(image).shape == (2, 2, 16, 16)
    assert torch.equal(seen[0], torch.cat((normalised(network.first(image)), image[:, order]), 1))
    assert network.second.encoder.features[0].in_channels == 3


def test_all_outputs_in_deep_supervision_and_of_a_copy():
    network = copy.deepcopy(build("vgg19_unetpp", **TINY)).train()
    assert [tuple(one.shape) for one in network(torch.randn(1, 1, 16, 16))] == [(1, 2, 16, 16)] * 4
    assert has_single_output(network) and not has_single_output(network.decoder)


def test_dice_and_cross_entropy_are_those_of_the_sigmoid():
    target = (torch.rand(2, 8, 8) > 0.6).to(torch.int16)
    one = torch.randn(2, 1, 8, 8)
    logits, truth = torch.cat((torch.zeros_like(one), one), 1), target[:, None].float()
    share = one.sigmoid()
    dice = (2 * (share * truth).sum((1, 2, 3)) + 1e-5) / (share.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1e-5)
    assert torch.allclose(build_loss("dice", LIVER, batch_dice=False)(logits, target), 1 - dice.mean(), atol=1e-6)
    entropy = F.binary_cross_entropy_with_logits(one, truth)
    assert torch.allclose(build_loss("ce", LIVER, batch_dice=False)(logits, target), entropy, atol=1e-6)


def test_more_organs_than_one_need_an_output_each():
    with pytest.raises(ValueError, match="expected background and one organ, got 3 outputs"):
        build_network("conze_unet", dim=2, in_channels=1, out_channels=3, single_output=True)


def test_a_fusion_takes_its_features_with_a_row_of_zeros_for_background():
    network, image = build("vgg16_unet", **TINY), torch.randn(1, 1, 16, 16)
    tap = FeatureTap(network, image)
    assert tap.weight.shape == (2, 4) and not tap.weight[0].any()
    logits = torch.einsum("kf,bfyx->bkyx", tap.weight, tap.features(image)) + tap.bias[None, :, None, None]
    assert torch.allclose(logits, network(image), atol=1e-5)


PLAN = make_plan(make_configuration(2))


@pytest.mark.parametrize(
    ("settings", "single"),
    [
        ({"network": "vgg19_unet_cascade", "organs": ("ball",)}, True),
        ({"network": "vgg19_unet_cascade", "organs": ("ball",), "sigmoid": False}, False),
        ({"network": "vgg19_unet_cascade"}, False),
        ({"organs": ("ball",)}, False),
        ({"organs": ("ball",), "sigmoid": True}, True),
        ({"sigmoid": True}, False),
    ],
)
def test_which_models_have_one_output(settings, single):
    assert training_spec(PLAN, "2d", TrainSettings(**settings)).configuration.sigmoid is single


def test_the_discriminator_sees_the_image_and_the_organs_map(tmp_path):
    spec = training_spec(PLAN, "2d", TrainSettings(network="conze_unet", organs=("ball",), network_options={"features": [4, 6, 8]}))
    job = make_job(make_plan(spec.configuration, labels=spec.plan.labels), "2d")
    trainer = AdversarialTrainer(job, RunFolders(tmp_path, tmp_path), device=torch.device("cpu"), progress=False)
    first = next(module for module in trainer.discriminator.modules() if isinstance(module, torch.nn.Conv2d))
    assert first.in_channels == 2
    assert trainer.network(torch.randn(1, 1, 8, 8)).shape == (1, 2, 8, 8)
    assert trainer.step(_random_batch(job, torch.device("cpu")))["train_loss"].isfinite()
