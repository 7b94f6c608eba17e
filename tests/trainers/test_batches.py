"""Batches as functions of their number."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from autoseg.preprocessing.storage import Store, read_array, write_array
from autoseg.schema import Labels
from autoseg.schema.conventions import OUTSIDE
from autoseg.trainers import batches as module
from autoseg.trainers.batches import TRAINING, VALIDATION, Batch, BatchMaker
from autoseg.trainers.patch_sampling import Sample

CPU = torch.device("cpu")


@pytest.fixture
def maker(folders, tiny_plan, tiny_job):
    def make(*, stream: int = TRAINING, job=None, where=folders, names=("a", "b")) -> BatchMaker:
        return BatchMaker(job or tiny_job(tiny_plan()), where, names, stream=stream, device=CPU)

    return make


def same(one: Batch, two: Batch) -> bool:
    return one.cases == two.cases and torch.equal(one.image, two.image) and torch.equal(one.segmentation, two.segmentation)


def is_cut_from(batch: Batch, index: int, store: Store) -> bool:
    """Whether a patch is found, voxel for voxel, somewhere in its case (whose edges may be padded with zeros)."""
    stored, patch = store.load(batch.cases[index]), batch.image[index].numpy()
    size = patch.shape[1:]
    image = np.pad(stored.image[:], [(0, 0), *((n, n) for n in size)])
    windows = np.lib.stride_tricks.sliding_window_view(image[0], size)
    return bool((np.abs(windows - patch[0]).max(axis=(-3, -2, -1)) == 0).any())


@pytest.mark.parametrize("stream", [TRAINING, VALIDATION])
def test_the_same_number_gives_the_same_batch_in_any_order_and_from_any_maker(maker, stream):
    first, second = maker(stream=stream), maker(stream=stream)
    forward = [first(number) for number in range(4)]
    backward = [second(number) for number in reversed(range(4))][::-1]
    assert all(same(one, two) for one, two in zip(forward, backward, strict=True))
    assert not same(forward[0], forward[1])


def test_seed_and_stream_change_the_batch(maker, tiny_plan, tiny_job):
    job = tiny_job(tiny_plan())
    one = maker(job=job)(0)
    assert not torch.equal(one.image, maker(job=dataclasses.replace(job, seed=4))(0).image)
    assert not torch.equal(one.image, maker(job=job, stream=VALIDATION)(0).image)


def test_shapes_types_and_layout(maker):
    batch = maker()(0)
    assert batch.image.shape == (2, 1, 8, 8, 8)
    assert batch.image.dtype == torch.float32
    assert batch.image.is_contiguous(memory_format=torch.channels_last_3d)
    assert batch.segmentation.shape == (2, 8, 8, 8)
    assert batch.segmentation.dtype == torch.int16
    assert batch.segmentation.min() >= 0
    assert set(batch.cases) <= {"a", "b"}


def test_two_dimensional_batches_have_no_slice_axis(maker, tiny_plan, tiny_configuration, tiny_job):
    flat = tiny_configuration(2)
    batch = maker(job=tiny_job(tiny_plan(flat), "2d"))(0)
    assert batch.image.shape == (2, 1, 8, 8)
    assert batch.segmentation.shape == (2, 8, 8)


def test_validation_patches_are_the_stored_voxels_and_training_patches_are_not(maker, folders):
    store = Store(folders.data)
    found = {stream: [] for stream in (TRAINING, VALIDATION)}
    for stream, hits in found.items():
        for number in range(4):
            batch = maker(stream=stream)(number)
            hits += [is_cut_from(batch, index, store) for index in range(2)]
    assert all(found[VALIDATION])
    assert not all(found[TRAINING])


def test_the_last_slots_of_a_batch_show_an_organ(maker):
    for stream in (TRAINING, VALIDATION):
        make = maker(stream=stream)
        # An organ's voxel is at the centre of the patch, so no flip or rotation can lose it.
        assert all((make(number).segmentation[1] > 0).any() for number in range(10))


def test_a_batch_of_one_shows_an_organ_now_and_then(maker, tiny_plan, tiny_configuration, tiny_job, monkeypatch):
    asked = []
    draw = module.draw_sample
    monkeypatch.setattr(
        module, "draw_sample", lambda *some, foreground, **more: asked.append(foreground) or draw(*some, foreground=foreground, **more)
    )
    make = maker(job=tiny_job(tiny_plan(tiny_configuration(batch_size=1))))
    for number in range(12):
        make(number)
    assert sum(asked) == int(12 * 0.33)


def test_only_the_named_cases_are_drawn_and_missing_ones_are_passed_over(maker):
    make = maker(names=("d", "not preprocessed"))
    assert {case for number in range(5) for case in make(number).cases} == {"d"}


def test_a_fold_without_any_preprocessed_case_is_refused(maker):
    with pytest.raises(ValueError, match="none of the fold's 2 cases is preprocessed"):
        maker(names=("x", "y"))


class TestSomeOrgans:
    """A model of the block alone reads label maps that hold the ball too."""

    @pytest.fixture
    def plan(self, tiny_plan):
        return lambda *configurations: dataclasses.replace(
            tiny_plan(*configurations), labels=Labels(("block",), ((5,),)), data_labels=tiny_plan().labels
        )

    def test_labels_are_those_of_the_whole_dataset_without_the_others(self, maker, plan, tiny_plan, tiny_job, monkeypatch):
        places = iter([])
        monkeypatch.setattr(module, "draw_sample", lambda *some, **more: next(places))
        box = ((0, 8), (-2, 6), (3, 11))
        for number in range(6):
            places = iter([Sample("a", box)] * 4)
            some, every = (maker(job=tiny_job(one))(number) for one in (plan(), tiny_plan()))
            assert torch.equal(some.image, every.image)
            assert torch.equal(some.segmentation, (every.segmentation == 2).to(torch.int16))

    def test_patches_are_centred_on_its_organs(self, maker, plan, tiny_job):
        for stream in (TRAINING, VALIDATION):
            make = maker(stream=stream, job=tiny_job(plan()))
            assert all((make(number).segmentation[1] == 1).any() for number in range(10))

    def test_padding_stays_outside_and_unannotated_voxels_stay_unannotated(self, maker, plan, tiny_job, folders, monkeypatch):
        every = Labels(("ball", "block"), ((2,), (5,)), ignore=9)
        ignoring = dataclasses.replace(plan(), labels=dataclasses.replace(plan().labels, ignore=9), data_labels=every)
        stored = Store(folders.data).load("a")
        values = stored.segmentation[:]
        values[0, 0, 0] = 3
        Store(folders.data).write("a", stored.image[:], values, stored.trace, {})
        labels = maker(job=tiny_job(ignoring), names=("a",))._read("a", ((-1, 7), (0, 8), (0, 8)))[1].labels
        assert (labels[0] == OUTSIDE).all()
        assert labels[1, 0, 0] == 2
        assert labels[1:].unique().tolist() in ([0, 2], [0, 1, 2])

    def test_a_cascade_sees_its_own_organs_of_the_first_stage(self, maker, plan, cascade_folders, tiny_configuration, tiny_job):
        for name in "ab":
            path = cascade_folders.previous / f"{name}.b2nd"
            write_array(path, (read_array(path)[:] == 2).astype(np.uint8))
        second = tiny_configuration(name="3d_cascade", previous_stage="3d_lowres")
        make = maker(job=tiny_job(plan(second), "3d_cascade"), where=cascade_folders, stream=VALIDATION)
        for number in range(4):
            batch = make(number)
            assert batch.image.shape == (2, 2, 8, 8, 8)
            assert torch.equal(batch.image[:, 1], (batch.segmentation == 1).float())


class TestCascade:
    """The previous stage's organs, one channel each, after the image's."""

    @pytest.fixture
    def make(self, maker, cascade_folders, tiny_plan, tiny_configuration, tiny_job):
        second = tiny_configuration(name="3d_cascade", previous_stage="3d_lowres")
        job = tiny_job(tiny_plan(second), "3d_cascade")
        return lambda **options: maker(job=job, where=cascade_folders, **options)

    def test_a_case_that_the_previous_stage_did_not_predict_is_not_drawn(self, make, cascade_folders):
        (cascade_folders.previous / "a.b2nd").unlink()
        maker = make()
        assert {case for number in range(8) for case in maker(number).cases} == {"b"}

    def test_organs_of_the_previous_stage_are_channels(self, make):
        for number in range(4):
            batch = make(stream=VALIDATION)(number)
            assert batch.image.shape == (2, 3, 8, 8, 8)
            for value in (1, 2):
                assert torch.equal(batch.image[:, value], (batch.segmentation == value).float())

    def test_organs_are_moved_with_the_image_and_then_spoilt(self, make, monkeypatch):
        spoilt = make()
        kept = []
        with monkeypatch.context() as patch:
            patch.setattr(module, "augment_previous", lambda rng, organs: kept.append(organs) or organs)
            for number in range(6):
                batch = make()(number)
                for value in (1, 2):
                    assert torch.equal(batch.image[:, value], (batch.segmentation == value).float())
        assert len(kept) == 12
        pairs = [(spoilt(number), number) for number in range(6)]
        assert any(not torch.equal(batch.image[:, 1], (batch.segmentation == 1).float()) for batch, _ in pairs)
        assert all(set(batch.image[:, 1:].unique().tolist()) <= {0.0, 1.0} for batch, _ in pairs)

    def test_the_same_number_gives_the_same_batch(self, make):
        assert all(same(make()(number), make()(number)) for number in range(3))
