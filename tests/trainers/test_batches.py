"""Batches as functions of their number."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from factories import ORGANS, labels, make_configuration, make_job, make_plan

from autoseg.preprocessing.storage import Store, read_array, write_array, write_arrays
from autoseg.schema.conventions import OUTSIDE
from autoseg.schema.training_options import AugmentationOptions
from autoseg.trainers import batches as module
from autoseg.trainers.batches import TRAINING, VALIDATION, Batch, BatchMaker
from autoseg.trainers.patch_sampling import Sample

SLICES = make_configuration(2, name="2.5d", slices=3, data="2d")
SECOND = make_configuration(name="3d_cascade", previous_stage="3d_lowres")
BLOCK_ALONE = dataclasses.replace(make_plan(make_configuration(), SECOND), labels=labels(block=5), data_labels=ORGANS)


@pytest.fixture
def maker(folders):
    def make(*, stream: int = TRAINING, job=None, where=folders, names=("a", "b")) -> BatchMaker:
        return BatchMaker(job or make_job(make_plan()), where, names, stream=stream, device=torch.device("cpu"))

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


def test_seed_and_stream_change_the_batch(maker):
    one = maker()(0)
    assert not torch.equal(one.image, maker(job=dataclasses.replace(make_job(make_plan()), seed=4))(0).image)
    assert not torch.equal(one.image, maker(stream=VALIDATION)(0).image)


@pytest.mark.parametrize(("dim", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)])
def test_shapes_types_and_layout(maker, dim, layout):
    configuration = make_configuration(dim)
    batch = maker(job=make_job(make_plan(configuration), configuration.name))(0)
    assert (batch.image.shape, batch.image.dtype) == ((2, 1, *(8,) * dim), torch.float32)
    assert batch.image.is_contiguous(memory_format=layout)
    assert (batch.segmentation.shape, batch.segmentation.dtype) == ((2, *(8,) * dim), torch.int16)
    assert batch.segmentation.min() >= 0
    assert set(batch.cases) <= {"a", "b"}


def test_validation_patches_are_the_stored_voxels_and_training_patches_are_not(maker, folders):
    store = Store(folders.data)
    for stream in (TRAINING, VALIDATION):
        batches = [maker(stream=stream)(number) for number in range(4)]
        assert all(is_cut_from(batch, index, store) for batch in batches for index in range(2)) == (stream == VALIDATION)


@pytest.mark.parametrize("stream", [TRAINING, VALIDATION])
@pytest.mark.parametrize("plan", [make_plan(), BLOCK_ALONE], ids=["all organs", "one"])
def test_the_last_slots_of_a_batch_show_an_organ(maker, plan, stream):
    make = maker(stream=stream, job=make_job(plan))
    # An organ's voxel is at the centre of the patch, so no flip or rotation can lose it.
    assert all((make(number).segmentation[1] > 0).any() for number in range(10))


def test_a_batch_of_one_shows_an_organ_now_and_then(maker, monkeypatch):
    centred, draw = [], module.draw_sample
    monkeypatch.setattr(module, "draw_sample", lambda *some, **more: centred.append(more["foreground"]) or draw(*some, **more))
    make = maker(job=make_job(make_plan(make_configuration(batch_size=1))))
    for number in range(12):
        make(number)
    assert sum(centred) == int(12 * 0.33)


def test_only_the_named_cases_are_drawn_and_missing_ones_are_passed_over(maker):
    make = maker(names=("d", "not preprocessed"))
    assert {case for number in range(5) for case in make(number).cases} == {"d"}


def test_a_fold_without_any_preprocessed_case_is_refused(maker):
    with pytest.raises(ValueError, match="none of the fold's 2 cases is preprocessed"):
        maker(names=("x", "y"))


MOVING = AugmentationOptions(
    translation_probability=1.0, translation_voxels=3.0, translation_share=0.0, rotation_probability=0.0, scale_probability=0.0
)
DEFORMING = dataclasses.replace(
    MOVING, elastic_probability=1.0, elastic_spacing=4.0, elastic_voxels=1.5, shear_probability=1.0, distortion_probability=1.0
)


class TestDeformed:
    """Elastic deformation, shear and translation in what a training reads."""

    @pytest.mark.parametrize(("configuration", "channels"), [(make_configuration(2), 1), (SLICES, 3), (make_configuration(), 1)])
    def test_every_kind_of_patch_is_full_and_repeatable(self, maker, configuration, channels):
        job = make_job(make_plan(configuration), configuration.name, augmentation=DEFORMING)
        plain = maker(job=make_job(make_plan(configuration), configuration.name))
        for number in range(3):
            one, two = (maker(job=job)(number) for _ in range(2))
            assert same(one, two)
            assert one.image.shape == (2, channels, *configuration.patch_size)
            assert one.image.isfinite().all()
            assert not torch.equal(one.image, plain(number).image)

    def test_a_translation_alone_takes_the_stored_voxels_of_another_place(self, maker, folders, monkeypatch):
        boxes, read = [], BatchMaker._read
        monkeypatch.setattr(BatchMaker, "_read", lambda self, case, box: boxes.append(box) or read(self, case, box))
        monkeypatch.setattr(module, "draw_sample", lambda *some, **more: Sample("a", ((0, 8), (2, 10), (3, 11))))
        silent = dict.fromkeys(("noise", "blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma", "mirror"), 0.0)
        job = make_job(make_plan(), augmentation=dataclasses.replace(MOVING, **{f"{name}_probability": 0.0 for name in silent}))
        batches = [maker(job=job)(number) for number in range(6)]
        assert all(is_cut_from(batch, index, Store(folders.data)) for batch in batches for index in range(2))
        shifts = np.array([[start - was for (start, _), was in zip(box, (0, 2, 3), strict=True)] for box in boxes])
        assert np.abs(shifts).max() == 3
        assert len({tuple(shift) for shift in shifts.tolist()}) > 8

    def test_a_candidate_region_is_deformed_with_the_organs_in_it(self, maker, folders):
        region = folders.run.parent / "region"
        for name in "ab":
            stored = Store(folders.data).load(name)
            write_array(region / f"{name}.b2nd", (stored.segmentation[:] > 0).astype(np.uint8))
            write_arrays(region / f"{name}.npz", dict(stored.locations))
        job = make_job(make_plan(), augmentation=dataclasses.replace(DEFORMING, rotation_probability=1.0))
        for number in range(4):
            inside, everywhere = (maker(job=job, where=where)(number) for where in (dataclasses.replace(folders, region=region), folders))
            outside = inside.segmentation == len(ORGANS.base_values) + 1
            assert torch.equal(outside, everywhere.segmentation == 0)
            assert torch.equal(inside.segmentation[~outside], everywhere.segmentation[~outside])


class TestSomeOrgans:
    """A model of the block alone reads label maps that hold the ball too."""

    def test_labels_are_those_of_the_whole_dataset_without_the_others(self, maker, monkeypatch):
        monkeypatch.setattr(module, "draw_sample", lambda *some, **more: Sample("a", ((0, 8), (-2, 6), (3, 11))))
        for number in range(6):
            some, every = (maker(job=make_job(one))(number) for one in (BLOCK_ALONE, make_plan()))
            assert torch.equal(some.image, every.image)
            assert torch.equal(some.segmentation, (every.segmentation == 2).to(torch.int16))

    def test_padding_stays_outside_and_unannotated_voxels_stay_unannotated(self, maker, folders):
        ignoring = dataclasses.replace(BLOCK_ALONE, labels=labels(block=5, ignore=9), data_labels=labels(ball=2, block=5, ignore=9))
        stored = Store(folders.data).load("a")
        values = stored.segmentation[:]
        values[0, 0, 0] = 3
        Store(folders.data).write("a", stored.image[:], values, stored.trace, {})
        read = maker(job=make_job(ignoring), names=("a",))._read("a", ((-1, 7), (0, 8), (0, 8)))[1].labels
        assert (read[0] == OUTSIDE).all()
        assert read[1, 0, 0] == 2
        assert read[1:].unique().tolist() in ([0, 2], [0, 1, 2])

    def test_a_cascade_sees_its_own_organs_of_the_first_stage(self, maker, cascade_folders):
        for name in "ab":
            path = cascade_folders.previous / f"{name}.b2nd"
            write_array(path, (read_array(path)[:] == 2).astype(np.uint8))
        make = maker(job=make_job(BLOCK_ALONE, "3d_cascade"), where=cascade_folders, stream=VALIDATION)
        for number in range(4):
            batch = make(number)
            assert batch.image.shape == (2, 2, 8, 8, 8)
            assert torch.equal(batch.image[:, 1], (batch.segmentation == 1).float())


class TestCascade:
    """The previous stage's organs, one channel each, after the image's."""

    @pytest.fixture
    def make(self, maker, cascade_folders):
        job = make_job(make_plan(SECOND), "3d_cascade")
        return lambda **options: maker(job=job, where=cascade_folders, **options)

    def test_a_case_that_the_previous_stage_did_not_predict_is_not_drawn(self, make, cascade_folders):
        (cascade_folders.previous / "a.b2nd").unlink()
        assert {case for number in range(8) for case in make()(number).cases} == {"b"}

    def test_organs_of_the_previous_stage_are_channels(self, make):
        for number in range(4):
            batch = make(stream=VALIDATION)(number)
            assert batch.image.shape == (2, 3, 8, 8, 8)
            for value in (1, 2):
                assert torch.equal(batch.image[:, value], (batch.segmentation == value).float())

    def test_each_is_opened_and_verified_once(self, make, monkeypatch):
        opened = []
        monkeypatch.setattr(module, "read_array", lambda path: opened.append(path.stem) or read_array(path))
        batches = make()
        for number in range(8):
            batches(number)
        assert sorted(opened) == ["a", "b"]

    def test_organs_are_moved_with_the_image_and_then_spoilt(self, make, monkeypatch):
        kept = []
        with monkeypatch.context() as patch:
            patch.setattr(module, "augment_previous", lambda rng, organs: kept.append(organs) or organs)
            for number in range(6):
                batch = make()(number)
                for value in (1, 2):
                    assert torch.equal(batch.image[:, value], (batch.segmentation == value).float())
        assert len(kept) == 12
        spoilt = [make()(number) for number in range(6)]
        assert any(not torch.equal(batch.image[:, 1], (batch.segmentation == 1).float()) for batch in spoilt)
        assert all(set(batch.image[:, 1:].unique().tolist()) <= {0.0, 1.0} for batch in spoilt)

    def test_deformed_organs_stay_those_of_the_labels(self, maker, cascade_folders, monkeypatch):
        monkeypatch.setattr(module, "augment_previous", lambda rng, organs: organs)
        make = maker(job=make_job(make_plan(SECOND), "3d_cascade", augmentation=DEFORMING), where=cascade_folders)
        for number in range(4):
            batch = make(number)
            for value in (1, 2):
                assert torch.equal(batch.image[:, value], (batch.segmentation == value).float())

    def test_the_same_number_gives_the_same_batch(self, make):
        assert all(same(make()(number), make()(number)) for number in range(3))
