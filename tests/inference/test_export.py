"""The export gives exactly what interpolating every class at every voxel gives, for every kind of case."""

from __future__ import annotations

import dataclasses
import itertools

import blosc2
import numpy as np
import pytest
import torch
from factories import GRIDS, LIVER_SPLEEN_AORTA, NESTED_REGIONS, blobs, grid_trace
from scipy.special import expit, softmax
from skimage.transform import resize

from autoseg.inference import logits_grid as grid
from autoseg.inference import winning_labels as winners
from autoseg.inference.averages import average_all
from autoseg.inference.export import export_labels, probabilities
from autoseg.inference.lazy_logits import with_temperature
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import quantise_8_bits
from autoseg.inference.sampled_probabilities import probabilities_at


def axis_matrix(n_in, n_out, nearest) -> np.ndarray:
    """Linear interpolation along one axis, written down independently: weights of the two neighbours."""
    matrix = np.zeros((n_out, n_in))
    for row in range(n_out):
        where = min(max((row + 0.5) * n_in / n_out - 0.5, 0), n_in - 1)
        if nearest:
            matrix[row, min(int(np.floor(where + 0.5)), n_in - 1)] = 1
        else:
            low = int(np.floor(where))
            matrix[row, low] += 1 - (where - low)
            matrix[row, min(low + 1, n_in - 1)] += where - low
    return matrix


def full(member: Logits, nearest_axis) -> np.ndarray:
    """All classes at all voxels of the cropped box, float64."""
    values = np.asarray(member.array[:], np.float64)
    for axis, (start, stop) in enumerate(member.trace.crop):
        matrix = axis_matrix(values.shape[axis + 1], stop - start, axis == nearest_axis)
        values = np.moveaxis(np.tensordot(matrix, values, (1, axis + 1)), 0, axis + 1)
    return values


def in_file_order(volume, trace) -> np.ndarray:
    volume = np.flip(volume, trace.flips)
    return (volume[0] if trace.geometry.dim == 2 else volume).transpose(np.argsort(trace.transpose))


def brute_force(members, labels, nearest_axes):
    """Label map and probabilities by the definition, in the file's order."""
    shares = []
    for member, axis in zip(members, nearest_axes, strict=True):
        values = full(member, axis)
        shares.append(values / 255 if member.kind == "probability8" else expit(values) if labels.regions else softmax(values, axis=0))
    mean = np.mean(shares, axis=0)
    trace = members[0].trace
    box = tuple(slice(*span) for span in trace.crop)
    everywhere = np.zeros((labels.n_outputs, *trace.shape_before_crop))
    if not labels.regions:
        everywhere[0] = 1
    everywhere[(slice(None), *box)] = mean
    segmentation = np.zeros(trace.shape_before_crop, np.int16)
    if labels.regions:
        for probability, value in zip(everywhere, labels.regions_class_order, strict=True):
            segmentation[probability > 0.5] = value
    else:
        segmentation = np.array([0, *(member[0] for member in labels.internal_members)])[everywhere.argmax(0)]
    everywhere = [in_file_order(channel, trace) for channel in everywhere]
    return in_file_order(segmentation, trace), np.stack(everywhere)


def exact_labels(members, labels, nearest_axes) -> np.ndarray:
    """What the export gives, after it was found to be exact.

    Float32 decides ties its own way: nothing else may differ, and ties must be rare enough for the comparison to mean something.
    """
    expected, probability = brute_force(members, labels, nearest_axes)
    found = export_labels(members, labels)
    np.testing.assert_array_equal(found, same_arithmetic_everywhere(members, labels))
    top = np.sort(probability, axis=0)
    margin = np.abs(probability - 0.5).min(0) if labels.regions else top[-1] - top[-2]
    tie = (margin < 1e-6).reshape(found.shape)
    np.testing.assert_array_equal(np.where(tie, 0, found), np.where(tie, 0, expected))
    assert tie.mean() < 0.01
    return found


def same_arithmetic_everywhere(members, labels):
    """What the export computes near borders, computed at every voxel instead: no cell is skipped."""
    grids = [grid.Grid.of(member) for member in members]
    spans = [(0, len(axis.low)) for axis in grids[0].axes]
    values = [one.interpolated(spans).reshape(labels.n_outputs, -1) for one in grids]
    winner = winners.winning_channels(values, [one.kind for one in grids], regions=labels.regions)
    trace = members[0].trace
    segmentation = np.zeros(trace.shape_before_crop, np.int16)
    painted = labels.regions_class_order if labels.regions else [member[0] for member in labels.internal_members]
    segmentation[tuple(slice(*span) for span in trace.crop)] = np.array([0, *painted])[winner].reshape([stop for _, stop in spans])
    return in_file_order(segmentation, trace)


NEAREST = {"slices": 0, "slices_of_the_file": 0, "flat": 0, "flat_transposed": 0}


BOTH_KINDS = pytest.mark.parametrize("labels", [LIVER_SPLEEN_AORTA, NESTED_REGIONS], ids=["organs", "regions"])


@pytest.fixture(params=["whole", "small slabs"])
def slabs(request, monkeypatch):
    if request.param == "small slabs":
        monkeypatch.setattr(grid, "SLAB", 1000)
        monkeypatch.setattr(grid, "LABEL_SLAB", 700)
        monkeypatch.setattr(grid, "CHUNK", 300)


@BOTH_KINDS
@pytest.mark.parametrize("name", GRIDS)
def test_labels_are_exactly_those_of_full_interpolation(name, labels, slabs):
    for seed in range(3):
        member = Logits(torch.from_numpy(blobs(GRIDS[name].shape, labels.n_outputs, seed=seed)), GRIDS[name])
        found = exact_labels([member], labels, [NEAREST.get(name)])
        assert found.shape == GRIDS[name].geometry.shape
        assert found.dtype == np.int16
        assert len(np.unique(found)) == 4


@BOTH_KINDS
@pytest.mark.parametrize("names", [("finer", "finer"), ("slices", "slices", "slices"), ("transposed", "transposed")])
def test_members_on_the_same_grid_are_averaged_exactly(names, labels):
    members = [Logits(blobs(GRIDS[name].shape, labels.n_outputs, seed=5 + i), GRIDS[name]) for i, name in enumerate(names)]
    assert len(np.unique(exact_labels(members, labels, [NEAREST.get(name) for name in names]))) == 4


@BOTH_KINDS
def test_members_on_different_grids_and_of_different_kinds_are_averaged_exactly(labels, slabs):
    crop, before, file_spacing = ((1, 19), (2, 25), (0, 22)), (21, 26, 22), (3.0, 1.0, 1.0)
    traces = [
        grid_trace((18, 12, 11), crop, before, spacing=(3.0, 2.0, 2.0), file_spacing=file_spacing),
        grid_trace((27, 11, 10), crop, before, spacing=(2.0, 2.1, 2.2), file_spacing=file_spacing),
        grid_trace((9, 20, 30), crop, before, spacing=(6.0, 1.2, 0.8), file_spacing=file_spacing),
    ]
    quantised = np.random.default_rng(0).integers(0, 256, (labels.n_outputs, 9, 20, 30)).astype(np.uint8)
    members = [Logits(blobs(t.shape, labels.n_outputs, seed=i), t) for i, t in enumerate(traces[:2])]
    members.append(Logits(blosc2.asarray(quantised, chunks=(1, 4, 20, 30)), traces[2], "probability8"))
    assert len(np.unique(exact_labels(members, labels, [None, None, 0]))) == 4


def test_labels_equal_those_after_the_reference_resize():
    case = GRIDS["finer"]
    array, box = blobs(case.shape, 4, seed=9).astype(np.float32), tuple(slice(*span) for span in case.crop)
    resized = [resize(channel, [side.stop - side.start for side in box], 1, mode="edge", anti_aliasing=False) for channel in array]
    found = export_labels([Logits(array, case)], LIVER_SPLEEN_AORTA)
    np.testing.assert_array_equal(found[box], np.array([0, 3, 1, 2])[np.argmax(resized, axis=0)])


def test_an_organ_that_wins_at_no_corner_is_found():
    """Halfway between two rivals the third, second best at both, is best: corners that disagree must see all classes."""
    array = np.zeros((4, 2, 2, 2), np.float32)
    array[1, ..., 0], array[1, ..., 1] = 10, -10
    array[2, ..., 0], array[2, ..., 1] = -10, 10
    array[3] = 8
    found = export_labels([Logits(array, grid_trace((2, 2, 2), ((0, 2), (0, 2), (0, 20)), (2, 2, 20)))], LIVER_SPLEEN_AORTA)
    assert set(np.unique(found)) == {1, 2, 3}


@pytest.mark.parametrize("name", GRIDS)
@BOTH_KINDS
def test_probabilities_are_streamed_in_the_files_order(name, labels, slabs):
    member = Logits(blobs(GRIDS[name].shape, labels.n_outputs, seed=2), GRIDS[name])
    _, expected = brute_force([member, member], labels, [NEAREST.get(name)] * 2)
    starts, parts = zip(*probabilities([member, member], labels), strict=True)
    assert list(starts) == list(itertools.accumulate((part.shape[1] for part in parts[:-1]), initial=0))
    assert all(part.dtype == np.float32 for part in parts)
    np.testing.assert_allclose(np.concatenate(parts, 1).reshape(expected.shape), expected, atol=2e-6)


def test_interpolating_single_voxels_and_boxes_gives_the_same_bits():
    member = grid.Grid.of(Logits(blobs((9, 10, 11), 4, seed=1), GRIDS["finer"]))
    box = member.interpolated([(0, 18), (0, 23), (0, 22)])
    points = np.unravel_index(np.arange(18 * 23 * 22), (18, 23, 22))
    single = member.at(member.read([(0, 9), (0, 10), (0, 11)]), (0, 0, 0), points)
    assert torch.equal(single, box.reshape(4, -1))


def test_only_voxels_near_borders_are_interpolated(monkeypatch):
    """The memory and speed promise: two half-spaces need classes at the two layers of cells between them, nowhere else."""
    array = np.zeros((4, 20, 20, 20), np.float16)
    array[1, :, :, 10:], array[0, :, :, :10] = 5, 5
    interpolated, at = [], grid.Grid.at
    monkeypatch.setattr(
        grid.Grid, "at", lambda self, box, first, points: interpolated.append(len(points[0])) or at(self, box, first, points)
    )
    found = export_labels([Logits(array, grid_trace((20, 20, 20), ((0, 60), (0, 60), (0, 60)), (60, 60, 60)))], LIVER_SPLEEN_AORTA)
    assert (found[..., 30:] == 3).all()
    assert not found[..., :30].any()
    assert 0 < sum(interpolated) <= 60 * 60 * 3


def test_logits_that_do_not_fit_their_trace_are_refused():
    array = blobs((9, 10, 11), 4, seed=0)
    for values, kind, message in ((array[..., :10], "logits", r"case_1: .*\(9, 10, 11\).*\(4, 9, 10, 10\)"), (array, "softmax", "softmax")):
        with pytest.raises(ValueError, match=message):
            Logits(values, GRIDS["finer"], kind)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([], "at least one model"),
        ([(3, GRIDS["finer"])], "case_1: expected 4 .*liver, spleen, aorta, got 3"),
        ([(4, GRIDS["finer"]), (4, GRIDS["same"])], "case_1: .*(shape_before_crop|geometry)"),
        ([(4, GRIDS["finer"]), (4, dataclasses.replace(GRIDS["finer"], flips=(2,)))], "case_1: .*flips"),
        ([(4, GRIDS["finer"]), (4, dataclasses.replace(GRIDS["finer"], case="other"))], "disagree about the case"),
    ],
)
def test_members_that_do_not_belong_together_are_refused(members, reason):
    logits = [Logits(blobs((9, 10, 11), outputs, seed=0), trace) for outputs, trace in members]
    together = lambda members, labels: average_all(dict(enumerate(members)), [], labels)  # noqa: E731
    for function in (export_labels, together, lambda *given: list(probabilities(*given))):
        with pytest.raises(ValueError, match=reason):
            function(logits, LIVER_SPLEEN_AORTA)


def members_of(name, labels):
    """One that gives logits, one with probabilities in eight bits and a temperature."""
    arrays = [blobs(GRIDS[name].shape, labels.n_outputs, seed=seed, scale=2.0) for seed in (0, 1)]
    stored = Logits(quantise_8_bits(arrays[1], labels), GRIDS[name], "probability8")
    return [Logits(arrays[0], GRIDS[name]), with_temperature(stored, 1.7, labels)]


@BOTH_KINDS
@pytest.mark.parametrize("name", GRIDS)
def test_probabilities_at_single_voxels_are_those_of_the_whole_volume(name, labels, slabs):
    members, shape = members_of(name, labels), GRIDS[name].geometry.shape
    everywhere = np.stack(np.unravel_index(np.random.default_rng(0).permutation(int(np.prod(shape))), shape))
    found = probabilities_at(members, everywhere, labels)
    whole = np.concatenate([slab for _, slab in probabilities(members, labels)], axis=1).reshape(labels.n_outputs, *shape)
    np.testing.assert_allclose(found, whole[(slice(None), *everywhere)].T, atol=1e-5)


def test_only_what_lies_around_single_voxels_is_read_and_outside_the_crop_is_background(monkeypatch):
    boxes, original = [], grid.Grid.read
    monkeypatch.setattr(grid.Grid, "read", lambda self, spans: boxes.append(spans) or original(self, spans))
    members = members_of("finer", LIVER_SPLEEN_AORTA)[:1]
    probabilities_at(members, np.array([[5, 6], [20, 20], [3, 4]]), LIVER_SPLEEN_AORTA)
    (spans,) = boxes
    assert all(stop - start <= 3 for start, stop in spans)
    outside = probabilities_at(members, np.array([[0, 20, 5], [0, 20, 1], [0, 1, 1]]), LIVER_SPLEEN_AORTA)
    np.testing.assert_array_equal(outside, [[1, 0, 0, 0]] * 3)
    assert probabilities_at(members, np.empty((3, 0), int), LIVER_SPLEEN_AORTA).shape == (0, 4)
