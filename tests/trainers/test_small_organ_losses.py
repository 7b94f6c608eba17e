"""Losses for small organs and thin structures against sums written out by hand; weights of voxels in every loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import REGIONS, labels, regions
from scipy import ndimage

from autoseg.schema import Labels
from autoseg.trainers.losses import LOSSES, build_loss, check_takes_weights, make_target, soft_dice_loss
from autoseg.trainers.losses.boundary import boundary_loss, signed_distance
from autoseg.trainers.losses.centreline import soft_cldice_loss, soft_skeleton
from autoseg.trainers.losses.deep_supervision import DeepSupervision, PyramidSupervision
from autoseg.trainers.losses.entropy import focal_loss, top_k_cross_entropy
from autoseg.trainers.losses.overlap import tversky_loss
from autoseg.trainers.losses.target_adaptive import TargetAdaptive

ORGANS, PARTLY = labels(liver=1, tumour=2), labels(liver=1, tumour=2, ignore=3)
ONE = labels(vessel=1)
PARTLY_REGIONS = regions(whole=(1, 2), core=(2,), ignore=3)
KINDS = {"organs": (ORGANS, PARTLY), "regions": (REGIONS, PARTLY_REGIONS)}


def random_batch(labels: Labels, *spatial: int, samples: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(samples, labels.n_outputs, *spatial)).astype(np.float32))
    return logits, torch.from_numpy(rng.integers(0, 3, (samples, *spatial)).astype(np.int16))


def sure(segmentation: torch.Tensor, n_outputs: int, size: float = 50.0) -> torch.Tensor:
    """Logits of a network that is right and sure."""
    return (torch.nn.functional.one_hot(segmentation.long(), n_outputs).movedim(-1, 1) * 2.0 - 1) * size


class TestTopK:
    """Wu et al. 2016."""

    @pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
    def test_it_is_the_mean_of_the_worst_voxels(self, share):
        logits, segmentation = random_batch(ORGANS, 4, 5)
        entropies = np.sort(-logits.double().log_softmax(1).gather(1, segmentation[:, None].long()).flatten().numpy())[::-1]
        expected = entropies[: int(np.ceil(share * 40))].mean()
        assert top_k_cross_entropy(logits, make_target(segmentation, ORGANS), share=share).item() == pytest.approx(expected, rel=1e-5)

    def test_of_ignored_voxels_none_is_among_the_worst_and_the_share_is_of_the_others(self):
        logits, segmentation = random_batch(PARTLY, 4, 5)
        segmentation[:, :2] = 3
        kept = -logits.log_softmax(1).gather(1, segmentation.clamp(max=2)[:, None].long())[:, 0, 2:].flatten()
        expected = kept.sort().values[-2:].mean().item()
        assert top_k_cross_entropy(logits, make_target(segmentation, PARTLY)).item() == pytest.approx(expected, rel=1e-5)

    def test_half_of_every_weight_is_the_same_share(self):
        logits, segmentation = random_batch(ORGANS, 8, 8)
        weight = torch.rand(segmentation.shape, generator=torch.Generator().manual_seed(1))
        one, half = (top_k_cross_entropy(logits, make_target(segmentation, ORGANS, some)).item() for some in (weight, weight / 2))
        assert half == pytest.approx(one, rel=1e-5)
        same = top_k_cross_entropy(logits, make_target(segmentation, ORGANS, torch.full(segmentation.shape, 0.5))).item()
        # A tenth of 128 voxels is 12.8: the worst 13.
        assert same == pytest.approx(top_k_cross_entropy(logits, make_target(segmentation, ORGANS)).item(), rel=1e-5)

    def test_a_lesion_of_30_voxels_is_not_outvoted(self):
        """It is missed; all else is right: the cross entropy hardly notices, its worst tenth does."""
        segmentation = torch.zeros(1, 16, 16, 16, dtype=torch.int16)
        segmentation[0, :2, :3, :5] = 1
        logits = torch.tensor([3.0, -3.0]).view(1, 2, 1, 1, 1).expand(1, 2, 16, 16, 16)
        whole, worst = (build_loss(name, ONE, batch_dice=False)(logits, segmentation).item() for name in ("ce", "topk"))
        assert worst > 9 * whole


def test_focal_is_cross_entropy_times_the_square_of_what_is_lacking():
    logits, segmentation = random_batch(ORGANS, 4, 5)
    p = logits.double().softmax(1).gather(1, segmentation[:, None].long())
    assert focal_loss(logits, make_target(segmentation, ORGANS)).item() == pytest.approx(
        (-((1 - p) ** 2) * p.log()).mean().item(), rel=1e-5
    )
    p = logits[:, :2].double().sigmoid()
    truth = torch.stack([segmentation > 0, segmentation == 2], 1)
    p = torch.where(truth, p, 1 - p)
    found = focal_loss(logits[:, :2], make_target(segmentation, REGIONS)).item()
    assert found == pytest.approx((-((1 - p) ** 2) * p.log()).mean().item(), rel=1e-5)


class TestTversky:
    """Salehi et al. 2017; Abraham and Khan 2019."""

    def test_it_is_the_ratio_written_out_by_hand_and_misses_cost_more_than_false_finds(self):
        logits, segmentation = random_batch(ORGANS, 4, 5)
        p, truth = logits.softmax(1)[:, 1:], torch.stack([segmentation == 1, segmentation == 2], 1).float()
        hits, wrong, missed = ((one).sum((2, 3)) for one in (p * truth, p * (1 - truth), (1 - p) * truth))
        index = hits / (hits + 0.3 * wrong + 0.7 * missed)
        found = build_loss("tversky", ORGANS, batch_dice=False)(logits, segmentation).item()
        assert found == pytest.approx((1 - index).mean().item(), abs=1e-5)
        focal = build_loss("focal_tversky", ORGANS, batch_dice=False)(logits, segmentation).item()
        assert focal == pytest.approx(((1 - index) ** 0.75).mean().item(), abs=1e-4)

    def test_with_one_half_each_it_is_the_dice_loss(self):
        logits, segmentation = random_batch(ORGANS, 4, 5)
        target = make_target(segmentation, ORGANS)
        options = {"batch_dice": True, "skip_background": True}
        one = tversky_loss(logits.softmax(1), target, false_negatives=0.5, **options)
        assert one.item() == pytest.approx(soft_dice_loss(logits.softmax(1), target, **options).item(), abs=1e-5)


class TestBoundary:
    """Kervadec et al. 2019."""

    @pytest.mark.parametrize("shape", [(7, 9), (5, 6, 8)])
    def test_distances_are_those_of_scipy_to_the_faces_of_the_mask(self, shape):
        mask = ndimage.binary_dilation(np.random.default_rng(1).random(shape) > 0.93)
        expected = np.where(mask, 0.5 - ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask) - 0.5)
        found = signed_distance(torch.from_numpy(mask[None, None].astype(np.float32)))
        np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-5)

    def test_a_mask_without_a_border_is_nowhere_far(self):
        assert not signed_distance(torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])).any()

    def test_what_is_wrong_costs_as_much_as_it_is_far(self):
        segmentation = torch.tensor([[[1, 1, 0, 0, 0, 0]]])
        target, truth = make_target(segmentation, ONE), torch.nn.functional.one_hot(segmentation, 2).movedim(-1, 1).float()
        for place, distance in ((2, 0.5), (5, 3.5), (1, 0.5), (0, 1.5)):
            wrong = truth.clone()
            wrong[0, :, 0, place] = 1 - wrong[0, :, 0, place]
            assert boundary_loss(wrong, target, skip_background=True).item() == pytest.approx(distance / 6)
        assert boundary_loss(truth, target, skip_background=True).item() == 0


class TestCentreline:
    """Shit et al. 2021."""

    def test_the_skeleton_of_a_bar_is_its_line(self):
        bar = torch.zeros(1, 1, 9, 15)
        bar[..., 3:6, 2:13] = 1
        skeleton = soft_skeleton(bar, 5)
        assert skeleton[0, 0, 4, 3:12].all()
        assert not skeleton[0, 0, [3, 5], 4:11].any()

    @pytest.mark.parametrize("shape", [(9, 15), (9, 9, 15)])
    def test_a_gap_costs_as_much_as_it_is_long(self, shape):
        line = torch.zeros(1, *shape, dtype=torch.int16)
        line[(0, *(4,) * (len(shape) - 1))] = 1
        broken = line.clone()
        broken[..., 5:8] = 0
        found = soft_cldice_loss(sure(broken, 2).softmax(1), make_target(line, ONE), batch_dice=False, skip_background=True).item()
        sensitivity = (12 + 1) / (15 + 1)
        assert found == pytest.approx(1 - 2 * sensitivity / (1 + sensitivity), abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", KINDS)
class TestVoxelWeights:
    """What every loss makes of the weights of voxels."""

    @pytest.mark.parametrize("batch_dice", [False, True])
    def test_weights_of_one_are_the_plain_loss(self, name, kind, batch_dice):
        whole, _ = KINDS[kind]
        logits, segmentation = random_batch(whole, 4, 5, 3)
        loss = build_loss(name, whole, batch_dice=batch_dice)
        weighted = loss(logits, segmentation, weight=torch.ones(segmentation.shape))
        assert weighted.item() == pytest.approx(loss(logits, segmentation).item(), abs=1e-6)

    @pytest.mark.parametrize("batch_dice", [False, True])
    def test_a_weight_of_zero_is_the_ignore_label(self, name, kind, batch_dice):
        whole, partly = KINDS[kind]
        logits, segmentation = random_batch(whole, 6, 5)
        logits.requires_grad_()
        counts = torch.rand(segmentation.shape, generator=torch.Generator().manual_seed(0)) > 0.3
        found = build_loss(name, whole, batch_dice=batch_dice)(logits, segmentation, weight=counts.float())
        ignoring = build_loss(name, partly, batch_dice=batch_dice)(logits, torch.where(counts, segmentation, 3))
        assert found.item() == pytest.approx(ignoring.item(), abs=1e-6)
        gradients = [torch.autograd.grad(one, logits)[0] for one in (found, ignoring)]
        torch.testing.assert_close(*gradients)
        assert not gradients[0].movedim(1, -1)[~counts].any()

    def test_weights_between_have_finite_gradients_between(self, name, kind):
        whole, _ = KINDS[kind]
        logits, segmentation = random_batch(whole, 8, 8)
        weight = torch.ones(segmentation.shape)
        weight[:, :4] = 0.5
        sizes = []
        for one in (torch.ones_like(weight), weight):
            some = logits.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(build_loss(name, whole, batch_dice=True)(some, segmentation, weight=one), some)
            assert gradient.isfinite().all()
            sizes.append(gradient[:, :, :4].abs().sum() / gradient[:, :, 4:].abs().sum())
        assert sizes[1] < sizes[0]

    @pytest.mark.parametrize("supervision", [DeepSupervision, PyramidSupervision])
    def test_they_follow_the_label_map_to_every_scale_in_half_precision_and_partial_annotations(self, name, kind, supervision):
        whole, partly = KINDS[kind]
        _, segmentation = random_batch(whole, 8, 8)
        segmentation[segmentation == 2] = 0
        counts = (torch.arange(8) >= 4).expand(2, 8, 8)
        outputs = [torch.randn(2, whole.n_outputs, size, size, generator=torch.Generator().manual_seed(size)) for size in (8, 4, 2)]
        outputs = [one.bfloat16().requires_grad_() for one in outputs]
        loss, ignoring = (TargetAdaptive(supervision(build_loss(name, one, batch_dice=False)), one) for one in (whole, partly))
        found = loss(outputs, segmentation, ((0,), None), counts.float())
        found.backward()
        assert found.dtype == torch.float32
        assert all(one.grad.isfinite().all() for one in outputs if one.grad is not None)
        expected = ignoring(outputs, torch.where(counts, segmentation, 3), ((0,), None)).item()
        assert found.item() == pytest.approx(expected, abs=1e-5)


def test_a_loss_that_knows_no_weights_serves_without_and_is_refused_with():
    def own(labels: Labels, *, batch_dice: bool):
        return lambda logits, segmentation: logits.mean()

    logits, segmentation = random_batch(ORGANS, 4, 4)
    assert TargetAdaptive(DeepSupervision(own(ORGANS, batch_dice=True)), ORGANS)(logits, segmentation) == logits.mean()
    LOSSES_OF_OTHERS = {"own": own}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoseg.trainers.losses.LOSSES", LOSSES_OF_OTHERS)
        with pytest.raises(ValueError, match="loss own: expected one of .*weight"):
            check_takes_weights("own", ORGANS)
    check_takes_weights("dice_topk", ORGANS)
