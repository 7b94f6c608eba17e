"""The coarse-to-fine cascade: patches, loss and prediction inside the candidate region, and how its radius is chosen."""

from __future__ import annotations

import dataclasses
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from factories import ORGANS, SHAPE, make_configuration, make_job, make_plan

from autoseg.inference.candidate_region_mask import body_mask, dilated
from autoseg.preprocessing.storage import Locations, Store, StoredRecord, read_array
from autoseg.runtime.sealing import is_edited
from autoseg.runtime.serialization import read_json, write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import CandidateRegion
from autoseg.schema.conventions import ANNOTATED
from autoseg.schema.run_record import RunRecord
from autoseg.schema.training_options import AugmentationOptions
from autoseg.trainers.batches import TRAINING, VALIDATION, BatchMaker
from autoseg.trainers.cascade import trainer as cascade
from autoseg.trainers.cascade.candidate_region import CandidateRegionChoice
from autoseg.trainers.cascade.planned_region import record_candidate_region
from autoseg.trainers.cascade.region_masks import mark_outside, prepare_regions, with_ignore
from autoseg.trainers.cascade.trainer import CANDIDATE_REGION, CascadeTrainer
from autoseg.trainers.patch_sampling import draw_sample
from autoseg.trainers.run_options import RunFolders

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("no_pictures")


def first(**options) -> RunRecord:
    """A job of the first stage, with options of the trainer."""
    return configured(make_job(make_plan()), options)


def second(**options) -> RunRecord:
    """A job of the second stage."""
    return configured(make_job(make_plan(make_configuration(name="3d_cascade", previous_stage="3d_lowres")), "3d_cascade"), options)


def configured(job: RunRecord, options: dict) -> RunRecord:
    configuration = CascadeTrainer.configure(job.configuration, job.plan, options)
    return dataclasses.replace(job, trainer="CascadeTrainer", trainer_options=options, configuration=configuration)


def with_regions(job: RunRecord, folders: RunFolders) -> RunFolders:
    return dataclasses.replace(folders, region=prepare_regions(job, folders, progress=False))


@pytest.mark.parametrize(
    ("job", "region", "sees_previous"),
    [
        (first(), CandidateRegion("body"), False),
        (first(region=False), None, False),
        (second(), CandidateRegion("previous", 3), True),
        (second(previous_input=False, radius=5), CandidateRegion("previous", 5), False),
        (second(region=False), None, True),
    ],
)
def test_stages_see_the_body_or_what_the_first_found_and_each_part_can_be_switched_off(job, region, sees_previous):
    assert (job.configuration.region, job.configuration.sees_previous) == (region, sees_previous)


class TestRadius:
    def begin(self, job: RunRecord, folders: RunFolders) -> RunRecord:
        job = CascadeTrainer.fit_to_data(job, folders)
        write_json(folders.run / "run.json", job)
        return job

    @pytest.fixture
    def run(self, cascade_folders, tmp_path) -> RunFolders:
        return dataclasses.replace(cascade_folders, run=tmp_path / "3d_cascade__CascadeTrainer" / "fold_0")

    def test_it_is_chosen_from_the_first_stage_and_written_down_and_taken_over_by_other_folds(self, run, caplog, monkeypatch):
        with caplog.at_level(logging.INFO):
            job = self.begin(second(), run)
        assert job.configuration.region == CandidateRegion("previous", 0), "this first stage is right everywhere"
        assert "Candidate region: radius 0, the smallest with more than 99% of each organ inside" in caplog.text
        kept = read_json(run.run.parent / CANDIDATE_REGION, CandidateRegionChoice)
        assert (kept.radius, len(kept.rows)) == (0, 11)
        assert (run.run.parent / "candidate_region.png").read_bytes()[:4] == b"\x89PNG"
        monkeypatch.setattr(cascade, "choose_candidate_region", None)
        other = dataclasses.replace(run, run=run.run.with_name("fold_1"))
        assert self.begin(second(), other).configuration.region == CandidateRegion("previous", 0)

    def test_a_radius_that_was_asked_for_is_taken_but_not_beside_folds_with_another(self, run):
        assert self.begin(second(radius=2), run).configuration.region == CandidateRegion("previous", 2)
        assert read_json(run.run.parent / CANDIDATE_REGION, CandidateRegionChoice).why == "as asked"
        other = dataclasses.replace(run, run=run.run.with_name("fold_1"))
        assert self.begin(second(), other).configuration.region == CandidateRegion("previous", 2)
        for options in ({"radius": 4}, {"region": False}, {"previous_input": False}):
            with pytest.raises(ValueError, match="as in the model's other folds"):
                CascadeTrainer.fit_to_data(second(**options), dataclasses.replace(run, run=run.run.with_name("fold_2")))

    def test_a_first_stage_has_nothing_to_choose(self, run):
        job = first()
        assert CascadeTrainer.fit_to_data(job, run) == job
        assert not (run.run.parent / CANDIDATE_REGION).exists()


class TestClassWeights:
    """Roth et al., equation 3: classes are counted in the candidate region, not in the patch that is drawn from it."""

    def weighted(self, job: RunRecord, **options: Any) -> RunRecord:
        return dataclasses.replace(job, options=dataclasses.replace(job.options, loss="weighted_ce", **options))

    def test_they_are_counted_in_the_regions_of_the_training_cases(self, cascade_folders, caplog):
        with caplog.at_level(logging.INFO):
            job = CascadeTrainer.fit_to_data(self.weighted(second(radius=1)), cascade_folders)
        shares = []
        for name in job.split.train:
            labels = np.asarray(Store(cascade_folders.data).load(name).segmentation[:])
            counts = np.bincount(labels[dilated(labels > 0, 1)], minlength=3)
            shares.append(counts / counts.sum())
        assert job.options.class_weights == pytest.approx((1 - np.mean(shares, axis=0)) / 2)
        assert sum(job.options.class_weights) == pytest.approx(1)
        assert "weighted_ce: the classes weigh, by their shares of the candidate regions, background 0." in caplog.text

    def test_a_patch_of_background_alone_counts(self, folders):
        job = CascadeTrainer.fit_to_data(self.weighted(first()), folders)
        trainer = CascadeTrainer(job, folders, device=CPU, progress=False)
        logits = torch.zeros(1, 3, 2, 2, 2, requires_grad=True)
        trainer.loss(logits, torch.zeros(1, 2, 2, 2, dtype=torch.int16)).backward()
        assert (logits.grad[:, 0] < -0.001).all()

    def test_what_the_user_gave_stays_and_other_losses_get_none(self, folders):
        given = self.weighted(first(), class_weights=(0.2, 0.8))
        for job in (given, first(), self.weighted(first(region=False))):
            assert CascadeTrainer.fit_to_data(job, folders).options == job.options

    def test_cases_with_some_organs_annotated_are_left_out(self, folders, caplog):
        job, store = self.weighted(first()), Store(folders.data)
        whole = CascadeTrainer.fit_to_data(job, folders).options.class_weights
        for name, expected in zip(job.split.train, (False, True), strict=True):
            stored = store.load(name)
            record = StoredRecord(stored.trace, annotated=("ball",))
            store.write(name, np.asarray(stored.image[:]), np.asarray(stored.segmentation[:]), record)
            options = CascadeTrainer.fit_to_data(job, folders).options
            assert options.class_weights != whole
            assert (options == job.options) == expected
        assert "no training case has all organs annotated" in caplog.text


class TestMasks:
    def test_of_the_body_and_of_the_previous_stage(self, cascade_folders):
        store = Store(cascade_folders.data)
        body = prepare_regions(first(), dataclasses.replace(cascade_folders, previous=None), progress=False)
        assert body == cascade_folders.run.parent / "region_on_data"
        for name in "abcd":
            assert np.array_equal(read_array(body / f"{name}.b2nd")[:], body_mask(np.asarray(store.load(name).image[:])))
        around = prepare_regions(second(radius=2), cascade_folders, progress=False)
        for name in "abcd":
            mask = dilated(np.asarray(store.load(name).segmentation[:]) > 0, 2)
            assert np.array_equal(read_array(around / f"{name}.b2nd")[:].astype(bool), mask), "another region: made again"
            centres = Locations(around / f"{name}.npz")
            assert set(centres) == {"0", "1", ANNOTATED}
            assert len(centres[ANNOTATED]) == mask.sum()
            assert all(mask[tuple(voxels.T)].all() for voxels in centres.values())

    def test_what_is_right_is_kept_and_what_is_half_written_made_again(self, cascade_folders):
        job = second(radius=1)
        out = prepare_regions(job, cascade_folders, progress=False)
        before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
        (out / ".partial-99999999-a.b2nd").write_bytes(b"half")
        (out / "b.b2nd").unlink()
        prepare_regions(job, cascade_folders, progress=False)
        after = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
        assert after.keys() == before.keys()
        assert {name for name in after if after[name] != before[name]} == {"b.b2nd", "b.b2nd.stamp.json", "b.npz"}

    def test_organ_voxels_outside_the_region_are_no_centres(self, cascade_folders, monkeypatch):
        monkeypatch.setattr("autoseg.trainers.cascade.region_masks.candidate_region_mask", lambda *_, **__: np.indices(SHAPE)[0] < 3)
        centres = Locations(prepare_regions(second(), cascade_folders, progress=False) / "a.npz")
        assert len(centres["1"]) == 0, "the block lies at the other end"
        assert (centres[ANNOTATED][:, 0] < 3).all()

    def test_labels_get_a_value_that_does_not_count(self):
        assert with_ignore(ORGANS).internal_ignore == 3
        assert with_ignore(dataclasses.replace(ORGANS, ignore=9)).ignore == 9
        labels, region = torch.tensor([[0, 1, 2, 1], [1, 0, 2, -1]], dtype=torch.int16)
        assert mark_outside(labels, region, ORGANS).tolist() == [0, 3, 2, 3]


class TestBatches:
    @pytest.mark.parametrize("previous_input", [True, False])
    @pytest.mark.parametrize("stream", [TRAINING, VALIDATION])
    def test_voxels_outside_are_marked_in_both_streams(self, cascade_folders, previous_input, stream):
        job = second(previous_input=previous_input, radius=1)
        make = BatchMaker(job, with_regions(job, cascade_folders), "abcd", stream=stream, device=CPU)
        batches = [make(number) for number in range(8)]
        assert {batch.image.shape for batch in batches} == {(2, 3 if previous_input else 1, 8, 8, 8)}
        background, _, _, outside = torch.stack([batch.segmentation for batch in batches]).flatten().bincount()
        assert outside > background > 0

    def test_no_translation_leads_out_of_the_region_altogether(self, cascade_folders):
        job = second(radius=0)
        far = AugmentationOptions(translation_probability=1.0, translation_voxels=12.0, translation_share=0.0)
        job = dataclasses.replace(job, options=dataclasses.replace(job.options, augmentation=far, foreground=0.0))
        make = BatchMaker(job, with_regions(job, cascade_folders), "abcd", stream=TRAINING, device=CPU)
        counted = [int((patch != 3).sum()) for number in range(20) for patch in make(number).segmentation]
        assert min(counted) > 0, "a step on such a patch would learn nothing"

    def test_validation_patches_hold_exactly_the_region(self, cascade_folders):
        job = second(radius=1)
        make = BatchMaker(job, with_regions(job, cascade_folders), "a", stream=VALIDATION, device=CPU)
        image, maps = make._read("a", ((0, 10), (0, 14), (0, 16)))
        truth = np.asarray(Store(cascade_folders.data).load("a").segmentation[:])
        assert maps.labels.shape == maps.previous.shape == SHAPE
        assert maps.slice_masks is None
        assert np.array_equal(maps.region.numpy() > 0, dilated(truth > 0, 1))
        _, padded = make._read("a", ((-4, 4), (0, 8), (0, 8)))
        assert (padded.region[:4] == 0).all()

    def test_patches_are_centred_inside(self, folders, monkeypatch):
        monkeypatch.setattr("autoseg.trainers.cascade.region_masks.candidate_region_mask", lambda *_, **__: np.indices(SHAPE)[2] >= 12)
        job = first()
        make = BatchMaker(job, with_regions(job, folders), "abcd", stream=TRAINING, device=CPU)
        for seed in range(40):
            sample = draw_sample(np.random.default_rng(seed), make.cases, job.configuration, foreground=bool(seed % 2), load_size=(8, 8, 8))
            assert sample.box[2][0] + 4 >= 12


class TestTraining:
    def test_logits_outside_the_region_change_no_loss(self, cascade_folders):
        trainer = CascadeTrainer(second(radius=1), cascade_folders, device=CPU, progress=False)
        trainer.prepare()
        batch = BatchMaker(trainer.job, trainer.folders, "ab", stream=TRAINING, device=CPU)(0)
        logits = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
        outside = (batch.segmentation == 3)[:, None]
        assert outside.any()
        changed = torch.where(outside, 7 * logits.flip(1), logits)
        inside = torch.where(outside, logits, 2 * logits)
        usual, same, other = (float(trainer.loss(one, batch.segmentation, batch.annotated)) for one in (logits, changed, inside))
        assert usual == pytest.approx(same, rel=1e-6)
        assert usual != pytest.approx(other, rel=1e-3)

    @pytest.mark.parametrize("options", [{}, {"previous_input": False}, {"region": False}])
    def test_the_second_stage_learns(self, cascade_folders, options):
        job = CascadeTrainer.fit_to_data(second(**options), cascade_folders)
        trainer = CascadeTrainer(job, cascade_folders, device=CPU, progress=False)
        trainer.fit()
        assert trainer.history.rows[-1]["train_loss"] < trainer.history.rows[0]["train_loss"]


def test_a_plan_that_was_edited_still_counts_as_edited_with_the_region_in_it(tmp_path):
    job = second()
    job = dataclasses.replace(job, configuration=dataclasses.replace(job.configuration, region=CandidateRegion("previous", 3)))
    spec: Any = SimpleNamespace(words=(), plan=job.plan)
    path = tmp_path / "preprocessed" / job.plan.dataset / "plan.json"
    write_json(tmp_path / CANDIDATE_REGION, CandidateRegionChoice(3, "because"))
    for edited in (False, True):
        write_json(path, job.plan, digest=not edited)
        record_candidate_region(Workspace(tmp_path), spec, job, tmp_path)
        assert Workspace(tmp_path).plan(job.plan.dataset).configurations["3d_cascade"].region == job.configuration.region
        assert is_edited(path) == edited
