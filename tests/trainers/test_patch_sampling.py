"""Which places are drawn, and what is read there."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import blosc2
import numpy as np
import pytest
from factories import make_configuration

from autoseg.schema.conventions import OUTSIDE
from autoseg.trainers.patch_sampling import ANNOTATED, draw_sample, is_foreground_slot, read_box, read_patch


def a_case(shape: tuple[int, int, int] = (20, 24, 18), **locations: list[list[int]]) -> SimpleNamespace:
    voxels = {key.removeprefix("organ"): np.array(value, int).reshape(-1, 3) for key, value in locations.items()}
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
    return SimpleNamespace(image=image, segmentation=(image[0] % 3).astype(np.int16), locations=voxels, trace=SimpleNamespace(case="a"))


def samples(case: SimpleNamespace, patch: tuple[int, ...], n: int = 300, foreground: bool = False, load: tuple[int, ...] | None = None):
    rng, configuration = np.random.default_rng(0), make_configuration(len(patch), patch_size=patch)
    return [draw_sample(rng, {"a": case}, configuration, foreground=foreground, load_size=load or patch).box for _ in range(n)]


def test_slots_of_a_batch_that_show_an_organ():
    assert [is_foreground_slot(i, 2, 0.33) for i in range(2)] == [False, True]
    assert sum(is_foreground_slot(i, 9, 0.33) for i in range(9)) == 3
    assert sum(is_foreground_slot(i, 12, 0.33) for i in range(12)) == 4


@pytest.mark.parametrize("share", [0.33, 0.5, 1.0])
def test_batches_of_one_show_an_organ_in_that_share_of_them(share):
    shown = [is_foreground_slot(0, 1, share, number=number) for number in range(300)]
    assert sum(shown) == int(300 * share)
    assert sum(shown[:4]) >= 1, "short validations have one too"
    assert not any(is_foreground_slot(0, 1, 0.0, number=number) for number in range(10))


def test_random_patches_cover_the_volume_and_stay_inside():
    boxes = samples(a_case(), (8, 10, 18))
    starts = [Counter(box[axis][0] for box in boxes) for axis in range(3)]
    assert [sorted(counts) for counts in starts] == [list(range(13)), list(range(15)), [0]]
    assert all(stop - start == size for box in boxes for (start, stop), size in zip(box, (8, 10, 18), strict=True))


def test_the_borders_of_a_volume_are_shown_as_prediction_sees_them():
    """Two tiles along an axis: a quarter of the patches touches each border, where one of 48 first voxels does."""
    boxes = samples(a_case((88, 143, 20)), (48, 96, 20), n=3000)
    for axis, (size, tiles) in enumerate(((88, 3), (143, 2))):
        first = np.array([box[axis] for box in boxes])
        for touching in (first[:, 0] == 0, first[:, 1] == size):
            assert touching.mean() == pytest.approx(1 / (2 * tiles), abs=0.03)
    corner = np.mean([box[0][0] == 0 and box[1][0] == 0 for box in boxes])
    assert corner == pytest.approx(1 / 24, abs=0.015), "1 in 2000, if all places were as likely"


def test_slices_of_a_volume_are_as_likely_as_each_other():
    starts = Counter(box[0][0] for box in samples(a_case((10, 30, 30)), (20, 20), n=4000))
    assert set(starts) == set(range(10)) and all(count == pytest.approx(400, abs=80) for count in starts.values())


def test_volumes_smaller_than_the_patch_are_centred():
    for box in samples(a_case((5, 24, 18)), (8, 10, 10), n=50):
        assert box[0] in ((-2, 6), (-1, 7))


def test_foreground_is_centred_and_only_the_lower_bound_holds():
    for voxel, box in {(10, 12, 9): ((6, 14), (7, 17), (6, 12)), (0, 23, 17): ((0, 8), (18, 28), (14, 20))}.items():
        assert set(samples(a_case(organ0=[voxel]), (8, 10, 6), n=3, foreground=True)) == {box}


def test_organ_slices_are_drawn_as_often_as_each_other_and_any_place_in_them():
    voxels = [[5, y, x] for y in range(10) for x in range(10)] + [[7, 3, 3]]
    rng, configuration = np.random.default_rng(0), make_configuration(2, patch_size=(8, 8))
    case = a_case(organ0=voxels, organ1=[])
    boxes = [draw_sample(rng, {"a": case}, configuration, foreground=False, load_size=(8, 8), organ_slices=True).box for _ in range(400)]
    slices = Counter(box[0] for box in boxes)
    assert set(slices) == {(5, 6), (7, 8)} and min(slices.values()) > 150
    assert {box[1][0] for box in boxes} == set(range(17)) and {box[2][0] for box in boxes} == set(range(11))
    empty = [
        draw_sample(rng, {"a": a_case(organ0=[])}, configuration, foreground=False, load_size=(8, 8), organ_slices=True).box
        for _ in range(200)
    ]
    assert len({box[0] for box in empty}) == 20, "a case without organs is sampled anywhere"


def test_organs_are_equally_likely_however_large_and_absent_ones_are_skipped():
    case = a_case(organ0=[[5, 5, 5]], organ1=[], organ2=[[15, 15, 15]] * 500, annotated=[[0, 0, 0]] * 1000)
    counts = Counter(samples(case, (2, 2, 2), n=1000, foreground=True))
    assert set(counts) == {((4, 6),) * 3, ((14, 16),) * 3}
    assert counts[((4, 6),) * 3] == pytest.approx(500, abs=60)


def test_without_any_organ_any_annotated_voxel_or_any_place():
    only_annotated = a_case(organ0=[], **{ANNOTATED: [[9, 9, 9]]})
    assert set(samples(only_annotated, (2, 2, 2), foreground=True)) == {((8, 10),) * 3}
    assert set(samples(only_annotated, (2, 2, 2))) == {((8, 10),) * 3}
    assert len(set(samples(a_case(organ0=[]), (2, 2, 2), foreground=True))) > 200


@pytest.mark.parametrize("load", [(12, 16, 10), (7, 9, 5), (13, 17, 11)])
def test_a_larger_or_smaller_load_size_keeps_the_centre(load):
    patch = (8, 10, 6)
    for box, loaded in zip(samples(a_case(), patch), samples(a_case(), patch, load=load), strict=True):
        for (start, _), (load_start, load_stop), p, size in zip(box, loaded, patch, load, strict=True):
            assert load_stop - load_start == size
            assert load_start + size // 2 == start + p // 2


def test_2d_draws_slices():
    case = a_case(organ0=[[7, 12, 9]])
    assert {box[0] for box in samples(case, (10, 6))} == {(z, z + 1) for z in range(20)}
    assert set(samples(case, (10, 6), foreground=True)) == {((7, 8), (7, 17), (6, 12))}
    image, labels = read_patch(case, ((7, 8), (-2, 8), (14, 20)), 2)
    assert (image.shape, labels.shape) == ((1, 10, 6), (10, 6))
    assert np.array_equal(image[:, 2:, :4], case.image[:, 7, :8, 14:])


def test_every_case_is_drawn_and_the_generator_decides():
    cases = {name: a_case() for name in "abc"}
    rngs = np.random.default_rng(4), np.random.default_rng(4)
    first, second = (
        [draw_sample(rng, some, make_configuration(patch_size=(4, 4, 4)), foreground=False, load_size=(4, 4, 4)) for _ in range(60)]
        for rng, some in zip(rngs, (cases, dict(reversed(cases.items()))), strict=True)
    )
    assert first == second
    assert {sample.case for sample in first} == set("abc")


@pytest.mark.parametrize("wrap", [np.asarray, blosc2.asarray])
def test_reading_pads_image_with_zero_and_labels_with_outside(wrap):
    case = a_case()
    stored = SimpleNamespace(image=wrap(case.image), segmentation=wrap(case.segmentation), trace=case.trace)
    image, labels = read_patch(stored, ((-3, 5), (20, 30), (2, 9)), 3)
    assert (image.dtype, labels.dtype) == (np.float32, np.int16)
    inside, padding = (slice(5), slice(20, 24), slice(2, 9)), ((3, 0), (0, 6), (0, 0))
    assert np.array_equal(image[0], np.pad(case.image[0][inside], padding))
    assert np.array_equal(labels, np.pad(case.segmentation[inside], padding, constant_values=OUTSIDE))
    assert np.array_equal(read_box(wrap(case.image), ((0, 1), (0, 2), (0, 3)), fill=0.0), case.image[:, :1, :2, :3])


def test_a_case_without_labels_is_named():
    with pytest.raises(ValueError, match="case a"):
        read_patch(SimpleNamespace(image=None, segmentation=None, trace=SimpleNamespace(case="a")), ((0, 1),) * 3, 3)
