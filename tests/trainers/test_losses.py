"""Losses against sums written out by hand, and their gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from factories import REGIONS, labels, regions

from autoseg.schema import Labels
from autoseg.schema.conventions import OUTSIDE
from autoseg.trainers.losses import LOSSES, build_loss, make_target, soft_dice_loss
from autoseg.trainers.losses.deep_supervision import DeepSupervision, PyramidSupervision
from autoseg.trainers.losses.entropy import class_weights
from autoseg.trainers.losses.overlap import generalised_dice_loss

ORGANS, PARTLY = labels(liver=1, tumour=2), labels(liver=1, tumour=2, ignore=3)
PARTLY_REGIONS = regions(whole=(1, 2), core=(2,), ignore=3)
ALL = {"organs": ORGANS, "ignore": PARTLY, "regions": REGIONS, "regions and ignore": PARTLY_REGIONS}


def random_batch(labels: Labels, *spatial: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    highest = 2 if labels.ignore is None else 3
    logits = torch.from_numpy(rng.normal(size=(2, labels.n_outputs, *spatial)).astype(np.float32))
    return logits, torch.from_numpy(rng.integers(OUTSIDE, highest + 1, (2, *spatial)).astype(np.int16))


def sums_by_hand(logits: torch.Tensor, segmentation: torch.Tensor, labels: Labels) -> tuple[np.ndarray, float]:
    """Voxel by voxel: ``(B, K, 3)`` overlap, sum of both and volume of the truth, and the cross entropy; ignored voxels left out."""
    z, s = logits.double().numpy(), segmentation.numpy()
    sums, entropies = np.zeros((*z.shape[:2], 3)), []
    for sample, *place in np.ndindex(s.shape):
        value, x = max(0, int(s[(sample, *place)])), z[(sample, slice(None), *place)]
        if value == 3:
            continue
        if labels.regions:
            p, truth = 1 / (1 + np.exp(-x)), np.array([value in member for member in labels.internal_members], float)
            entropies.append(-np.mean(truth * np.log(p) + (1 - truth) * np.log(1 - p)))
        else:
            p, truth = np.exp(x) / np.exp(x).sum(), np.eye(len(x))[value]
            entropies.append(-math.log(p[value]))
        sums[sample] += np.stack([p * truth, p + truth, truth], 1)
    return sums, float(np.mean(entropies))


def by_hand(logits: torch.Tensor, segmentation: torch.Tensor, labels: Labels, *, batch_dice: bool) -> tuple[float, float]:
    """Dice loss and cross entropy."""
    sums, entropy = sums_by_hand(logits, segmentation, labels)
    sums = sums if labels.regions else sums[:, 1:]
    sums = sums.sum(0, keepdims=True) if batch_dice else sums
    return 1 - float(np.mean((2 * sums[..., 0] + 1e-5) / (sums[..., 1] + 1e-5))), entropy


@pytest.mark.parametrize("spatial", [(4, 5), (3, 4, 2)])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("kind", ALL)
def test_every_loss_is_the_sum_written_out_by_hand(kind, batch_dice, spatial):
    labels = ALL[kind]
    logits, segmentation = random_batch(labels, *spatial)
    dice, entropy = by_hand(logits, segmentation, labels, batch_dice=batch_dice)
    for name, expected in {"dice": dice, "ce": entropy, "dice_ce": dice + entropy}.items():
        assert build_loss(name, labels, batch_dice=batch_dice)(logits, segmentation).item() == pytest.approx(expected, abs=1e-5), name


@pytest.mark.parametrize("kind", ALL)
def test_class_weights_are_factors_of_the_voxels_of_a_class(kind):
    """Fang & Yan 2020: 0.2 of background and 1.2 of the organ, divided by the number of voxels and not by the sum of the weights."""
    organs = ALL[kind]
    logits, segmentation = random_batch(organs, 4, 5)
    target, factors = make_target(segmentation, organs), (0.2, 1.2, 3.0)
    one = logits.double()
    if organs.regions:
        truth = target.regions.double()
        each = -(truth * torch.nn.functional.logsigmoid(one) + (1 - truth) * torch.nn.functional.logsigmoid(-one))
        weight = torch.where(truth > 0, torch.tensor(factors[1:]).view(1, 2, 1, 1).double(), 0.2)
        voxels = (weight * each).mean(1)
    else:
        log_p = one.log_softmax(1).gather(1, target.classes[:, None])[:, 0]
        voxels = -torch.tensor(factors).double()[target.classes] * log_p
    valid = torch.ones_like(voxels, dtype=torch.bool) if target.valid is None else target.valid[:, 0].bool()
    loss = build_loss("ce", organs, batch_dice=False, class_weights=factors)(logits, segmentation)
    assert loss.item() == pytest.approx(voxels[valid].mean().item(), abs=1e-5)
    same = [
        build_loss("dice_ce", organs, batch_dice=False, class_weights=one)(logits, segmentation) for one in ((0.2, 1.2), (0.2, 1.2, 1.2))
    ]
    assert same[0] == same[1]
    ones, none = (build_loss("dice_ce", organs, batch_dice=True, class_weights=one)(logits, segmentation) for one in ((1, 1), ()))
    assert ones.item() == pytest.approx(none.item(), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("dice", (0.2, 1.2), "class_weights: expected one of the losses ce, dice_ce, generalised_dice_ce, weighted_ce, got 'dice'"),
        ("ce", (0.2,), "class_weights: expected background's and 1 or 2 of organs"),
        ("ce", (1, 1, 1, 1), "class_weights: expected background's and 1 or 2 of organs"),
        ("ce", (0, 0), "not all 0"),
    ],
)
def test_class_weights_that_make_no_sense_are_refused(name, weights, message):
    with pytest.raises(ValueError, match=message):
        build_loss(name, ORGANS, batch_dice=False, class_weights=weights)


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
    for organs in ALL.values():
        logits, segmentation = random_batch(organs, 4, 4)
        loss = build_loss("dice_ce", organs, batch_dice=False)
        assert (segmentation == OUTSIDE).any()
        assert loss(logits, segmentation) == loss(logits, segmentation.clamp(min=0))


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


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("kind", ALL)
def test_generalised_dice_is_the_ratio_written_out_by_hand(kind, batch_dice):
    """One ratio over all classes, weighted by the inverse square of their volumes (Sudre et al. 2017)."""
    labels = ALL[kind]
    logits, segmentation = random_batch(labels, 4, 5)
    segmentation[0][segmentation[0] == 2] = 1  # in one sample the tumour (the core) is absent
    sums, entropy = sums_by_hand(logits, segmentation, labels)
    losses = []
    for overlap, total, volume in (one.T for one in (sums.sum(0, keepdims=True) if batch_dice else sums)):
        weights = 1 / np.where(volume > 0, volume, volume[volume > 0].min()) ** 2
        losses.append(1 - 2 * (weights * overlap).sum() / (weights * total).sum())
    for name, expected in {"generalised_dice": np.mean(losses), "generalised_dice_ce": np.mean(losses) + entropy}.items():
        assert build_loss(name, labels, batch_dice=batch_dice)(logits, segmentation).item() == pytest.approx(expected, abs=1e-5)


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
    loss = build_loss(name, labels, batch_dice=False)
    ignored = (segmentation == 3)[:, None].expand_as(logits)
    changed = torch.where(ignored, torch.randn_like(logits) * 9, logits)
    assert loss(changed, segmentation).item() == pytest.approx(loss(logits, segmentation).item(), abs=1e-6)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, segmentation), logits)
    assert not gradient[ignored].any()
    assert gradient[~ignored].all() or (name == "topk" and gradient[~ignored].any())  # which counts the worst voxels only
    nobody = loss(logits, torch.full((2, 5, 5), 3))
    assert nobody.item() == pytest.approx(0, abs=1e-6)
    assert not torch.autograd.grad(nobody, logits)[0].any()


def test_soft_dice_can_count_the_background():
    segmentation = torch.tensor([[[0, 0], [1, 2]]])
    flat = torch.full((1, 3, 2, 2), 1 / 3)
    dice = [2 * (2 / 3) / (4 / 3 + 2), 2 * (1 / 3) / (4 / 3 + 1), 2 * (1 / 3) / (4 / 3 + 1)]
    found = soft_dice_loss(flat, make_target(segmentation, ORGANS), batch_dice=False, skip_background=False)
    assert found.item() == pytest.approx(1 - sum(dice) / 3, abs=1e-5)


@pytest.mark.parametrize("supervision", [DeepSupervision, PyramidSupervision])
def test_a_single_tensor_goes_straight_to_the_loss(supervision):
    logits, segmentation = random_batch(ORGANS, 4, 4)
    loss = build_loss("dice_ce", ORGANS, batch_dice=False)
    assert supervision(loss)(logits, segmentation) == loss(logits, segmentation)


class TestDeepSupervision:
    """Weights 1, 1/2, 1/4 ..., the coarsest output left out."""

    @pytest.mark.parametrize(("n", "weights"), [(1, [1]), (2, [1]), (3, [2 / 3, 1 / 3]), (4, [4 / 7, 2 / 7, 1 / 7])])
    def test_weights_halve_and_the_coarsest_output_is_left_out(self, n, weights):
        outputs = [torch.full((1, 1, 16 >> i, 16 >> i), float(10**i)) for i in range(n)]
        found = DeepSupervision(lambda logits, _: logits.mean())(outputs, torch.zeros(1, 16, 16))
        assert found.item() == pytest.approx(sum(weight * 10**i for i, weight in enumerate(weights)))

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


def test_pyramid_supervision_is_the_mean_over_scales_against_pooled_labels():
    segmentation = torch.randint(0, 3, (2, 8, 12), dtype=torch.int16)
    outputs = [torch.randn(2, 3, *size) for size in ((8, 12), (4, 6), (2, 3))]
    loss = build_loss("ce", ORGANS, batch_dice=False)
    pooled = [segmentation, segmentation[:, 1::2, 1::2], segmentation[:, 2::4, 2::4]]
    expected = sum(loss(output, target).item() for output, target in zip(outputs, pooled, strict=True)) / 3
    assert PyramidSupervision(loss)(outputs, segmentation).item() == pytest.approx(expected, rel=1e-6)


def test_unknown_losses_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="ce, dice, dice_boundary.*Did you mean 'dice'"):
        build_loss("dise", ORGANS, batch_dice=False)
    assert isinstance(build_loss("autoseg.trainers.losses:DiceCrossEntropy", ORGANS, batch_dice=True), LOSSES["dice_ce"])
