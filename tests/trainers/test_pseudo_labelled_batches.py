"""Training on images with pseudo-labels: batches, weights, and runs that go on exactly."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from factories import CASES, make_case, make_configuration, make_job, make_plan, whole_trace, write_store
from trainer_runs import elsewhere, equal, run_until_killed, weights

from autoseg.preprocessing.preprocess import class_locations
from autoseg.preprocessing.pseudo_labelled_cases import FULL, write_pseudo_labels
from autoseg.preprocessing.storage import StoredRecord
from autoseg.schema import Choice, Mirroring, PseudoLabels
from autoseg.trainers.adversarial import AdversarialTrainer
from autoseg.trainers.augmentation.augment import Augmentation
from autoseg.trainers.batches import TRAINING, VALIDATION, BatchMaker
from autoseg.trainers.label_maps import INTENSITIES, LabelMaps
from autoseg.trainers.trainer import Trainer

CPU, UNLABELLED = torch.device("cpu"), ("u0", "u1", "u2")
RECORDED = PseudoLabels("teachers", Choice({"ball": ("m",)}, ("0",), {}, 0), dict.fromkeys(UNLABELLED, "identity"))
pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def pseudo_folders(folders, tmp_path):
    """As `folders`, with three more images whose pseudo-labels count by the slice: those of slice z by z / 20."""
    write_store(tmp_path / "images", make_plan(), UNLABELLED)
    for seed, name in enumerate(UNLABELLED):
        _, labels = make_case(seed)
        weight = np.broadcast_to((np.arange(10) / 20)[:, None, None], labels.shape)
        locations = class_locations(labels, make_plan().labels, np.random.default_rng(0))
        write_pseudo_labels(tmp_path / "pseudo", labels, weight, StoredRecord(whole_trace(labels.shape, case=name)), locations)
    return dataclasses.replace(folders, unlabelled=tmp_path / "images", pseudo_labels=tmp_path / "pseudo")


def job_with(plan=None, **options):
    return dataclasses.replace(make_job(plan or make_plan(), **options), pseudo_labels=RECORDED)


def make(folders, job, stream=TRAINING):
    return BatchMaker(job, folders, job.split.train, stream=stream, device=CPU)


def test_their_share_of_the_patches_is_that_of_the_options(pseudo_folders):
    for share, low, high in ((0.0, 0, 0), (0.5, 0.3, 0.7), (1.0, 1, 1)):
        maker = make(pseudo_folders, job_with(pseudo_share=share))
        drawn = [case for number in range(30) for case in maker(number).cases]
        assert low <= np.mean([case in UNLABELLED for case in drawn]) <= high
        assert set(drawn) <= {*CASES[:2], *UNLABELLED}


def test_labelled_voxels_count_fully_and_others_by_their_weight(pseudo_folders):
    plain = make_plan(make_configuration(mirroring=Mirroring()))
    off = {"rotation_probability": 0.0, "scale_probability": 0.0}
    options = dataclasses.replace(make_job(plain).options.augmentation, **off)
    maker = make(pseudo_folders, job_with(plain, augmentation=options))
    batches = [maker(number) for number in range(12)]
    mixed = [batch for batch in batches if batch.weight is not None]
    assert len(mixed) < len(batches) or any(case not in UNLABELLED for batch in mixed for case in batch.cases)
    for batch in mixed:
        assert batch.weight.shape == batch.segmentation.shape and batch.weight.dtype == torch.float32
        for case, weight in zip(batch.cases, batch.weight, strict=True):
            if case in UNLABELLED:
                inside = weight[:, 0, 0][weight[:, 0, 0] < 1]  # beyond the image all is background for certain
                steps = inside.diff()
                torch.testing.assert_close(steps, torch.full_like(steps, 0.05), atol=1 / FULL, rtol=0)
            else:
                assert (weight == 1).all()
    assert all(batch.weight is None for batch in batches if not set(batch.cases) & set(UNLABELLED))


def test_weights_are_moved_as_the_image_and_by_nothing_else():
    image = torch.linspace(0, 1, 8).expand(1, 8, 8, 8).contiguous()
    maps = LabelMaps(torch.zeros(8, 8, 8, dtype=torch.int16), weight=image[0])
    turn = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))
    drawn = Augmentation((8, 8, 8), matrix=turn, flips=(1, 2), relabel=(0, 2, 1))
    moved, after = maps.augmented(drawn, image, masked=(False,))
    torch.testing.assert_close(after.weight, moved[0])
    loud = dataclasses.replace(drawn, noise_std=1.0, brightness=(2.0,), contrast=(2.0,), gamma=(2.0,))
    torch.testing.assert_close(maps.augmented(loud, image, masked=(False,))[1].weight, moved[0])


def test_what_changes_places_is_told_from_what_changes_values():
    places = {"patch_size", "planar", "matrix", "stretch", "elastic", "translation", "flips"}
    assert {one.name for one in dataclasses.fields(Augmentation)} - {*INTENSITIES, "noise_std", "noise_seed"} == places


def test_none_is_ever_in_a_validation_batch(pseudo_folders):
    job = job_with(pseudo_share=1.0)
    maker = BatchMaker(job, pseudo_folders, job.split.val, stream=VALIDATION, device=CPU)
    batches = [maker(number) for number in range(20)]
    assert {case for batch in batches for case in batch.cases} <= set(CASES[2:])
    assert all(batch.weight is None for batch in batches)


@pytest.mark.parametrize(("dim", "kind"), [(2, Trainer), (3, Trainer), (2, AdversarialTrainer)])
def test_a_run_that_is_killed_and_goes_on_has_the_undisturbed_weights(pseudo_folders, dim, kind):
    plan = make_plan(make_configuration(dim))
    job = dataclasses.replace(make_job(plan, "2d" if dim == 2 else "3d_fullres"), pseudo_labels=RECORDED, trainer=kind.__name__)
    if kind is AdversarialTrainer:
        job = dataclasses.replace(job, trainer_options={"discriminator_features": 2})
    runs = [elsewhere(pseudo_folders, name) for name in ("undisturbed", "killed", "without")]
    kind(job, runs[0], device=CPU, progress=False).fit()
    run_until_killed(kind(job, runs[1], device=CPU, progress=False), 5)
    kind(job, runs[1], device=CPU, progress=False).fit()
    kind(dataclasses.replace(job, pseudo_labels=None), runs[2], device=CPU, progress=False).fit()
    if kind is AdversarialTrainer:
        histories = [run.files.history_file.read_text() for run in runs[:2]]
        of_discriminator = [re.sub(r",[0-9.]+$", "", text, flags=re.M) for text in histories]
        assert of_discriminator[0] == of_discriminator[1]
    undisturbed, killed, without = map(weights, runs)
    assert equal(undisturbed, killed)
    assert not equal(undisturbed, without)


def test_a_network_learns_from_pseudo_labels_alone(pseudo_folders):
    job = job_with(pseudo_share=1.0, iterations=120, learning_rate=2e-2, validation_batches=4)
    trainer = Trainer(job, pseudo_folders, device=CPU, progress=False)
    trainer.fit()
    assert trainer.history.rows[-1]["mean_dice"] > 0.7


def test_a_case_with_a_label_map_is_refused_as_pseudo_labelled():
    with pytest.raises(ValueError, match="pseudo-labels: expected cases without label maps, found .*'a'"):
        dataclasses.replace(make_job(make_plan()), pseudo_labels=dataclasses.replace(RECORDED, cases={"a": "identity"}))


class TestDiscriminator:
    @pytest.fixture
    def trainer(self, pseudo_folders):
        job = dataclasses.replace(job_with(), trainer="AdversarialTrainer", trainer_options={"discriminator_features": 2})
        return AdversarialTrainer(job, pseudo_folders, device=CPU, progress=False)

    def batch(self, trainer, cases):
        batch = make(trainer.folders, trainer.job)(0)
        return dataclasses.replace(batch, cases=cases, weight=torch.full(batch.segmentation.shape, 0.5))

    def test_takes_no_pseudo_label_for_a_real_map(self, trainer, monkeypatch):
        seen = []
        train = trainer._train_discriminator
        monkeypatch.setattr(trainer, "_train_discriminator", lambda *arrays: seen.append(arrays) or train(*arrays))
        batch = self.batch(trainer, ("u1", "a"))
        values = trainer.step(batch)
        ((image, real, fake),) = seen
        assert torch.equal(image, batch.image[1:])
        assert len(real) == len(fake) == 1
        assert real.argmax(1).equal(batch.segmentation[1:].clamp(min=0).long())
        assert values["score_real"] is not None

    def test_stands_still_in_a_batch_of_pseudo_labels_from_which_the_network_learns(self, trainer):
        before = [{name: tensor.clone() for name, tensor in one.state_dict().items()} for one in (trainer.discriminator, trainer.network)]
        values = trainer.step(self.batch(trainer, ("u1", "u0")))
        weights_of = [name for name, _ in trainer.discriminator.named_parameters()]
        assert all(torch.equal(before[0][name], trainer.discriminator.state_dict()[name]) for name in weights_of)
        assert not equal(before[1], trainer.network.state_dict())
        assert [name for name, value in values.items() if value is None] == ["discriminator_loss", "score_real", "score_fake"]

    def test_voxels_count_by_their_weight(self, trainer):
        batch = self.batch(trainer, ("u1", "u0"))
        outputs = trainer.network(batch.image)
        loss = trainer.step(batch)["train_loss"]
        expected = trainer.loss(outputs, batch.segmentation, batch.annotated, batch.weight)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-2, atol=1e-2)
        nothing = dataclasses.replace(batch, weight=torch.zeros_like(batch.weight))
        assert trainer.step(nothing)["train_loss"] < loss
