"""Candidate regions: bodies of known shape, balls against SciPy, and a sliding window that looks inside only."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from factories import LIVER_KIDNEYS, make_predictor, patch_configuration, random_image, random_label_map, voxelwise, whole_trace
from factories import regions as as_regions
from scipy import ndimage

from autoseg.data.phantom.dataset import phantom_case
from autoseg.inference import candidate_region_mask as regions
from autoseg.inference.candidate_region_mask import body_mask, candidate_region_mask, dilated, distances
from autoseg.inference.cascade import organs_as_channels
from autoseg.inference.tiling import tile_starts
from autoseg.inference.volume_predictor import Volume, predict_preprocessed
from autoseg.schema import CandidateRegion

SHAPE = (20, 48, 56)


def cylinder(radius: float, middle: tuple[float, float] = (24, 28)) -> np.ndarray:
    """Along axis 0, open at both ends."""
    y, x = np.ogrid[: SHAPE[1], : SHAPE[2]]
    return np.broadcast_to(np.hypot(y - middle[0], x - middle[1]) <= radius, SHAPE).copy()


def scan(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A body with two dark lungs that are open above, and the true mask."""
    rng = np.random.default_rng(0)
    body, lungs = cylinder(18), cylinder(5, (24, 20)) | cylinder(5, (24, 36))
    lungs[:5] = False
    if kind == "ct":
        hu = np.where(body & ~lungs, 40.0, -1000.0) + rng.normal(0, 15, SHAPE)
        hu[:, 44:46, 10:46] = -200  # the table
        return (np.clip(hu, -60, 240) - 80) / 60, body
    if kind == "mr":
        values = np.abs(np.where(body & ~lungs, 300.0, 0.0) + rng.normal(0, 8, SHAPE)) * (1 + np.linspace(0, 1, SHAPE[2]))
        return (values - values.mean()) / values.std(), body
    values = np.where(body, rng.normal(0, 1, SHAPE), 0.0)  # z-scored inside a mask
    return values, body


@pytest.mark.parametrize("kind", ["ct", "mr", "masked"])
@pytest.mark.parametrize("coarse", [False, True])
def test_the_body_is_found_with_its_lungs_and_without_table_or_air(kind, coarse, monkeypatch):
    if coarse:
        monkeypatch.setattr(regions, "COARSE", SHAPE[0] * SHAPE[1] * SHAPE[2] // 4)
    values, truth = scan(kind)
    found = body_mask(values[None].astype(np.float32))
    assert found.shape == SHAPE
    assert found.dtype == bool
    if coarse:  # it may be larger by a coarse voxel
        assert (found & truth).sum() > 0.99 * truth.sum()
        assert not (found & ~ndimage.binary_dilation(truth, iterations=5)).any()
    else:
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.98
        assert not found[:, 44:].any()


def test_two_legs_are_both_body_and_a_picture_is_one_slice():
    legs = cylinder(9, (24, 14)) | cylinder(8, (24, 42))
    for truth in (legs, legs[:1]):
        assert np.array_equal(body_mask(np.where(truth, 40.0, -1000.0)[None].astype(np.float32)), truth)


@pytest.mark.parametrize("kind", ["crop", "constant", "one dark hole"])
def test_where_the_body_is_everything_so_is_the_mask(kind):
    rng = np.random.default_rng(1)
    values = {"crop": rng.normal(5, 1, SHAPE), "constant": np.full(SHAPE, 3.0), "one dark hole": rng.normal(100, 10, SHAPE)}[kind]
    if kind == "one dark hole":
        values[8:12, 20:30, 20:30] = 0
    assert body_mask(values[None].astype(np.float32)).all()


def test_no_organ_of_the_phantom_lies_outside_the_body():
    hu, labels, _ = phantom_case(np.random.default_rng(3), size=0.4)
    low, high = np.percentile(hu[labels > 0], (0.5, 99.5))
    mask = body_mask(np.clip(hu, low, high)[None].astype(np.float32))
    assert (mask & (labels > 0)).sum() > 0.999 * (labels > 0).sum()
    assert mask.mean() < 0.8


def blobs(seed: int) -> np.ndarray:
    mask = np.zeros((23, 17, 31), bool)
    rng = np.random.default_rng(seed)
    mask[tuple(rng.integers(0, n, 6) for n in mask.shape)] = True
    return mask


@pytest.mark.parametrize("slab", [2**22, 200])
@pytest.mark.parametrize("radius", [0, 1, 3, 6])
def test_dilation_is_by_a_ball_also_in_slabs(radius, slab, monkeypatch):
    monkeypatch.setattr(regions, "SLAB", slab)
    mask = blobs(radius)
    expected = ndimage.distance_transform_edt(~mask) <= radius
    assert np.array_equal(dilated(mask, radius), expected)
    away = distances(mask, 6)
    assert away.dtype == np.uint8
    for smaller in range(7):
        assert np.array_equal(away <= smaller, dilated(mask, smaller))


def test_nothing_and_everything_dilated():
    assert (distances(np.zeros((4, 5, 6), bool), 3) == 4).all()
    assert dilated(np.ones((4, 5, 6), bool), 3).all()


def with_region(source: str, radius: int):
    previous = "3d_lowres" if source == "previous" else None
    return patch_configuration((8, 8, 8), previous=previous, region=CandidateRegion(source, radius))


def test_each_source_of_a_region(caplog):
    organs = blobs(0).astype(np.int16) * 2
    volume = random_image(*organs.shape)
    assert candidate_region_mask(patch_configuration((8, 8, 8)), volume, organs) is None
    assert np.array_equal(candidate_region_mask(with_region("previous", 2), volume, organs), dilated(organs > 0, 2))
    assert np.array_equal(candidate_region_mask(with_region("body", 0), volume, None), body_mask(volume))
    with pytest.raises(ValueError, match="c1: .*3d_lowres.*missing"):
        candidate_region_mask(with_region("previous", 2), volume, None, source="c1")
    assert candidate_region_mask(with_region("previous", 2), volume, 0 * organs, source="c1") is None
    assert "c1: 3d_lowres found no organ" in caplog.text


@pytest.mark.parametrize("sees_previous", [False, True])
@pytest.mark.parametrize("radius", [None, 1])
def test_the_previous_stage_gives_the_region_and_only_where_it_is_seen_the_label_map(sees_previous, radius):
    volumes, shape = [], (6, 7, 8)
    organs = (random_label_map(*shape) == 3).astype(np.int16)
    predictor = SimpleNamespace(logits=lambda volume, progress: volumes.append(volume) or torch.zeros(2, *shape))
    region = None if radius is None else CandidateRegion("previous", radius)
    configuration = patch_configuration((8, 8, 8), previous="3d_lowres", region=region, previous_input=sees_previous)
    logits = predict_preprocessed(predictor, configuration, Volume(random_image(*shape), organs, case="c"), whole_trace(shape))
    (volume,) = volumes
    assert logits.trace == whole_trace(shape)
    assert volume.case == "c"
    assert (volume.previous is organs) == sees_previous
    assert volume.region is None if radius is None else np.array_equal(volume.region, dilated(organs > 0, radius))


def a_region(shape: tuple[int, ...], *boxes: tuple[slice, ...]) -> np.ndarray:
    region = np.zeros(shape, bool)
    for box in boxes:
        region[box] = True
    return region


REGIONS = {
    "two corners": ((10, 60, 12), [np.s_[:3, :4, :5], np.s_[7:, 55:, 8:]]),
    "the middle": ((9, 70, 20), [np.s_[3:5, 33:37, 9:12]]),
    "nothing": ((9, 40, 20), []),
    "everything": ((9, 30, 11), [np.s_[:, :, :]]),
    "padded": ((5, 40, 3), [np.s_[1:2, 30:34, 1:2]]),
}


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("step", [0.5, 1.0])
@pytest.mark.parametrize("regions_mode", [False, True])
def test_inside_as_ever_outside_background_and_other_tiles_never_computed(name, step, regions_mode):
    shape, boxes = REGIONS[name]
    options = {"labels": as_regions(a=(1,), b=(2,), c=(3,), d=(4,))} if regions_mode else {}
    seen, volume, region = [], random_image(*shape), a_region(shape, *boxes)
    one = make_predictor(lambda x: seen.append(len(x)) or voxelwise(x), (8, 8, 8), step=step, **options)
    logits = one.logits(Volume(volume, region=region))
    whole = make_predictor(voxelwise, (8, 8, 8), step=step, **options).logits(Volume(volume))
    assert torch.equal(logits[:, region], whole[:, region])
    outside = logits[:, ~region].float()
    assert (outside.sigmoid() < 1e-30).all() if regions_mode else (outside.softmax(0)[0] == 1).all()
    padded = [max(n, 8) for n in shape]
    wide = np.pad(region, [((p - n) // 2, p - n - (p - n) // 2) for p, n in zip(padded, shape, strict=True)])
    starts = tile_starts(padded, (8, 8, 8), step)
    touching = sum(bool(wide[tuple(slice(s, s + 8) for s in start)].any()) for start in starts)
    assert (one.computed, one.skipped) == (touching, len(starts) - touching)
    assert sum(seen) == touching
    assert name in ("everything", "padded") or one.skipped > 0


def test_a_region_for_slices_and_for_a_second_stage():
    volume, region = random_image(4, 20, 24), a_region((4, 20, 24), np.s_[1:2, 2:5, 15:20])
    one = make_predictor(voxelwise, (8, 8))
    logits = one.logits(Volume(volume, region=region))
    assert torch.equal(logits[:, region], make_predictor(voxelwise, (8, 8)).logits(Volume(volume))[:, region])
    assert one.computed < one.skipped
    stage = random_label_map(4, 20, 24)
    second = make_predictor(lambda x: x, (8, 8), previous="3d_lowres").logits(Volume(volume, previous=stage, region=region))
    expected = organs_as_channels(torch.from_numpy(stage)[None], LIVER_KIDNEYS)[0]
    assert torch.equal(second[1:, region].float(), expected[:, region])


def test_a_region_survives_memory_that_runs_out_and_must_fit_the_image():
    def hungry(x):
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return voxelwise(x)

    volume, region = random_image(8, 8, 40), a_region((8, 8, 40), np.s_[:, :, 20:25])
    one, whole = make_predictor(hungry, (8, 8, 8), batch=4), make_predictor(voxelwise, (8, 8, 8)).logits(Volume(volume))
    assert torch.equal(one.logits(Volume(volume, region=region))[:, region], whole[:, region])
    with pytest.raises(ValueError, match=r"c1: .*region.*\(8, 8, 40\).*\(8, 8, 8\)"):
        one.logits(Volume(volume, region=region[..., :8], case="c1"))
