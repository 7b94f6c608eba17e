"""Dice of whole held-out volumes while a network trains: which of them, and that every voxel counts once."""

from __future__ import annotations

import dataclasses
import math

import factories
import numpy as np
import pytest
import torch
from factories import ORGANS, REGIONS, make_configuration, make_job, make_plan, write_store

from autoseg.preprocessing.storage import Store, StoredRecord
from autoseg.schema import CandidateRegion, Split
from autoseg.schema.run_record import RunRecord
from autoseg.trainers.batches import VALIDATION, BatchMaker
from autoseg.trainers.run_options import RunFolders, default_options
from autoseg.trainers.trainer import Trainer
from autoseg.trainers.volume_scores import Block, label_map, score_volumes, scored_blocks

CPU = torch.device("cpu")
VOXELS = math.prod(factories.SHAPE)
WHOLE = tuple((0, n) for n in factories.SHAPE)
"""Eight tiles of 8 x 8 x 8: 2 along each axis."""


class Given:
    """A predictor that knows the label maps, but for what `wrong` makes of them."""

    def __init__(self, store: Store, wrong=lambda labels: None) -> None:
        self.store, self.wrong, self.seen = store, wrong, []

    def logits(self, volume, *, progress=None) -> torch.Tensor:
        labels = np.asarray(self.store.load(volume.case).segmentation[:])
        self.wrong(labels)
        self.seen.append(volume)
        return torch.nn.functional.one_hot(torch.from_numpy(labels).long(), 3).movedim(-1, 0).half()


def job_of(plan=None, *, tiles: int = 64, names=("a", "b", "c", "d"), intervals: int = 4, configuration: str = "3d_fullres") -> RunRecord:
    job = make_job(plan or make_plan(), configuration, validation_intervals=intervals, validation_tiles=tiles)
    return dataclasses.replace(job, split=Split(("z",), tuple(names)))


def maker(job: RunRecord, folders: RunFolders) -> BatchMaker:
    return BatchMaker(job, folders, job.split.val, stream=VALIDATION, device=CPU)


def whole(*names: str) -> list[Block]:
    return [Block(name, WHOLE, True, 8) for name in names]


class TestScores:
    def test_the_truth_scores_one_and_an_organ_where_none_is_costs_what_it_costs_in_validation(self, folders):
        make, store = maker(job_of(), folders), Store(folders.data)
        right = score_volumes(Given(store), whole("a", "b"), make)
        assert right == {"mean_dice": 1.0, "dice_ball": 1.0, "dice_block": 1.0, "scored_cases": 2}

        def far_away(labels: np.ndarray) -> None:
            labels[0, :2, :5] = 1

        balls = [int((np.asarray(store.load(name).segmentation[:]) == 1).sum()) for name in "ab"]
        expected = np.mean([2 * n / (2 * n + 10) for n in balls])
        wrong = score_volumes(Given(store, far_away), whole("a", "b"), make)
        assert wrong["dice_ball"] == pytest.approx(expected)
        assert wrong["mean_dice"] == pytest.approx((expected + 1) / 2)

    def test_an_organ_that_is_nowhere_has_no_score_and_a_false_alarm_has_zero(self, folders):
        job, store = job_of(make_plan(labels=factories.labels(ball=2, block=5, spleen=7))), Store(folders.data)

        class Four(Given):
            def logits(self, volume, *, progress=None) -> torch.Tensor:
                more = torch.zeros(1, *factories.SHAPE).half()
                more[:, 0, 0, 0] = 9.0 * alarm
                return torch.cat([super().logits(volume), more])

        for alarm in (False, True):
            found = score_volumes(Four(store), whole("a"), maker(job, folders))
            assert found["dice_spleen"] == pytest.approx(0.0 if alarm else math.nan, nan_ok=True)

    def test_of_parts_of_volumes_all_voxels_count_together(self, folders):
        make, store = maker(job_of(), folders), Store(folders.data)
        halves = [Block(name, ((0, 5), *WHOLE[1:]), False, 4) for name in "ab"]

        class Half(Given):
            def logits(self, volume, *, progress=None) -> torch.Tensor:
                assert volume.image.shape == (1, 5, 14, 16)
                return super().logits(volume)[:, :5]

        def all_of_the_first(labels: np.ndarray) -> None:
            labels[:] = np.where(labels == 2, 0, np.maximum(labels, 0))
            labels[0] = 1

        truth = [np.asarray(store.load(name).segmentation[:5]) == 1 for name in "ab"]
        found = [one.copy() for one in truth]
        for one in found:
            one[0] = True
        both, sizes = (sum(int((t & f).sum()) for t, f in zip(truth, found, strict=True)), sum(int(t.sum()) for t in (*truth, *found)))
        assert score_volumes(Half(store, all_of_the_first), halves, make)["dice_ball"] == pytest.approx(2 * both / sizes)

    def test_an_organ_that_was_not_annotated_in_a_case_is_not_judged_there(self, folders):
        store = Store(folders.data)
        case = store.load("a")
        locations = {key: np.asarray(case.locations[key]) for key in case.locations}
        store.write(
            "a", np.asarray(case.image[:]), np.asarray(case.segmentation[:]), StoredRecord(case.trace, annotated=("ball",)), locations
        )

        def no_block(labels: np.ndarray) -> None:
            labels[labels == 2] = 0

        found = score_volumes(Given(store, no_block), whole("a"), maker(job_of(), folders))
        assert (found["dice_ball"], math.isnan(found["dice_block"])) == (1.0, True)

    def test_a_candidate_region_is_that_of_the_whole_volume_and_an_organ_outside_is_missed(self, folders):
        plan = make_plan(make_configuration(region=CandidateRegion("body")))
        predictor = Given(Store(folders.data))
        part = [Block("a", ((2, 6), (0, 14), (1, 9)), False, 2)]
        predictor.logits = lambda volume: predictor.seen.append(volume) or torch.zeros(3, *volume.image.shape[1:]).half()
        score_volumes(predictor, part, maker(job_of(plan), folders))
        assert predictor.seen[0].region.shape == (4, 14, 8)

    def test_regions_become_the_label_map_that_export_writes(self):
        logits = torch.tensor([[-1.0, 2.0, 3.0], [-1.0, -2.0, 0.5]]).half().view(2, 1, 1, 3)
        assert label_map(logits, REGIONS).tolist() == [[[0, 1, 2]]]
        classes = torch.tensor([[0.0, 1.0], [2.0, 0.5], [1.0, 3.0]]).half().view(3, 1, 1, 2)
        assert label_map(classes, ORGANS).tolist() == [[[1, 2]]]


class TestChoiceOfVolumes:
    @pytest.fixture
    def cases(self, tmp_path):
        names = [f"case_{number:02}" for number in range(30)]
        store = write_store(tmp_path / "many", make_plan(), names)
        return {name: store.load(name) for name in names}

    def test_the_same_few_after_every_interval_and_many_more_after_the_last(self, cases):
        job = job_of(tiles=40, intervals=4)
        few, again, last = (scored_blocks(cases, job, is_last=is_last) for is_last in (False, False, True))
        assert few == again
        assert (len(few), len(last)) == (5, 20), "of 8 tiles each: 40 after an interval, as many as after all of them after the last"
        assert last[:5] == few
        assert all(block.whole and block.box == WHOLE for block in last)
        assert len(scored_blocks(cases, job_of(tiles=1000), is_last=False)) == 16
        assert len(scored_blocks(cases, job_of(tiles=1000), is_last=True)) == 30
        other = dataclasses.replace(job, seed=4)
        assert scored_blocks(cases, other, is_last=False) != few

    def test_every_beginning_has_small_and_large_organs(self, cases):
        sizes = {name: sum(len(case.locations[key]) for key in case.locations) for name, case in cases.items()}
        ranked = sorted(sizes, key=lambda name: (sizes[name], name))
        for seed in range(5):
            job = dataclasses.replace(job_of(tiles=64), seed=seed)
            ranks = [ranked.index(block.case) for block in scored_blocks(cases, job, is_last=False)]
            assert 10 < np.mean(ranks) < 19
            assert len({rank // 10 for rank in ranks}) == 3

    @pytest.mark.parametrize(("tiles", "shape"), [(4, (8, 8, 8)), (8, (8, 8, 16)), (16, (8, 14, 16))])
    def test_of_volumes_that_are_too_many_tiles_a_block_of_each(self, cases, tiles, shape):
        blocks = scored_blocks(cases, job_of(tiles=tiles), is_last=False)
        assert len(blocks) == 4
        for block in blocks:
            assert sorted(stop - start for start, stop in block.box) == sorted(shape)
            assert not block.whole
            assert block.tiles <= tiles / 4
            assert all(0 <= start < stop <= n for (start, stop), n in zip(block.box, factories.SHAPE, strict=True))

    def test_slices_of_a_2d_network_are_tiles(self, cases):
        job = job_of(make_plan(make_configuration(2)), tiles=40 * 4, configuration="2d")
        assert [block.tiles for block in scored_blocks(cases, job, is_last=False)] == [40] * 4


class TestTraining:
    @pytest.mark.usefixtures("no_pictures")
    def test_the_dice_that_training_shows_last_is_that_of_whole_volumes(self, folders):
        """With overlapping tiles and mirrored copies, as validation has them."""
        job = make_job(make_plan(make_configuration(patch_size=factories.SHAPE)), iterations=60, validation_intervals=2, learning_rate=2e-2)
        trainer = Trainer(job, folders, device=CPU, progress=False)
        network = trainer.fit()
        make = maker(job, folders)
        final = score_volumes(trainer.predictor(network), whole(*job.split.val), make)
        shown = trainer.history.rows[-1]
        assert shown["scored_cases"] == 2
        assert shown["mean_dice"] == pytest.approx(final["mean_dice"], abs=0.05)
        assert final["mean_dice"] > 0.4

    def test_the_tiles_cost_a_twentieth_of_the_training(self):
        def tiles(**given: object) -> int:
            return default_options(factories.Budget("time", 600.0, 10), "cpu", batch=2, **given).validation_tiles

        assert tiles(steps=1000.0) == 30, "100 steps of 2 patches an interval, of which a twentieth costs as much as 3 times as many tiles"
        assert tiles(steps=10.0) == 4
        assert tiles() == 64
        assert default_options(factories.Budget("iterations", 250_000, 1000), "cuda", batch=2).validation_tiles == 75
