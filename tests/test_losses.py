"""Losses against sums written out by hand, and their gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autoseg.conventions import OUTSIDE
from autoseg.model import Labels
from autoseg.trainers.losses import LOSSES, DeepSupervision, build_loss, make_target, soft_dice_loss

ORGANS = Labels(("liver", "tumour"), ((1,), (2,)))
PARTLY = Labels(("liver", "tumour"), ((1,), (2,)), ignore=3)
REGIONS = Labels(("whole", "core"), ((1, 2), (2,)), regions=True, paint=(1, 2))
PARTLY_REGIONS = Labels(("whole", "core"), ((1, 2), (2,)), ignore=3, regions=True, paint=(1, 2))
ALL = {"organs": ORGANS, "ignore": PARTLY, "regions": REGIONS, "regions and ignore": PARTLY_REGIONS}


def random_batch(labels: Labels, *spatial: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    highest = 2 if labels.ignore is None else 3
    logits = torch.from_numpy(rng.normal(size=(2, labels.n_outputs, *spatial)).astype(np.float32))
    return logits, torch.from_numpy(rng.integers(OUTSIDE, highest + 1, (2, *spatial)).astype(np.int16))


def by_hand(logits: torch.Tensor, segmentation: torch.Tensor, labels: Labels, *, batch_dice: bool) -> tuple[float, float]:
    """Dice loss and cross entropy, voxel by voxel in plain Python."""
    z, s = logits.double().numpy(), segmentation.numpy()
    n_samples, n_channels = z.shape[:2]
    sums = np.zeros((n_samples, n_channels, 2))
    entropy, count = 0.0, 0
    for sample in range(n_samples):
        for place in np.ndindex(s.shape[1:]):
            value = max(0, int(s[(sample, *place)]))
            if value == 3:
                continue
            x = z[(sample, slice(None), *place)]
            if labels.regions:
                p = 1 / (1 + np.exp(-x))
                truth = np.array([value in member for member in labels.internal_members], float)
                entropy -= float(np.mean(truth * np.log(p) + (1 - truth) * np.log(1 - p)))
            else:
                p = np.exp(x) / np.exp(x).sum()
                truth = np.eye(n_channels)[value]
                entropy -= math.log(p[value])
            count += 1
            sums[sample, :, 0] += p * truth
            sums[sample, :, 1] += p + truth
    sums = sums if labels.regions else sums[:, 1:]
    sums = sums.sum(0, keepdims=True) if batch_dice else sums
    return 1 - float(np.mean((2 * sums[..., 0] + 1e-5) / (sums[..., 1] + 1e-5))), entropy / count


@pytest.mark.parametrize("spatial", [(4, 5), (3, 4, 2)])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("kind", ALL)
def test_every_loss_is_the_sum_written_out_by_hand(kind, batch_dice, spatial):
    labels = ALL[kind]
    logits, segmentation = random_batch(labels, *spatial)
    dice, entropy = by_hand(logits, segmentation, labels, batch_dice=batch_dice)
    for name, expected in {"dice": dice, "ce": entropy, "dice_ce": dice + entropy}.items():
        assert build_loss(name, labels, batch_dice=batch_dice)(logits, segmentation).item() == pytest.approx(expected, abs=1e-5), name


def test_known_values():
    segmentation = torch.tensor([[[0, 1], [2, 1]]], dtype=torch.int16)
    right = torch.nn.functional.one_hot(segmentation.long(), 3).movedim(-1, 1).float() * 200 - 100
    assert build_loss("dice_ce", ORGANS, batch_dice=False)(right, segmentation).item() == pytest.approx(0, abs=1e-5)
    flat = torch.zeros(1, 3, 2, 2)
    assert build_loss("ce", ORGANS, batch_dice=False)(flat, segmentation).item() == pytest.approx(math.log(3))
    # Each organ's probability is 1/3 in 4 voxels: liver 2 * 2/3 / (4/3 + 2), tumour 2 * 1/3 / (4/3 + 1).
    assert build_loss("dice", ORGANS, batch_dice=False)(flat, segmentation).item() == pytest.approx(1 - (0.4 + 2 / 7) / 2, abs=1e-5)


def test_an_organ_that_is_absent_and_not_predicted_costs_nothing():
    segmentation = torch.zeros(1, 4, 4, dtype=torch.int16)
    logits = torch.tensor([100.0, -100.0, -100.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert build_loss("dice", ORGANS, batch_dice=False)(logits, segmentation).item() == pytest.approx(0)


def test_batch_dice_lets_a_patch_without_the_organ_ride_with_the_others():
    logits, segmentation = random_batch(ORGANS, 4, 4)
    twice, same = torch.cat([logits[:1]] * 2), torch.cat([segmentation[:1]] * 2)
    one, both = (build_loss("dice", ORGANS, batch_dice=flag)(twice, same).item() for flag in (False, True))
    assert one == pytest.approx(both, abs=1e-5)
    segmentation[1] = 0
    one, both = (build_loss("dice", ORGANS, batch_dice=flag)(logits, segmentation).item() for flag in (False, True))
    assert one > both


def test_outside_is_background():
    for labels in ALL.values():
        logits, segmentation = random_batch(labels, 4, 4)
        loss = build_loss("dice_ce", labels, batch_dice=False)
        assert (segmentation == OUTSIDE).any()
        assert loss(logits, segmentation) == loss(logits, segmentation.clamp(min=0))


@pytest.mark.parametrize("labels", [PARTLY, PARTLY_REGIONS])
def test_ignored_voxels_have_neither_value_nor_gradient(labels):
    logits, segmentation = random_batch(labels, 5, 5)
    ignored = (segmentation == 3)[:, None].expand_as(logits)
    changed = torch.where(ignored, torch.randn_like(logits) * 9, logits)
    loss = build_loss("dice_ce", labels, batch_dice=False)
    assert loss(changed, segmentation).item() == pytest.approx(loss(logits, segmentation).item(), abs=1e-6)
    logits.requires_grad_()
    loss(logits, segmentation).backward()
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].all()


def test_a_patch_that_nobody_annotated_gives_a_finite_loss_and_no_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = build_loss("dice_ce", PARTLY, batch_dice=False)(logits, torch.full((1, 4, 4), 3))
    loss.backward()
    assert loss.item() == pytest.approx(0)
    assert not logits.grad.any()


@pytest.mark.parametrize("kind", ALL)
def test_gradients_are_those_of_finite_differences(kind):
    labels = ALL[kind]
    logits, segmentation = random_batch(labels, 2, 3)
    logits.requires_grad_()
    build_loss("dice_ce", labels, batch_dice=False)(logits, segmentation).backward()
    numeric = torch.zeros_like(logits, dtype=torch.float64)
    for place in np.ndindex(tuple(logits.shape)):
        for sign in (1, -1):
            moved = logits.detach().double()
            moved[place] += sign * 1e-4
            numeric[place] += sign * sum(by_hand(moved, segmentation, labels, batch_dice=False)) / 2e-4
    torch.testing.assert_close(logits.grad.double(), numeric, rtol=1e-3, atol=1e-5)


def test_half_precision_logits_are_summed_in_float32():
    logits, segmentation = random_batch(ORGANS, 16, 16)
    coarse = logits.bfloat16()
    loss = build_loss("dice_ce", ORGANS, batch_dice=False)
    assert loss(coarse, segmentation).dtype == torch.float32
    assert loss(coarse, segmentation) == loss(coarse.float(), segmentation)


def test_soft_dice_can_count_the_background():
    segmentation = torch.tensor([[[0, 0], [1, 2]]])
    flat = torch.full((1, 3, 2, 2), 1 / 3)
    dice = [2 * (2 / 3) / (4 / 3 + 2), 2 * (1 / 3) / (4 / 3 + 1), 2 * (1 / 3) / (4 / 3 + 1)]
    found = soft_dice_loss(flat, make_target(segmentation, ORGANS), batch_dice=False, skip_background=False)
    assert found.item() == pytest.approx(1 - sum(dice) / 3, abs=1e-5)


class TestDeepSupervision:
    """Weights 1, 1/2, 1/4 ..., the coarsest output left out."""

    @pytest.mark.parametrize(("n", "weights"), [(1, [1]), (2, [1]), (3, [2 / 3, 1 / 3]), (4, [4 / 7, 2 / 7, 1 / 7])])
    def test_weights_halve_and_the_coarsest_output_is_left_out(self, n, weights):
        outputs = [torch.full((1, 1, 16 >> i, 16 >> i), float(10**i)) for i in range(n)]
        found = DeepSupervision(lambda logits, _: logits.mean())(outputs, torch.zeros(1, 16, 16))
        assert found.item() == pytest.approx(sum(weight * 10**i for i, weight in enumerate(weights)))

    def test_a_single_tensor_goes_straight_to_the_loss(self):
        logits, segmentation = random_batch(ORGANS, 4, 4)
        loss = build_loss("dice_ce", ORGANS, batch_dice=False)
        assert DeepSupervision(loss)(logits, segmentation) == loss(logits, segmentation)

    def test_the_label_map_follows_each_output_by_nearest_neighbour(self):
        seen = []
        segmentation = torch.arange(8 * 12, dtype=torch.int16).view(1, 8, 12)
        outputs = [torch.zeros(1, 3, *size) for size in ((8, 12), (4, 12), (4, 6), (2, 3))]
        DeepSupervision(lambda _, target: seen.append(target) or torch.zeros(()))(outputs, segmentation)
        assert [tuple(one.shape[1:]) for one in seen] == [(8, 12), (4, 12), (4, 6)]
        assert seen[0] is segmentation
        assert torch.equal(seen[1], segmentation[:, 1::2])
        assert torch.equal(seen[2], segmentation[:, 1::2, 1::2])
        assert all(one.dtype == segmentation.dtype for one in seen)

    def test_every_output_but_the_coarsest_gets_a_gradient(self):
        outputs = [torch.randn(1, 3, size, size, requires_grad=True) for size in (8, 4, 2)]
        DeepSupervision(build_loss("dice_ce", ORGANS, batch_dice=False))(outputs, torch.randint(0, 3, (1, 8, 8))).backward()
        assert [one.grad is not None for one in outputs] == [True, True, False]


def test_unknown_losses_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="ce, dice, dice_ce.*Did you mean 'dice'"):
        build_loss("dise", ORGANS, batch_dice=False)
    assert isinstance(build_loss("autoseg.trainers.losses:DiceCrossEntropy", ORGANS, batch_dice=True), LOSSES["dice_ce"])
