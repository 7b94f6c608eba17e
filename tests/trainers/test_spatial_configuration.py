"""The SpatialConfiguration-Net and its locator: two networks in one run and one checkpoint, and prediction with little memory."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import CASES, ORGANS, REGIONS, SHAPE, make_case, make_configuration, make_geometry, make_job, make_plan, write_store
from trainer_runs import equal, weights

from autoseg.inference.localisation import LocatedPredictor, _resized, region_around
from autoseg.inference.low_memory import LowMemoryPredictor
from autoseg.inference.predictor import Predictor
from autoseg.inference.trained_model import InferenceOptions, load_model
from autoseg.inference.volume_predictor import Volume
from autoseg.preprocessing.cropping import bounding_box
from autoseg.preprocessing.storage import Store, StoredRecord
from autoseg.runtime.checkpoints import load_checkpoint
from autoseg.runtime.runs import FINAL_CHECKPOINT
from autoseg.runtime.serialization import write_json
from autoseg.schema import Budget, Configuration, Image, Locator, Mirroring, Split
from autoseg.schema.run_record import RunRecord
from autoseg.schema.training_options import AugmentationOptions
from autoseg.trainers.augmentation.augment import Augmentation, apply, draw
from autoseg.trainers.batches import TRAINING, VALIDATION
from autoseg.trainers.losses.heatmap import sigmoid_cross_entropy
from autoseg.trainers.run_options import RunFolders, default_options
from autoseg.trainers.spatial_configuration import locator_training
from autoseg.trainers.spatial_configuration.coarse_cases import FOREGROUND, prepare_coarse
from autoseg.trainers.spatial_configuration.locator_training import locator_augmentation
from autoseg.trainers.spatial_configuration.regions import RegionBatches, zoomed
from autoseg.trainers.spatial_configuration.trainer import SpatialConfigurationTrainer
from autoseg.trainers.step_cost import _random_batch

CPU = torch.device("cpu")
SMALL = {"features": 6, "levels": 2, "spatial_features": 4, "spatial_levels": 2, "downsampling": 2, "dropout": 0.0}
LOCATOR = {"features": 6, "levels": 2, "dropout": 0.0}
pytestmark = pytest.mark.usefixtures("no_pictures")


def small(**changes) -> Configuration:
    return make_configuration(network="scn", network_options=SMALL, **changes)


def a_job(*, iterations: int = 8, validation_intervals: int = 2, options: dict | None = None, **training) -> RunRecord:
    job = make_job(
        make_plan(small()), iterations=iterations, validation_intervals=validation_intervals, loss="generalised_dice", **training
    )
    chosen = {"localisation_share": 0.5, "margin": 2, "locator_options": LOCATOR, "whole_region": False} | (options or {})
    job = dataclasses.replace(job, trainer="SpatialConfigurationTrainer", trainer_options=chosen)
    return dataclasses.replace(job, configuration=SpatialConfigurationTrainer.configure(job.configuration, job.plan, chosen))


def trainer_of(job: RunRecord, folders: RunFolders) -> SpatialConfigurationTrainer:
    return SpatialConfigurationTrainer(job, folders, device=CPU, progress=False)


class TestConfigure:
    def test_the_network_multiples_of_32_and_a_locator(self):
        planned = make_configuration(patch_size=(28, 80, 96), median_shape=(30, 200, 240), spacing=(4.0, 1.0, 1.0))
        chosen = SpatialConfigurationTrainer.configure(
            planned, make_plan(planned), {"margin": 8, "locator_options": {"features": 16}, "whole_region": False}
        )
        assert (chosen.network, chosen.network_options) == ("scn", {})
        assert (chosen.patch_size, chosen.patch_multiple) == ((28, 64, 96), (28, 32, 32))
        assert (chosen.locator.spacing, chosen.locator.margin, chosen.locator.network_options) == ((6.0,) * 3, 8, {"features": 16})
        assert a_job().configuration.network_options == SMALL, "the user's stay"

    def test_slices_and_a_share_of_zero_have_no_locator(self):
        plane = make_configuration(2)
        assert SpatialConfigurationTrainer.configure(plane, make_plan(plane), {}).locator is None
        assert a_job(options={"localisation_share": 0}).configuration.locator is None

    def test_overlapping_regions_and_other_networks_are_refused(self):
        vnet = make_configuration(network="vnet", network_options={}, patch_multiple=(2, 2, 2))
        for configuration, labels, message in ((make_configuration(), REGIONS, "exclude each other"), (vnet, ORGANS, "'scn', got 'vnet'")):
            with pytest.raises(ValueError, match=message):
                SpatialConfigurationTrainer.configure(configuration, make_plan(labels=labels), {})

    def test_the_grid_follows_the_largest_case_of_all(self, folders):
        write_store(folders.data, make_plan(), ["large"], shape=(20, 40, 64))
        job = SpatialConfigurationTrainer.fit_to_data(a_job(), folders)
        assert job.configuration.locator.spacing == (2.0, 2.0, 2.0)
        assert job.configuration.locator.shape == (16, 32, 32)

    def test_a_fold_takes_over_the_locator_of_the_others_and_no_other_kind(self, folders):
        first = SpatialConfigurationTrainer.fit_to_data(a_job(), folders)
        other = dataclasses.replace(folders, run=folders.run.with_name("fold_9"))
        write_json(folders.run.with_name("fold_0") / "run.json", first)
        write_store(folders.data, make_plan(), ["large"], shape=(20, 40, 64))
        assert SpatialConfigurationTrainer.fit_to_data(a_job(), other).configuration.locator == first.configuration.locator
        wider = dataclasses.replace(a_job(), trainer_options={**a_job().trainer_options, "margin": 3})
        with pytest.raises(
            ValueError, match="expected --trainer-option margin=2 as in the model's other folds, got --trainer-option margin=3"
        ):
            SpatialConfigurationTrainer.fit_to_data(wider, other)

    def test_a_long_run_gets_the_papers_optimisation_and_any_the_papers_loss(self):
        long, short = (Budget("iterations", steps, 10) for steps in (100_000, 500))
        suited = SpatialConfigurationTrainer.suited_options
        chosen = default_options(long, "cuda", batch=2, suited=suited)
        assert (chosen.optimizer, chosen.learning_rate, chosen.average_decay) == ("adam", 1e-4, 0.999)
        assert chosen.loss == "generalised_dice"
        assert default_options(short, "cuda", batch=2, suited=suited) == dataclasses.replace(
            default_options(short, "cuda", batch=2), loss="generalised_dice"
        )
        assert default_options(long, "cuda", batch=2, suited=suited, changes={"loss": "dice"}).loss == "dice"


class TestWholeRegions:
    def job(self, *, augmentation: AugmentationOptions | None = None, **options) -> RunRecord:
        training = {} if augmentation is None else {"augmentation": augmentation}
        return a_job(options={"whole_region": True, "margin": 1} | options, **training)

    def test_it_is_the_default_and_the_papers_largest_input_or_the_median_image(self):
        planned = make_configuration(patch_size=(28, 80, 96), median_shape=(30, 200, 240), spacing=(4.0, 1.0, 1.0), batch_size=4)
        chosen = SpatialConfigurationTrainer.configure(planned, make_plan(planned), {})
        assert (chosen.patch_size, chosen.patch_multiple, chosen.batch_size) == ((32, 128, 160), (32, 32, 32), 1)
        assert chosen.locator.whole
        second = make_configuration(name="3d_cascade", previous_stage="3d_lowres")
        assert not SpatialConfigurationTrainer.configure(second, make_plan(second), {}).locator.whole, "its organs are of tiles"

    def test_a_sample_is_the_region_around_the_reference(self, folders):
        job = self.job()
        make = RegionBatches(job, folders, "abcd", stream=VALIDATION, device=CPU).prepared()
        image, labels = make_case(0)
        region = make.regions["a"]
        around = bounding_box(labels > 0)
        assert region.box == region_around(around, SHAPE, 1, (32, 32, 32)) == tuple((0, n) for n in SHAPE), (
            "32 voxels, where there are so many"
        )
        for number in range(4):
            batch = make(number)
            stored = make.cases[batch.cases[0]]
            assert torch.equal(batch.image[0], torch.from_numpy(np.asarray(stored.image[:])))
            assert np.array_equal(batch.segmentation[0], np.asarray(stored.segmentation[:]))

    def test_a_region_is_cut_out_where_the_image_is_larger(self, tmp_path):
        store = write_store(tmp_path / "data", make_plan(), ["a"], shape=(40, 70, 60))
        stored = store.load("a")
        image, labels = np.asarray(stored.image[:]), np.zeros((40, 70, 60), np.int16)
        labels[4:10, 20:60, 30:34] = 1
        store.write("a", image, labels, stored.trace, {})
        job = dataclasses.replace(self.job(), configuration=dataclasses.replace(self.job().configuration, patch_size=(64, 64, 64)))
        make = RegionBatches(job, RunFolders(tmp_path / "run", tmp_path / "data"), ["a"], stream=VALIDATION, device=CPU).prepared()
        assert make.regions["a"].box == ((0, 32), (19, 61), (16, 48))
        batch = make(0)
        assert np.array_equal(batch.image[0], image[:, 0:32, 19:61, 16:48])
        assert np.array_equal(batch.segmentation[0], labels[0:32, 19:61, 16:48])

    def test_a_region_that_is_too_large_is_coarser_as_in_prediction(self, tmp_path):
        store = write_store(tmp_path / "data", make_plan(), ["a"], shape=(40, 70, 60))
        stored = store.load("a")
        ramp = sum(
            np.arange(n, dtype=np.float32).reshape([-1 if axis == k else 1 for k in range(3)]) for axis, n in enumerate((40, 70, 60))
        )
        labels = np.zeros((40, 70, 60), np.int16)
        labels[4:10, 20:60, 30:34] = 1
        store.write("a", ramp[None], labels, stored.trace, {})
        job = dataclasses.replace(self.job(), configuration=dataclasses.replace(self.job().configuration, patch_size=(32, 21, 32)))
        make = RegionBatches(job, RunFolders(tmp_path / "run", tmp_path / "data"), ["a"], stream=VALIDATION, device=CPU).prepared()
        assert make.regions["a"].shape == (16, 21, 16)
        batch = make(0)
        expected = _resized(ramp[None, 0:32, 19:61, 16:48], (16, 21, 16))
        torch.testing.assert_close(batch.image[0], torch.from_numpy(expected), rtol=1e-5, atol=1e-3)
        assert (batch.segmentation == 1).sum() == pytest.approx((labels == 1).sum() / 8, rel=0.1)

    def test_a_region_with_larger_voxels_is_moved_and_deformed_as_far_in_mm(self, tmp_path):
        store = write_store(tmp_path / "data", make_plan(), ["a"], shape=(40, 70, 60))
        stored = store.load("a")
        labels = np.zeros((40, 70, 60), np.int16)
        labels[4:10, 20:60, 30:34] = 1
        store.write("a", np.asarray(stored.image[:]), labels, stored.trace, {})
        moves = AugmentationOptions(translation_probability=1.0, translation_voxels=6.0, translation_share=0.0, elastic_probability=1.0)
        job = self.job(augmentation=dataclasses.replace(moves, rotation_probability=0, scale_probability=0))
        for patch, zoom in (((32, 64, 32), 1), ((32, 21, 32), 2)):
            one = dataclasses.replace(job, configuration=dataclasses.replace(job.configuration, patch_size=patch))
            make = RegionBatches(one, RunFolders(tmp_path / "run", tmp_path / "data"), ["a"], stream=TRAINING, device=CPU).prepared()
            region, shifts, bends = make.regions["a"], [], []
            assert region.zoom == (zoom,) * 3
            for seed in range(60):
                drawn, sample = make.place(np.random.default_rng(seed), lambda: "a", foreground=False)
                shifts += [(sum(read) - sum(box)) / 2 for read, box in zip(sample.box, region.box, strict=True)]
                bends.append(zoom * np.abs(drawn.elastic.displacements()).max())
            assert 5 <= max(np.abs(shifts)) <= 6.5
            assert 3.5 < max(bends) <= 4, "at most 4 voxels of the volume"

    def test_augmented_regions_keep_their_size_and_surroundings(self, folders):
        make = RegionBatches(self.job(), folders, "ab", stream=TRAINING, device=CPU).prepared()
        shapes = {tuple(make(number).image.shape[2:]) for number in range(6)}
        assert shapes == {SHAPE}

    def test_deformations_are_those_of_the_region_before_it_is_made_finer(self):
        """A region that was halved: what the augmentation reads in it, it reads at twice the distance in the image."""
        options = AugmentationOptions(elastic_probability=1, distortion_probability=1, rotation_probability=1, planar_rotation_degrees=10)
        for size in ((16, 16, 16), (4, 16, 16)):
            drawn = draw(np.random.default_rng(0), options, patch_size=size, channels=1, mirroring=Mirroring(), labels=ORGANS)
            assert drawn.planar == (size[0] == 4)
            ramp = torch.arange(64.0).reshape(1, 1, 1, 64).expand(1, 64, 64, 64)
            labels = torch.zeros(64, 64, 64, dtype=torch.int16)
            usual, _ = apply(
                Augmentation(size, planar=drawn.planar, matrix=drawn.matrix, stretch=drawn.stretch, elastic=drawn.elastic), ramp, labels
            )
            twice = zoomed(drawn, (2.0, 2.0, 2.0))
            found, _ = apply(Augmentation(size, matrix=twice.matrix, stretch=twice.stretch, elastic=twice.elastic), ramp, labels)
            torch.testing.assert_close(found - 31.5, 2 * (usual - 31.5), rtol=1e-3, atol=1e-2)
        assert zoomed(drawn, (1.0, 1.0, 1.0)) == drawn

    def test_regions_of_several_sizes_are_padded_to_one_batch(self, folders):
        make = RegionBatches(self.job(), folders, "ab", stream=VALIDATION, device=CPU)
        stacked = make.stack([torch.ones(2, 3, 4, 5), torch.ones(2, 4, 4, 3)])
        assert stacked.shape == (2, 2, 4, 4, 5)
        assert stacked.sum() == 2 * (60 + 48)

    def test_the_network_learns_from_whole_regions(self, folders, caplog):
        trainer = trainer_of(self.job(), folders)
        with caplog.at_level(logging.INFO):
            network = trainer.fit()
        assert "50 % of the steps also train the network that locates the organs" in caplog.text
        logits = trainer.predictor(network).logits(Volume(make_case(2)[0], case="c"))
        assert logits.shape == (3, *SHAPE)


class TestLoss:
    def test_the_mean_over_labels_and_voxels(self):
        logits = torch.randn(1, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
        segmentation = torch.tensor([0, 1, 2, 0, 0, 1, 2, 2], dtype=torch.int16).reshape(1, 2, 2, 2)
        truth = torch.stack([segmentation == value for value in range(3)], 1).double()
        share = logits.double().sigmoid()
        expected = -(truth * share.log() + (1 - truth) * (1 - share).log()).mean()
        assert float(sigmoid_cross_entropy(logits, segmentation, ORGANS)) == pytest.approx(float(expected))

    def test_ignored_voxels_and_unknown_organs_do_not_count(self):
        ignoring = dataclasses.replace(ORGANS, ignore=9)
        segmentation = torch.tensor([0, 1, 3, 3], dtype=torch.int16).reshape(1, 1, 2, 2)
        logits = torch.randn(1, 3, 1, 2, 2, generator=torch.Generator().manual_seed(1))
        changed = torch.where(segmentation[:, None] == 3, logits + 5, logits)
        assert float(sigmoid_cross_entropy(logits, segmentation, ignoring)) == float(sigmoid_cross_entropy(changed, segmentation, ignoring))
        partly = logits.clone().requires_grad_()
        sigmoid_cross_entropy(partly, segmentation.clamp(max=1), ORGANS, ((0,),)).backward()
        counts = partly.grad[0].flatten(1) != 0
        assert counts[2].tolist() == [False] * 4, "nobody looked for blocks"
        assert counts[1].tolist() == [True] * 4
        assert counts[0].tolist() == [False, True, True, True], "what is no ball may be a block"


class TestCoarseCases:
    def test_all_organs_are_one_and_what_is_right_is_kept(self, folders):
        job = a_job()
        prepare = partial(prepare_coarse, folders.run.parent, folders.data, CASES, job.plan, progress=False)
        out = prepare(configuration=job.configuration)
        assert out == folders.run.parent / "coarse_on_data"
        with np.load(out / "a.npz") as case:
            image, labels = make_case(0)
            assert np.array_equal(case["labels"], labels > 0)
            assert np.array_equal(case["image"], image)
        before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
        prepare(configuration=job.configuration)
        assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
        coarser = dataclasses.replace(job.configuration, locator=Locator((2.0,) * 3, (16, 16, 16), 1.0))
        prepare(configuration=coarser)
        with np.load(out / "a.npz") as case:
            assert case["image"].shape == (1, 5, 7, 8)
            assert set(np.unique(case["labels"])) == {0, 1}

    def test_what_nobody_annotated_is_no_background(self, folders):
        plan = make_plan(small(), labels=dataclasses.replace(ORGANS, ignore=9))
        store = write_store(folders.data, plan, ["e"])
        image, labels = make_case(0)
        labels[0] = 3
        store.write("e", image, labels, store.load("e").trace, {})
        out = prepare_coarse(folders.run.parent, folders.data, ["e"], plan, a_job().configuration, progress=False)
        with np.load(out / "e.npz") as case:
            assert (case["labels"][0] == FOREGROUND.internal_ignore).all()
            assert set(np.unique(case["labels"][1:])) == {0, 1}

    def test_organs_nobody_annotated_may_be_anywhere_in_the_background(self, folders):
        store, job = Store(folders.data), a_job()
        image, labels = make_case(0)
        only_balls = np.where(labels == 1, labels, 0).astype(np.int16)

        def coarse_labels(array: np.ndarray, annotated: tuple[str, ...] | None) -> np.ndarray:
            trace = store.load("a").trace
            coarse = folders.run.parent / "coarse_on_data" / "a.npz"
            store.write("a", image, array, StoredRecord(trace, annotated=annotated), {})
            os.utime(store.trace_path("a"), (0, 0))  # so that not its age tells that the coarse file is of no use any more
            prepare_coarse(folders.run.parent, folders.data, CASES, job.plan, job.configuration, progress=False)
            with np.load(coarse) as case:
                return case["labels"]

        assert np.array_equal(coarse_labels(labels, None), labels > 0)
        assert np.array_equal(coarse_labels(only_balls, ("ball",)), np.where(labels == 1, 1, FOREGROUND.internal_ignore))
        assert np.array_equal(coarse_labels(labels, ("ball + block",)), labels > 0), "where their union is not, there is none of them"
        assert np.array_equal(coarse_labels(labels, None), labels > 0)

    def test_a_case_in_which_no_organ_of_the_model_was_annotated_is_left_out(self, folders):
        store, job = Store(folders.data), a_job()
        first, second = sorted(job.split.train)[:2]
        image, labels = make_case(0)
        for name, annotated in ((first, ("spleen",)), (second, ("ball",))):
            record = StoredRecord(store.load(name).trace, annotated=annotated)
            store.write(name, image, np.where(labels == 1, labels, 0).astype(np.int16), record)
        stale = folders.run.parent / "coarse_on_data" / f"{first}.npz"
        stale.parent.mkdir(parents=True)
        stale.write_bytes(b"of before")
        trainer = trainer_of(job, folders)
        trainer.prepare()
        assert [path.stem for path in trainer.locator.cases.values()] == [second]


class TestAugmentation:
    def test_deformations_are_as_large_in_mm_as_in_patches_and_volumes_are_translated(self):
        configuration = make_configuration(spacing=(2.0, 2.0, 2.0), locator=Locator((6.0,) * 3, (64, 80, 80), 3.0))
        options = AugmentationOptions(elastic_probability=1.0, elastic_voxels=7.5, elastic_spacing=30.0, translation_voxels=99.0)
        chosen = locator_augmentation(options, configuration, translation=20.0)
        assert (chosen.elastic_voxels, chosen.elastic_spacing) == (pytest.approx(2.5), pytest.approx(10.0))
        assert (chosen.translation_probability, chosen.translation_voxels, chosen.translation_share) == (1.0, pytest.approx(20 / 6), 0.0)
        assert locator_augmentation(options, configuration, translation=0.0).translation_probability == 0
        tiny = dataclasses.replace(configuration, locator=Locator((2.0,) * 3, (16, 32, 32), 1.0))
        assert locator_augmentation(options, tiny, translation=20.0).translation_voxels == pytest.approx(1.6), "a tenth of a small volume"

    def test_image_and_organs_of_the_locator_are_moved_together_and_not_flipped(self, folders):
        names = ("rotation", "scale", "noise", "blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma")
        job = a_job(augmentation=AugmentationOptions(**{f"{name}_probability": 0.0 for name in names}, mirror_probability=1.0))
        locator = dataclasses.replace(job.configuration.locator, shape=(32, 32, 32))
        trainer = trainer_of(dataclasses.replace(job, configuration=dataclasses.replace(job.configuration, locator=locator)), folders)
        trainer.prepare()
        coarse = next(iter(trainer.locator.cases.values())).parent
        trainer.locator.learn_from(coarse, sorted(job.split.train)[:1])
        with np.load(trainer.locator.cases[sorted(job.split.train)[0]]) as case:
            stored = np.pad(case["image"][0], 3), np.pad(case["labels"], 3)
        found = set()
        for number in range(10):
            image, labels = (one.numpy().squeeze() for one in trainer.locator._sample(number))
            shifts = [
                shift
                for shift in itertools.product(range(7), repeat=3)
                if np.array_equal(image, stored[0][tuple(slice(n, n + size) for n, size in zip(shift, image.shape, strict=True))])
            ]
            assert len(shifts) == 1
            part = tuple(slice(n, n + size) for n, size in zip(shifts[0], image.shape, strict=True))
            assert np.array_equal(labels, stored[1][part])
            found.add(shifts[0])
        assert len(found) > 5


class TestTraining:
    def test_both_networks_learn_in_one_run(self, folders):
        job = a_job(iterations=120, validation_intervals=4, average_decay=0.9)
        trainer = trainer_of(job, folders)
        network = trainer.fit()
        rows = trainer.history.rows
        assert rows[-1]["train_loss"] < 0.7 * rows[0]["train_loss"]
        assert rows[-1]["localisation_loss"] < 0.7 * rows[0]["localisation_loss"]
        assert rows[-1]["mean_dice"] > max(0.4, rows[0]["mean_dice"])
        image, labels = make_case(2)
        box = trainer.predictor(network).localiser.box(image)
        inside = np.zeros(labels.shape, bool)
        inside[tuple(slice(*side) for side in box)] = True
        assert (inside & (labels > 0)).sum() > 0.95 * (labels > 0).sum()
        assert set(load_checkpoint(folders.run / FINAL_CHECKPOINT)[0]) == {"network", "locator"}
        again = trainer_of(job, folders)
        again.fit()
        assert equal(again.locator.optimized.final.state_dict(), weights(folders, "locator"))

    def test_the_share_of_steps_that_locate_is_spread_evenly(self, folders, monkeypatch):
        trainer = trainer_of(a_job(options={"localisation_share": 0.2}), folders)
        asked = []
        monkeypatch.setattr(trainer.locator, "step", lambda number, rate: asked.append(number))
        batch = _random_batch(trainer.job, CPU)
        for number in range(21):
            trainer.iteration = number
            trainer.step(batch)
        assert asked == [0, 5, 10, 15, 20]

    @pytest.mark.parametrize(("sampling", "shares"), [("cases", (0.75, 0.25)), ("datasets", (0.5, 0.5)), ("rare_organs", (0.3, 0.7))])
    def test_the_locator_draws_cases_as_the_options_say(self, folders, sampling, shares, monkeypatch):
        job = a_job(case_sampling=sampling)
        names = ("a", "b", "c", "d")
        sources, weights = dict(zip(names, "1112", strict=True)), dict(zip(names, (1.0, 1.0, 1.0, 7.0), strict=True))
        job = dataclasses.replace(job, split=Split(names, ()), sources=sources, case_weights=weights)
        trainer, shown = trainer_of(job, folders), []
        trainer.prepare()
        read = locator_training.open_arrays
        monkeypatch.setattr(locator_training, "open_arrays", lambda path: shown.append(path.stem) or read(path))
        for step in range(200):
            trainer.locator.steps = step
            trainer.locator._sample(5 * step)
        of_second = shown.count("d") / len(shown)
        assert of_second == pytest.approx(shares[1], abs=1e-9 if sampling == "datasets" else 0.08)
        assert min(shown.count(name) for name in names) > 0.05 * len(shown)

    def test_a_trial_needs_no_files(self, tmp_path):
        nowhere = RunFolders(tmp_path, tmp_path)
        trainer = trainer_of(a_job(), nowhere)
        values = trainer.step(_random_batch(trainer.job, CPU))
        assert set(values) == {"train_loss", "localisation_loss"}
        assert all(torch.isfinite(value) for value in values.values())

    def test_slices_train_without_locator(self, folders):
        plan = make_plan(make_configuration(2, network="scn", network_options=SMALL))
        job = dataclasses.replace(make_job(plan, "2d"), trainer="SpatialConfigurationTrainer")
        job = dataclasses.replace(job, configuration=SpatialConfigurationTrainer.configure(job.configuration, plan, {}))
        trainer = trainer_of(job, folders)
        assert isinstance(trainer.predictor(trainer.fit()), Predictor)
        assert set(load_checkpoint(folders.run / FINAL_CHECKPOINT)[0]) == {"network"}


class TestTrainedModel:
    @pytest.fixture(scope="class")
    def results(self, tmp_path_factory) -> Path:
        """Two folds of one model, trained for a moment."""
        root = tmp_path_factory.mktemp("results")
        data = write_store(root / "data", make_plan()).folder
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("autoseg.trainers.history.plot_history", lambda rows, path: path.touch())
            for fold in "01":
                job = dataclasses.replace(a_job(iterations=16, validation_intervals=1), fold=fold, seed=int(fold))
                run = root / "3d_fullres__SpatialConfigurationTrainer" / f"fold_{fold}"
                write_json(run / "run.json", job)
                trainer_of(job, RunFolders(run, data)).fit()
        return root / "3d_fullres__SpatialConfigurationTrainer"

    def test_prediction_needs_no_trainer_and_gives_the_same_with_little_memory(self, results, monkeypatch, caplog):
        model = load_model(results, CPU, InferenceOptions(mirror=False))
        assert isinstance(model.predictor, LocatedPredictor)
        assert len(model.predictor.localiser.networks) == 2
        image = Image(make_case(3)[0], make_geometry(SHAPE))
        with caplog.at_level(logging.DEBUG, logger="autoseg"):
            usual = model.logits(image, case="c")
        assert usual.array.shape == (3, *SHAPE)
        assert "c: organs located in" in caplog.text or "no organ was located" in caplog.text
        model = load_model(results, CPU, InferenceOptions(mirror=False, low_memory=True))
        inner = model.predictor.predictor
        assert isinstance(inner, LowMemoryPredictor)
        held, shares, original = [], [], Predictor.__init__

        def watched(self, networks, *rest, **options):
            held.append((len(networks), networks[0].low_memory, options["batch"]))
            original(self, networks, *rest, **options)

        monkeypatch.setattr(Predictor, "__init__", watched)
        found = model.logits(image, progress=shares.append)
        assert held == [(1, True, 1)] * 2
        assert sum(shares) == pytest.approx(1)
        expected, probabilities = (torch.as_tensor(one.array).float().softmax(0) for one in (usual, found))
        torch.testing.assert_close(probabilities, expected, atol=0.02, rtol=0)


def test_fine_tuning_takes_over_the_locator_too(folders, tmp_path, caplog):
    first = a_job(iterations=4)
    trainer_of(first, folders).fit()
    source = folders.run / FINAL_CHECKPOINT
    second = dataclasses.replace(first, pretrained=source, seed=first.seed + 1)
    trainer = trainer_of(second, dataclasses.replace(folders, run=tmp_path / "second"))
    with caplog.at_level(logging.INFO):
        trainer.restore()
    for network in (trainer.locator.network, trainer.locator.optimized.final):
        assert equal(network.state_dict(), weights(folders, "locator"))
    assert "weights of the locator" in caplog.text


@pytest.mark.parametrize(("share", "kinds"), [(0.2, {0: 0.2, 1: 0.8}), (0.9, {0: 0.9, 9: 0.1}), (1.0, {0: 1.0})])
def test_what_a_step_costs_is_measured_with_and_without_the_locator(folders, share, kinds):
    trainer = trainer_of(a_job(options={"localisation_share": share}), folders)
    assert trainer.step_kinds == pytest.approx(kinds)
    for number in kinds:
        trained = trainer.locator.steps
        trainer.iteration = number
        trainer.step(_random_batch(trainer.job, CPU))
        assert (trainer.locator.steps > trained) == (number == 0)
