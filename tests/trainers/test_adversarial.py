"""The adversarial game: what each side minimises, what the discriminator sees, and what it must not see."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from factories import ORGANS, REGIONS, make_configuration, make_job, make_plan

from autoseg.runtime.checkpoints import load_checkpoint
from autoseg.runtime.runs import FINAL_CHECKPOINT
from autoseg.trainers.adversarial import AdversarialTrainer
from autoseg.trainers.batches import TRAINING, Batch, BatchMaker
from autoseg.trainers.losses.adversarial import discriminator_loss, discriminator_maps, generator_loss

CPU = torch.device("cpu")
SMALL = {"discriminator_features": 2}
pytestmark = pytest.mark.usefixtures("no_pictures")


def trainer_of(folders, *, options=None, plan=None, configuration="3d_fullres", **training) -> AdversarialTrainer:
    job = make_job(plan or make_plan(), configuration, **training)
    job = dataclasses.replace(job, trainer="AdversarialTrainer", trainer_options=SMALL | (options or {}))
    return AdversarialTrainer(job, folders, device=CPU, progress=False)


def first_batch(trainer: AdversarialTrainer) -> Batch:
    return BatchMaker(trainer.job, trainer.folders, trainer.job.split.train, stream=TRAINING, device=CPU)(0)


def copied(network: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def moved(network: torch.nn.Module, before: list[torch.Tensor]) -> bool:
    return any(not torch.equal(now, then) for now, then in zip(network.parameters(), before, strict=True))


class TestStep:
    @pytest.mark.parametrize("factor", [1.0, torch.nan])
    def test_both_networks_take_a_step_unless_gradients_are_broken_and_the_history_tells_all_of_it(self, folders, factor):
        trainer = trainer_of(folders)
        batch, before = first_batch(trainer), [copied(trainer.network), copied(trainer.discriminator)]
        values = trainer.step(dataclasses.replace(batch, image=factor * batch.image))
        assert list(values) == ["train_loss", "adversarial_loss", "discriminator_loss", "score_real", "score_fake"]
        assert [moved(trainer.network, before[0]), moved(trainer.discriminator, before[1])] == [factor == 1.0] * 2

    def test_the_segmentation_network_minimises_the_papers_sum_over_one_plus_the_weight(self, folders, monkeypatch):
        monkeypatch.setattr("autoseg.runtime.hardware.autocast_dtype", lambda _: None)  # the same numbers on processors with bf16
        trainer = trainer_of(folders, options={"weight": 3.0}, optimizer="sgd", learning_rate=0.1, momentum=0.0, weight_decay=0.0)
        batch, before = first_batch(trainer), copied(trainer.network)
        outputs = trainer.network(batch.image)
        fake, _ = discriminator_maps(outputs[0], batch.segmentation, (), ORGANS)
        scores = trainer.discriminator(batch.image, fake)
        loss = (-scores.sigmoid().log().mean() + 3 * trainer.loss(outputs, batch.segmentation, ())) / 4
        gradients = torch.autograd.grad(loss, list(trainer.network.parameters()), allow_unused=True)
        trainer.step(batch)
        for now, then, gradient in zip(trainer.network.parameters(), before, gradients, strict=True):
            torch.testing.assert_close(now, then if gradient is None else then - 0.1 * gradient, rtol=1e-4, atol=1e-6)

    def test_the_discriminator_gets_better_at_a_network_that_stands_still(self, folders):
        trainer = trainer_of(folders, options={"discriminator_features": 4, "discriminator_learning_rate": 1e-2}, learning_rate=1e-9)
        batch = first_batch(trainer)
        values = [trainer.step(batch) for _ in range(15)]
        assert values[-1]["score_real"] > values[-1]["score_fake"] + 0.3
        assert values[-1]["discriminator_loss"] < 0.7 * values[0]["discriminator_loss"]

    def test_a_smoothed_label_is_cross_entropy_against_it(self, folders):
        trainer = trainer_of(folders, options={"label_smoothing": 0.1})
        batch = first_batch(trainer)
        maps = torch.rand(2, 3, 8, 8, 8), torch.rand(2, 3, 8, 8, 8)
        real, fake = (trainer.discriminator(batch.image, one).detach() for one in maps)
        entropy = torch.nn.functional.binary_cross_entropy_with_logits
        expected = entropy(real, torch.full_like(real, 0.9)) + entropy(fake, torch.zeros_like(fake))
        values = trainer._train_discriminator(batch.image, *maps)
        torch.testing.assert_close(values["discriminator_loss"], expected, rtol=1e-4, atol=1e-5)

    def test_the_discriminators_rate_follows_the_schedule(self, folders):
        trainer = trainer_of(folders, options={"discriminator_learning_rate": 5e-3}, learning_rate=1e-2)
        batch = first_batch(trainer)
        for rate in (1e-2, 2e-3):
            trainer.optimized.optimizer.param_groups[0]["lr"] = rate
            trainer.step(batch)
            assert trainer.optimized_discriminator.optimizer.param_groups[0]["lr"] == pytest.approx(rate / 2)


class TestDiscriminatorMaps:
    segmentation = torch.tensor([[[0, 1], [2, 0]], [[1, 1], [2, 3]]], dtype=torch.int16)

    def test_probabilities_against_one_channel_a_class(self):
        logits = torch.randn(2, 3, 2, 2)
        fake, real = discriminator_maps(logits, self.segmentation.clamp(max=2), (), ORGANS)
        torch.testing.assert_close(fake, logits.softmax(1))
        assert real.argmax(1).equal(self.segmentation.clamp(max=2).long())
        assert (real.sum(1) == 1).all()

    def test_ignored_voxels_say_nothing_and_get_no_gradient(self):
        labels = dataclasses.replace(ORGANS, ignore=9)  # internal value 3
        logits = torch.randn(2, 3, 2, 2, requires_grad=True)
        fake, real = discriminator_maps(logits, self.segmentation, (None, None), labels)
        assert (fake[1, :, 1, 1] == 0).all()
        assert (real[1, :, 1, 1] == 0).all()
        fake.square().sum().backward()
        assert (logits.grad[1, :, 1, 1] == 0).all()
        assert (logits.grad[1, :, 0, 0] != 0).any()

    def test_organs_nobody_annotated_are_background_in_both(self):
        segmentation = self.segmentation.clamp(max=1)
        logits = torch.randn(2, 3, 2, 2)
        fake, real = discriminator_maps(logits, segmentation, (None, (0,)), ORGANS)
        expected = logits.softmax(1)
        expected[1, 0] += expected[1, 2]
        expected[1, 2] = 0
        torch.testing.assert_close(fake, expected)
        assert (fake[1, 2] == 0).all()
        assert (real[1, 2] == 0).all()

    def test_regions_nobody_annotated_are_equal_in_both(self):
        fake, real = discriminator_maps(torch.randn(2, 2, 2, 2), self.segmentation.clamp(max=2), (None, (1,)), REGIONS)
        assert (fake == real).flatten(2).all(2).tolist() == [[False, False], [True, False]]


class TestLosses:
    REAL, FAKE = torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([[-3.0, 1.0], [0.0, 4.0]])

    def test_they_are_logarithms_of_the_scores(self):
        real, fake = (1 / (1 + np.exp(-logits.double().numpy())) for logits in (self.REAL, self.FAKE))
        assert generator_loss(self.FAKE).item() == pytest.approx(-np.log(fake).mean(), rel=1e-6)
        assert discriminator_loss(self.REAL, self.FAKE).item() == pytest.approx(-np.log(real).mean() - np.log(1 - fake).mean(), rel=1e-6)

    def test_a_generator_that_deceives_nobody_has_the_full_gradient(self):
        fake = torch.full((4,), -1e4, requires_grad=True)
        loss = generator_loss(fake)
        loss.backward()
        assert loss.item() == pytest.approx(1e4)
        assert fake.grad.tolist() == [-0.25] * 4

    def test_half_precision_is_computed_in_float32(self):
        assert generator_loss(self.FAKE.bfloat16()).dtype == torch.float32
        assert discriminator_loss(self.REAL.bfloat16(), self.FAKE.bfloat16()) == discriminator_loss(self.REAL, self.FAKE)


class TestRuns:
    def test_the_discriminator_goes_on_where_it_stopped(self, folders):
        trainer = trainer_of(folders)
        for _ in range(3):
            trainer.step(first_batch(trainer))
        folders.run.mkdir()
        trainer.save()
        again = trainer_of(folders)
        again.restore()
        assert not moved(again.discriminator, copied(trainer.discriminator))
        one, other = (two.step(first_batch(trainer)) for two in (trainer, again))
        assert {name: float(value) for name, value in one.items()} == {name: float(value) for name, value in other.items()}
        assert not moved(again.discriminator, copied(trainer.discriminator))

    def test_the_final_checkpoint_holds_the_segmentation_network_alone(self, folders):
        trainer_of(folders).fit()
        states, _ = load_checkpoint(folders.run / FINAL_CHECKPOINT)
        assert set(states) == {"network"}

    def test_any_network_and_slices_as_channels(self, folders):
        cascade = {"network": "unet_cascade", "network_options": {"features": [2, 4]}}
        plan = make_plan(make_configuration(2, name="2.5d", slices=3, **cascade))
        trainer = trainer_of(folders, plan=plan, configuration="2.5d", iterations=2, validation_intervals=1)
        assert trainer.discriminator.in_channels == 3
        trainer.fit()
        assert 0 < trainer.history.rows[-1]["score_fake"] < 1
