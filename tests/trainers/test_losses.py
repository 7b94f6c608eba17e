"""Losses against sums written out by hand, and their gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autoseg.schema import Labels
from autoseg.schema.conventions import OUTSIDE
from autoseg.trainers.losses import LOSSES, build_loss, make_target, soft_dice_loss
from autoseg.trainers.losses.deep_supervision import DeepSupervision, PyramidSupervision
from autoseg.trainers.losses.entropy import class_weights
from autoseg.trainers.losses.overlap import generalised_dice_loss

ORGANS = Labels(("liver", "tumour"), ((1,), (2,)))
PARTLY = Labels(("liver", "tumour"), ((1,), (2,)), ignore=3)
REGIONS = Labels(("whole", "core"), ((1, 2), (2,)), regions=True, regions_class_order=(1, 2))
PARTLY_REGIONS = Labels(("whole", "core"), ((1, 2), (2,)), ignore=3, regions=True, regions_class_order=(1, 2))
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


def volumes_by_hand(logits: torch.Tensor, segmentation: torch.Tensor, labels: Labels) -> np.ndarray:
    """``(B, K, 3)``: overlap, sum of both, volume of the truth; ignored voxels left out."""
    z, s = logits.double().numpy(), segmentation.numpy()
    sums = np.zeros((*z.shape[:2], 3))
    for sample in range(len(z)):
        for place in np.ndindex(s.shape[1:]):
            value, x = max(0, int(s[(sample, *place)])), z[(sample, slice(None), *place)]
            if value == 3:
                continue
            p = 1 / (1 + np.exp(-x)) if labels.regions else np.exp(x) / np.exp(x).sum()
            truth = np.array([value in one for one in labels.internal_members], float) if labels.regions else np.eye(len(x))[value]
            sums[sample] += np.stack([p * truth, p + truth, truth], 1)
    return sums


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("kind", ALL)
class TestGeneralisedDice:
    """One ratio over all classes, weighted by the inverse square of their volumes (Sudre et al. 2017)."""

    def test_it_is_the_ratio_written_out_by_hand(self, kind, batch_dice):
        labels = ALL[kind]
        logits, segmentation = random_batch(labels, 4, 5)
        segmentation[0][segmentation[0] == 2] = 1  # in one sample the tumour (the core) is absent
        sums = volumes_by_hand(logits, segmentation, labels)
        losses = []
        for overlap, total, volume in (one.T for one in (sums.sum(0, keepdims=True) if batch_dice else sums)):
            weights = 1 / np.where(volume > 0, volume, volume[volume > 0].min()) ** 2
            losses.append(1 - 2 * (weights * overlap).sum() / (weights * total).sum())
        found = build_loss("generalised_dice", labels, batch_dice=batch_dice)(logits, segmentation).item()
        assert found == pytest.approx(np.mean(losses), abs=1e-5)
        entropy = build_loss("ce", labels, batch_dice=batch_dice)(logits, segmentation).item()
        both = build_loss("generalised_dice_ce", labels, batch_dice=batch_dice)(logits, segmentation).item()
        assert both == pytest.approx(found + entropy, abs=1e-6)


def test_generalised_dice_of_large_volumes_and_single_voxels_keeps_its_precision():
    segmentation = torch.zeros(1, 64, 64, 64, dtype=torch.int16)
    segmentation[0, 0, 0, 0] = 2
    wrong = torch.zeros(1, 3, 64, 64, 64)
    wrong[:, 0] = 30
    loss = build_loss("generalised_dice", ORGANS, batch_dice=True)
    # Of N voxels one is missed: it has the weight 1, background 1 / N^2, so that the ratio is (2 / N) / (1 + 2 / N).
    assert loss(wrong, segmentation).item() == pytest.approx(1, abs=1e-4)
    right = torch.nn.functional.one_hot(segmentation.long(), 3).movedim(-1, 1) * 60.0
    assert loss(right, segmentation).item() == pytest.approx(0, abs=1e-5)


def test_generalised_dice_where_nothing_is_there():
    nothing = make_target(torch.zeros(1, 2, 2, dtype=torch.int16), REGIONS)
    assert generalised_dice_loss(torch.zeros(1, 2, 2, 2), nothing, batch_dice=False).item() == 0
    assert generalised_dice_loss(torch.ones(1, 2, 2, 2), nothing, batch_dice=False).item() == pytest.approx(1, abs=1e-5)


class TestWeightedCrossEntropy:
    """Weights (1 - N_k / N) / (K - 1) (Roth et al. 2018)."""

    def test_weights_sum_to_one_and_the_largest_class_weighs_least(self):
        weights = class_weights(torch.tensor([0.7, 0.2, 0.1, 0.0]))
        torch.testing.assert_close(weights, torch.tensor([0.3, 0.8, 0.9, 1.0]) / 3)
        assert weights.sum().item() == pytest.approx(1)

    @pytest.mark.parametrize("labels", [ORGANS, PARTLY])
    def test_classes_are_counted_in_the_valid_voxels_of_the_batch(self, labels):
        logits, segmentation = random_batch(labels, 4, 5)
        valid = segmentation != 3
        classes = segmentation.clamp(min=0)[valid].long()
        weights = (1 - torch.bincount(classes, minlength=3) / len(classes)) / 2
        p = logits.double().movedim(1, -1)[valid].log_softmax(-1)
        expected = -(weights[classes] * p[torch.arange(len(classes)), classes]).sum() / len(classes)
        assert build_loss("weighted_ce", labels, batch_dice=False)(logits, segmentation).item() == pytest.approx(expected.item(), abs=1e-6)

    @pytest.mark.parametrize("labels", [REGIONS, PARTLY_REGIONS])
    def test_a_region_is_a_problem_of_two_classes(self, labels):
        logits, segmentation = random_batch(labels, 4, 5)
        valid, expected = segmentation != 3, 0.0
        for channel, members in enumerate(labels.internal_members):
            truth = sum(segmentation == member for member in members)[valid] > 0
            share = truth.double().mean()
            p = logits[:, channel].double()[valid].sigmoid()
            expected -= torch.where(truth, (1 - share) * p.log(), share * (1 - p).log()).mean().item() / 2
        assert build_loss("weighted_ce", labels, batch_dice=False)(logits, segmentation).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", ALL)
class TestEveryLoss:
    def test_absent_organs_and_sure_networks_have_finite_gradients(self, name, kind):
        labels = ALL[kind]
        for value, scale in ((0, 1.0), (1, 100.0), (0, 100.0)):
            logits = (torch.randn(2, labels.n_outputs, 4, 4) * scale).requires_grad_()
            loss = build_loss(name, labels, batch_dice=False)(logits, torch.full((2, 4, 4), value, dtype=torch.int16))
            loss.backward()
            assert loss.isfinite() and logits.grad.isfinite().all()

    def test_it_is_computed_in_float32_inside_autocast(self, name, kind):
        logits, segmentation = random_batch(ALL[kind], 4, 5)
        loss = build_loss(name, ALL[kind], batch_dice=True)
        with torch.autocast("cpu", torch.bfloat16):
            inside = loss(logits.bfloat16(), segmentation)
        assert inside.dtype == torch.float32
        assert inside == loss(logits.bfloat16().float(), segmentation)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("labels", [PARTLY, PARTLY_REGIONS])
def test_no_loss_counts_ignored_voxels(name, labels):
    logits, segmentation = random_batch(labels, 5, 5)
    logits.requires_grad_()
    build_loss(name, labels, batch_dice=False)(logits, segmentation).backward()
    ignored = (segmentation == 3)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].any()
    nobody = torch.full((2, 5, 5), 3)
    assert build_loss(name, labels, batch_dice=False)(logits, nobody).item() == pytest.approx(0, abs=1e-6)


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


class TestPyramidSupervision:
    """All output scales, each counted alike."""

    def test_it_is_the_mean_over_scales_against_pooled_labels(self):
        segmentation = torch.randint(0, 3, (2, 8, 12), dtype=torch.int16)
        outputs = [torch.randn(2, 3, *size) for size in ((8, 12), (4, 6), (2, 3))]
        loss = build_loss("ce", ORGANS, batch_dice=False)
        pooled = [segmentation, segmentation[:, 1::2, 1::2], segmentation[:, 2::4, 2::4]]
        expected = sum(loss(output, target).item() for output, target in zip(outputs, pooled, strict=True)) / 3
        assert PyramidSupervision(loss)(outputs, segmentation).item() == pytest.approx(expected, rel=1e-6)

    def test_every_output_gets_a_gradient(self):
        outputs = [torch.randn(1, 3, size, size, requires_grad=True) for size in (8, 4, 2)]
        PyramidSupervision(build_loss("ce", ORGANS, batch_dice=False))(outputs, torch.randint(0, 3, (1, 8, 8))).backward()
        assert all(one.grad.any() for one in outputs)

    def test_a_single_tensor_goes_straight_to_the_loss(self):
        logits, segmentation = random_batch(ORGANS, 4, 4)
        loss = build_loss("ce", ORGANS, batch_dice=False)
        assert PyramidSupervision(loss)(logits, segmentation) == loss(logits, segmentation)


def test_unknown_losses_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="ce, dice, dice_ce.*Did you mean 'dice'"):
        build_loss("dise", ORGANS, batch_dice=False)
    assert isinstance(build_loss("autoseg.trainers.losses:DiceCrossEntropy", ORGANS, batch_dice=True), LOSSES["dice_ce"])
