"""The target adaptive loss: values written out by hand, gradients, and what is left exactly as it is."""

from __future__ import annotations

import dataclasses
import math

import factories
import numpy as np
import pytest
import torch
from factories import REGIONS, labels, make_job, make_plan, regions, write_store

from autoseg.data.annotations import annotated_indices
from autoseg.preprocessing.preprocess import class_locations
from autoseg.preprocessing.storage import StoredRecord
from autoseg.schema import Labels, Mirroring, Split
from autoseg.trainers.losses import LOSSES, build_loss
from autoseg.trainers.losses.adversarial import discriminator_maps
from autoseg.trainers.losses.deep_supervision import DeepSupervision, PyramidSupervision
from autoseg.trainers.losses.heatmap import sigmoid_cross_entropy
from autoseg.trainers.losses.target_adaptive import TargetAdaptive, after_flip, merge_unlabelled, merge_values
from autoseg.trainers.run_options import RunFolders
from autoseg.trainers.trainer import Trainer

ORGANS = labels(liver=1, kidney=2, spleen=3)
DATA = {"organs": factories.ORGANS, "regions": regions(both=(2, 5), block=(5,))}
"""Of the cases of `write_store`."""
LOGITS = torch.tensor([0.5, 1.0, -0.5, 0.25]).view(1, 4, 1, 1).expand(1, 4, 1, 3).contiguous()
"""The same four logits in three voxels."""
P = torch.softmax(LOGITS[0, :, 0, 0], 0).tolist()


def adaptive(name: str, labels: Labels = ORGANS, *, batch_dice: bool = False) -> TargetAdaptive:
    return TargetAdaptive(build_loss(name, labels, batch_dice=batch_dice), labels)


def batch(labels: Labels, *spatial: int, samples: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, labels.n_outputs, *spatial, generator=generator)
    highest = len(labels.base_values)
    return logits, torch.randint(0, highest + 1, (samples, *spatial), generator=generator, dtype=torch.int16)


def keep_only(segmentation: torch.Tensor, *values: int) -> torch.Tensor:
    return torch.where(sum(segmentation == value for value in values) > 0, segmentation, 0)


class TestByHand:
    """Only the liver is annotated; it fills the first of three voxels."""

    segmentation = torch.tensor([[[1, 0, 0]]])

    @pytest.mark.parametrize(
        ("name", "annotated", "expected"),
        [
            ("ce", (0,), -(math.log(P[1]) + 2 * math.log(1 - P[1])) / 3),  # equation 8 of the paper
            ("ce", (0, 2), -(math.log(P[1]) + 2 * math.log(1 - P[1] - P[3])) / 3),
            # That of the annotated organ, and agreement for the others.
            ("dice", (0,), 1 - ((2 * P[1] + 1e-5) / (3 * P[1] + 1 + 1e-5) + 1 + 1) / 3),
            # Weights 1 / 1^2 and 1 / 2^2; background has all that is not liver. Absent classes add nothing.
            ("generalised_dice", (0,), 1 - 2 * (P[1] + 2 * (1 - P[1]) / 4) / ((3 * P[1] + 1) + (3 * (1 - P[1]) + 2) / 4)),
            # The classes of the label map are counted.
            ("weighted_ce", (0,), -((1 - 1 / 3) / 3 * math.log(P[1]) + (1 - 2 / 3) / 3 * 2 * math.log(1 - P[1])) / 3),
        ],
    )
    def test_one_sample(self, name, annotated, expected):
        assert adaptive(name)(LOGITS, self.segmentation, (annotated,)).item() == pytest.approx(expected, abs=2e-6)

    def test_batch_dice_judges_an_organ_on_the_samples_that_have_it(self):
        logits, segmentation = torch.cat([LOGITS, LOGITS]), torch.tensor([[[1, 0, 0]], [[2, 2, 0]]])
        dice = [(2 * count * P[organ] + 1e-5) / (3 * P[organ] + count + 1e-5) for organ, count in ((1, 1), (2, 2))]
        found = adaptive("dice", batch_dice=True)(logits, segmentation, ((0,), (1,))).item()
        assert found == pytest.approx(1 - (sum(dice) + 1) / 3, abs=1e-6)

    def test_regions_that_are_not_annotated_do_not_count(self):
        logits = torch.tensor([[[[1.0, -2.0, 0.5]], [[0.3, 0.2, -1.0]]]])
        core = torch.tensor([[[2, 0, 0]]])
        expected = -(math.log(sigmoid(0.3)) + math.log(1 - sigmoid(0.2)) + math.log(1 - sigmoid(-1.0))) / 3 / 2
        assert adaptive("ce", REGIONS)(logits, core, ((1,),)).item() == pytest.approx(expected, rel=1e-5)
        p = [sigmoid(value) for value in (0.3, 0.2, -1.0)]
        dice = 2 * p[0] / (sum(p) + 1)
        assert adaptive("dice", REGIONS)(logits, core, ((1,),)).item() == pytest.approx(1 - (dice + 1) / 2, abs=1e-5)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("labels", [ORGANS, REGIONS])
class TestEveryLoss:
    def test_with_all_organs_annotated_it_is_the_ordinary_loss_bit_by_bit(self, labels, name, batch_dice):
        logits, segmentation = batch(labels, 4, 5)
        ordinary = build_loss(name, labels, batch_dice=batch_dice)(logits, segmentation)
        every = tuple(range(len(labels.names)))
        for annotated in ((), (None, None), (every, None), (every, every)):
            assert torch.equal(adaptive(name, labels, batch_dice=batch_dice)(logits, segmentation, annotated), ordinary)

    def test_what_was_not_annotated_has_no_gradient_of_its_own(self, labels, name, batch_dice):
        logits, segmentation = batch(labels, 4, 5)
        segmentation = keep_only(segmentation, 1) if not labels.regions else segmentation
        logits.requires_grad_()
        loss = adaptive(name, labels, batch_dice=batch_dice)(logits, segmentation, ((0,), (0,)))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and gradient.isfinite().all() and gradient.any()
        if labels.regions:
            assert not gradient[:, 1].any()
        else:
            # Of the merged classes each takes part in its share: what moves between them changes nothing.
            shares = logits.detach()[:, [0, 2, 3]].softmax(1)
            torch.testing.assert_close(gradient[:, [0, 2, 3]], gradient[:, [0, 2, 3]].sum(1, keepdim=True) * shares, rtol=1e-3, atol=1e-7)

    def test_probability_may_move_between_background_and_unannotated_organs_at_no_cost(self, labels, name, batch_dice):
        logits, segmentation = batch(labels, 4, 5)
        changed = logits.clone()
        if labels.regions:
            changed[:, 1] = torch.randn(2, 4, 5) * 5
        else:
            segmentation = keep_only(segmentation, 1)
            mass = logits[:, [0, 2, 3]].logsumexp(1)
            changed[:, 0], changed[:, 2], changed[:, 3] = mass + math.log(0.2), mass + math.log(0.7), mass + math.log(0.1)
        loss = adaptive(name, labels, batch_dice=batch_dice)
        one, two = (loss(some, segmentation, ((0,), (0,))).item() for some in (logits, changed))
        assert one == pytest.approx(two, abs=2e-6)

    @pytest.mark.parametrize("supervision", [DeepSupervision, PyramidSupervision])
    def test_several_outputs_in_half_precision(self, labels, name, batch_dice, supervision):
        loss = TargetAdaptive(supervision(build_loss(name, labels, batch_dice=batch_dice)), labels)
        outputs = [torch.randn(2, labels.n_outputs, size, size, dtype=torch.bfloat16, requires_grad=True) for size in (8, 4, 2)]
        _, segmentation = batch(labels, 8, 8)
        segmentation = segmentation if labels.regions else keep_only(segmentation, 1)
        found = loss(outputs, segmentation, ((0,), (0,)))
        found.backward()
        assert found.dtype == torch.float32 and 0 <= found < 20
        assert all(one.grad.isfinite().all() for one in outputs if one.grad is not None)


def test_a_fully_annotated_sample_beside_a_partial_one_is_as_alone():
    logits, segmentation = batch(ORGANS, 4, 5)
    segmentation[1] = keep_only(segmentation[1], 2)
    loss = adaptive("ce")
    alone = [loss(logits[i : i + 1], segmentation[i : i + 1], annotated).item() for i, annotated in enumerate([(None,), ((1,),)])]
    assert loss(logits, segmentation, (None, (1,))).item() == pytest.approx(sum(alone) / 2, rel=1e-6)


def test_a_sample_without_any_annotated_organ_teaches_nothing():
    logits, _ = batch(ORGANS, 4, 5, samples=1)
    logits.requires_grad_()
    loss = adaptive("dice_ce")(logits, torch.zeros(1, 4, 5), ((),))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-7


def test_merged_logits_keep_the_probabilities_of_what_is_known():
    logits, segmentation = batch(ORGANS, 2, 2)
    merged = merge_unlabelled(logits, ((0, 2), None), ORGANS, segmentation)
    before, after = logits.softmax(1), merged.softmax(1)
    torch.testing.assert_close(after[0, [1, 3]], before[0, [1, 3]])
    torch.testing.assert_close(after[0, 0], before[0, 0] + before[0, 2])
    assert not after[0, 2].any()
    assert torch.equal(merged[1], logits[1])


@pytest.mark.parametrize(("kind", "iterations"), [("organs", 300), ("regions", 300)])
@pytest.mark.usefixtures("no_pictures")
def test_a_network_learns_all_organs_from_cases_that_each_show_one(tmp_path, kind, iterations):
    """Cases a and c show the ball, b and d the block (of regions: both as one, and the block); judged on two that show all."""
    labels = DATA[kind]
    plan = make_plan(labels=labels)
    store = write_store(tmp_path / "data", plan, ["a", "b", "c", "d", "e", "f"])
    for name, organ in {"a": 0, "b": 1, "c": 0, "d": 1}.items():
        case, annotated = store.load(name), (labels.names[organ],)
        values = np.asarray(case.segmentation[:])
        # What was not annotated is not in the label map: of the nested regions only the block alone.
        shown = values if labels.regions and organ == 0 else np.where(values == organ + 1, values, 0)
        locations = class_locations(shown, labels, np.random.default_rng(0), annotated=annotated)
        store.write(name, np.asarray(case.image[:]), shown, StoredRecord(case.trace, annotated=annotated), locations)
    job = make_job(plan, iterations=iterations, validation_intervals=1, learning_rate=2e-2, validation_batches=8)
    job = dataclasses.replace(job, split=Split(("a", "b", "c", "d"), ("e", "f")))
    trainer = Trainer(job, RunFolders(tmp_path / "run", tmp_path / "data"), device=torch.device("cpu"), progress=False)
    trainer.fit()
    found = {name: trainer.history.rows[-1][f"dice_{name}"] for name in labels.names}
    assert min(found.values()) > 0.85, found


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_network_learns_what_is_what_from_cases_that_show_it_and_the_rest_from_unions(tmp_path):
    """Cases a and b show ball and block, c and d both as one; judged on two that show them apart."""
    plan = make_plan(labels=DATA["organs"])
    store = write_store(tmp_path / "data", plan, ["a", "b", "c", "d", "e", "f"])
    for name in "cd":
        case, annotated = store.load(name), ("ball + block",)
        values = np.minimum(np.asarray(case.segmentation[:]), 1)
        locations = class_locations(values, plan.labels, np.random.default_rng(0), annotated=annotated)
        store.write(name, np.asarray(case.image[:]), values, StoredRecord(case.trace, annotated=annotated), locations)
    job = make_job(plan, iterations=300, validation_intervals=1, learning_rate=2e-2, validation_batches=8)
    job = dataclasses.replace(job, split=Split(("a", "b", "c", "d"), ("e", "f")))
    trainer = Trainer(job, RunFolders(tmp_path / "run", tmp_path / "data"), device=torch.device("cpu"), progress=False)
    trainer.fit()
    found = {name: trainer.history.rows[-1][f"dice_{name}"] for name in plan.labels.names}
    assert min(found.values()) > 0.75, found


class TestUnion:
    """Kidney and spleen are annotated only together, the liver not at all; the union fills two of three voxels."""

    segmentation = torch.tensor([[[2, 3, 0]]])
    annotated = (((1, 2),),)

    @pytest.mark.parametrize(
        ("name", "annotated", "expected"),
        [
            ("ce", ((1, 2),), -(2 * math.log(P[2] + P[3]) + math.log(P[0] + P[1])) / 3),
            ("ce", (0, (1, 2)), -(2 * math.log(P[2] + P[3]) + math.log(P[0])) / 3),
            ("dice", ((1, 2),), 1 - ((4 * (P[2] + P[3]) + 1e-5) / (3 * (P[2] + P[3]) + 2 + 1e-5) + 1 + 1) / 3),
        ],
    )
    def test_the_sum_of_the_probabilities_is_compared_with_the_union(self, name, annotated, expected):
        assert adaptive(name)(LOGITS, self.segmentation, (annotated,)).item() == pytest.approx(expected, abs=2e-6)

    @pytest.mark.parametrize("batch_dice", [False, True])
    @pytest.mark.parametrize("name", LOSSES)
    def test_which_of_its_organs_a_voxel_is_taken_for_costs_nothing(self, name, batch_dice):
        logits, segmentation = batch(ORGANS, 4, 5)
        segmentation = keep_only(segmentation, 2, 3)
        changed, mass = logits.clone(), logits[:, [2, 3]].logsumexp(1)
        changed[:, 2], changed[:, 3] = mass + math.log(0.9), mass + math.log(0.1)
        loss = adaptive(name, batch_dice=batch_dice)
        one, two = (loss(some, segmentation, self.annotated * 2).item() for some in (logits, changed))
        assert one == pytest.approx(two, abs=2e-6)
        again = torch.where(segmentation == 3, 2, segmentation)
        assert loss(logits, again, self.annotated * 2).item() == one, "whichever value its voxels have"
        right = torch.full_like(logits, -9.0)
        right[:, 3], right[:, 0] = torch.where(segmentation > 0, 9.0, -9.0), torch.where(segmentation > 0, -9.0, 9.0)
        assert loss(right, segmentation, self.annotated * 2).item() < 0.2 * one

    def test_a_flip_that_exchanges_its_sides_gives_the_same_union(self):
        mirroring = Mirroring(axes=(0, 1, 2), lateral_axis=2, pairs=((1, 2),))
        assert after_flip((0, (1, 2)), mirroring) == (0, (1, 2))
        assert after_flip(((0, 1),), mirroring) == ((0, 2),)

    def test_a_model_of_some_of_its_organs_learns_neither(self):
        """The kidney alone: a voxel of the union is the kidney or not, and the value that it has says nothing."""
        kidney = labels(kidney=2)
        assert annotated_indices(("liver", "kidney + spleen"), kidney) == ()
        assert annotated_indices(("liver", "kidney + spleen"), ORGANS) == (0, (1, 2))
        logits = torch.randn(1, 2, 1, 3, requires_grad=True)
        loss = adaptive("dice_ce", kidney)(logits, torch.tensor([[[1, 1, 0]]]), ((),))
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-6) and logits.grad.abs().max() < 1e-6

    def test_values_are_those_of_the_first_organ(self):
        found = merge_values(torch.tensor([[[1, 2, 3, 0, -1]], [[1, 2, 3, 0, -1]]]), (((1, 2),), None), ORGANS)
        assert found.tolist() == [[[0, 2, 2, 0, -1]], [[1, 2, 3, 0, -1]]]

    def test_the_maps_of_a_discriminator_agree_where_nothing_is_known(self):
        logits = torch.full((1, 4, 1, 3), -9.0)
        for voxel, channel in enumerate((3, 2, 1)):
            logits[0, channel, 0, voxel] = 9.0
        fake, real = discriminator_maps(logits, self.segmentation, self.annotated, ORGANS)
        torch.testing.assert_close(fake, real, atol=1e-6, rtol=0)

    def test_heatmaps_count_where_the_union_is_not(self):
        logits = torch.tensor([0.5, 1.0, -0.5, 0.25]).view(1, 4, 1, 1).expand(1, 4, 1, 3)
        # Background where the union is (two voxels), kidney and spleen where it is not (one voxel each).
        expected = (2 * softplus(0.5) + softplus(-0.5) + softplus(0.25)) / 4
        assert sigmoid_cross_entropy(logits, self.segmentation, ORGANS, self.annotated).item() == pytest.approx(expected, rel=1e-5)


def softplus(value: float) -> float:
    return math.log(1 + math.exp(value))


def test_one_entry_a_sample_is_asked_for():
    logits, segmentation = batch(ORGANS, 2, 2)
    with pytest.raises(ValueError, match="one entry for each of 2 samples, got 1"):
        adaptive("ce")(logits, segmentation, ((0,),))


def test_a_flip_that_exchanges_sides_exchanges_what_is_annotated():
    mirroring = Mirroring(axes=(0, 1, 2), lateral_axis=2, pairs=((0, 2),))
    assert after_flip((0, 1), mirroring) == (1, 2)
    assert after_flip((0, 2), mirroring) == (0, 2)
    assert after_flip(None, mirroring) is None
    assert after_flip((1,), Mirroring()) == (1,)
