"""The sliding window on networks whose answer is known: each voxel's own value, its side, its mistakes."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from factories import LIVER_KIDNEYS, make_predictor, random_image, random_label_map, voxelwise, whole_trace

from autoseg.inference import patch_aggregator as module
from autoseg.inference.export import export_labels
from autoseg.inference.logits import Logits
from autoseg.inference.tiling import gaussian_window, tile_starts
from autoseg.inference.volume_predictor import Volume
from autoseg.schema import Labels, Mirroring


def assert_voxelwise(logits: torch.Tensor, volume: np.ndarray, factor: int = 1) -> None:
    expected = factor * voxelwise(torch.from_numpy(volume)[None])[0]
    torch.testing.assert_close(logits.float(), expected, rtol=2e-3, atol=2e-3 * factor)


@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 20, 3), (17, 9, 30), (1, 8, 8), (40, 8, 9)])
@pytest.mark.parametrize("batch", [1, 5, None])
def test_a_voxelwise_network_is_given_back_at_every_voxel(shape, batch):
    volume = random_image(*shape)
    logits = make_predictor(voxelwise, (8, 8, 8), batch=batch, mirroring=Mirroring(axes=(0, 1, 2))).logits(Volume(volume))
    assert logits.dtype == torch.float16
    assert_voxelwise(logits, volume)


@pytest.mark.parametrize("shape", [(6, 8, 20), (1, 33, 8), (4, 5, 6)])
def test_2d_sees_every_slice_by_itself(shape):
    seen = []

    volume = random_image(*shape)
    network = make_predictor(lambda x: seen.append(x.shape) or voxelwise(x), (8, 8), batch=4)
    assert_voxelwise(network.logits(Volume(volume)), volume)
    assert {tuple(patch) for _, _, *patch in seen} == {(8, 8)}
    assert max(seen)[0] == 4 or shape[0] == 1


@pytest.mark.parametrize("shape", [(12, 30, 14), (30, 9, 11), (9, 10, 40)])
def test_overlapping_tiles_are_weighted_as_by_the_plain_formula(shape):
    """The network's answer depends on where in the patch a voxel is, so every weight counts."""
    patch = (8, 8, 8)
    bias = torch.randn(4, *patch, generator=torch.Generator().manual_seed(0))
    volume = random_image(*shape)
    logits = make_predictor(lambda x: voxelwise(x) + bias, patch, batch=3).logits(Volume(volume))
    total, weight = torch.zeros(4, *shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    window = gaussian_window(patch).double()
    for start in tile_starts(shape, patch):
        box = tuple(slice(s, s + e) for s, e in zip(start, patch, strict=True))
        total[(slice(None), *box)] += (voxelwise(torch.from_numpy(volume)[(None, slice(None), *box)])[0] + bias) * window
        weight[box] += window
    torch.testing.assert_close(logits.double(), total / weight, rtol=2e-3, atol=2e-3)


def test_networks_are_averaged():
    volume = random_image(8, 8, 8)
    predictor = make_predictor([voxelwise, lambda x: 3 * voxelwise(x)], (8, 8, 8))
    assert_voxelwise(predictor.logits(Volume(volume)), volume, factor=2)


def position_aware(x: torch.Tensor) -> torch.Tensor:
    ramp = torch.arange(8.0).reshape(-1, 1, 1) + 10 * torch.arange(8.0).reshape(-1, 1) + 100 * torch.arange(8.0)
    return voxelwise(x) + ramp


@pytest.mark.parametrize(("axes", "mirror"), [((0, 1), True), ((0, 1, 2), True), ((0, 1), False)])
def test_only_the_valid_flips_are_averaged(axes, mirror):
    volume, dims = random_image(8, 8, 8), [axis + 2 for axis in axes] if mirror else []
    x = torch.from_numpy(volume)[None]
    flips = [flip for count in range(len(dims) + 1) for flip in itertools.combinations(dims, count)]
    expected = sum(position_aware(x.flip(flip)).flip(flip) for flip in flips)[0] / len(flips)
    logits = make_predictor(position_aware, (8, 8, 8), mirroring=Mirroring(axes=axes), mirror=mirror).logits(Volume(volume))
    torch.testing.assert_close(logits.float(), expected, rtol=2e-3, atol=2e-3)


def test_several_flips_of_a_small_volume_are_computed_at_once():
    sizes, volume = [], random_image(8, 8, 8)

    def network(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return position_aware(x)

    results = []
    for batch in (1, 3, 16):
        sizes.clear()
        predictor = make_predictor(network, (8, 8, 8), mirroring=Mirroring(axes=(0, 1, 2)), batch=batch)
        results.append(predictor.logits(Volume(volume)))
        assert sizes == {1: [1] * 8, 3: [3, 3, 2], 16: [8]}[batch]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def by_side(x: torch.Tensor) -> torch.Tensor:
    """Calls everything bright left of the middle the left kidney, and the rest the right one: a network that knows sides."""
    is_left = (torch.arange(x.shape[-1]) < x.shape[-1] // 2).float()
    bright = x[:, :1]
    return torch.cat([1 - bright, torch.zeros_like(bright) - 5, bright * is_left, bright * (1 - is_left)], 1)


@pytest.mark.parametrize("regions", [False, True])
def test_left_and_right_change_places_under_the_lateral_flip(regions):
    labels = Labels(("kidney_left", "kidney_right"), ((1,), (2,)), regions=True, regions_class_order=(1, 2)) if regions else LIVER_KIDNEYS
    pairs = ((0, 1),) if regions else ((1, 2),)
    network = (lambda x: by_side(x)[:, 2:]) if regions else by_side
    volume = np.abs(random_image(8, 8, 8)) + 1
    mirroring = Mirroring(axes=(0, 1, 2), lateral_axis=2, pairs=pairs)
    logits = make_predictor(network, (8, 8, 8), labels=labels, mirroring=mirroring).logits(Volume(volume))
    torch.testing.assert_close(logits.float(), network(torch.from_numpy(volume)[None])[0], rtol=2e-3, atol=2e-3)
    wrong = make_predictor(network, (8, 8, 8), labels=labels, mirroring=Mirroring(axes=(0, 1, 2))).logits(Volume(volume))
    assert (wrong.float() - logits.float()).abs().max() > 0.3


def test_the_previous_stage_changes_sides_too():
    """A cascade's label channels: one image channel, then liver, left, right (internal values 1, 2, 3)."""
    volume, stage = random_image(8, 8, 8), random_label_map(8, 8, 8)
    mirroring = Mirroring(axes=(1, 2), lateral_axis=2, pairs=((1, 2),))
    logits = make_predictor(lambda x: x, (8, 8, 8), mirroring=mirroring, previous="3d_lowres").logits(Volume(volume, previous=stage))
    expected = torch.from_numpy(np.concatenate([volume, [stage == value for value in (1, 2, 3)]]).astype(np.float32))
    torch.testing.assert_close(logits.float(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("patch", [(8, 8, 8), (8, 8)])
@pytest.mark.parametrize("shape", [(17, 9, 12), (3, 20, 5), (8, 8, 8)])
def test_the_previous_stages_label_map_becomes_channels_a_tile_at_a_time(patch, shape):
    seen, volume, stage = [], random_image(*shape), random_label_map(*shape)
    logits = make_predictor(lambda x: seen.append(tuple(x.shape[1:])) or x, patch, previous="3d_lowres").logits(
        Volume(volume, previous=stage)
    )
    expected = np.concatenate([volume, [stage == value for value in (1, 2, 3)]]).astype(np.float32)
    torch.testing.assert_close(logits.float(), torch.from_numpy(expected), rtol=2e-3, atol=2e-3)
    assert set(seen) == {(4, *patch)}


def test_a_missing_an_unexpected_and_a_misplaced_previous_stage_are_refused():
    for stage, previous, message in (
        ("3d_lowres", None, "c1: .*3d_lowres.*none"),
        ("3d_lowres", random_label_map(8, 8, 9), r"c1: .*3d_lowres.*\(8, 8, 8\).*\(8, 8, 9\)"),
        (None, random_label_map(8, 8, 8), "c1: test expects no"),
    ):
        with pytest.raises(ValueError, match=message):
            make_predictor(voxelwise, (8, 8, 8), previous=stage).logits(Volume(random_image(8, 8, 8), previous=previous, case="c1"))


def is_in_a_file(tensor: torch.Tensor) -> bool:
    """Whether a mapping of this process with a file behind it holds the tensor's first number."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, stop = (int(end, 16) for end in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < stop:
            return int(line.split()[4]) > 0
    return False


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="other systems do not tell where memory comes from")
@pytest.mark.parametrize("shape", [(8, 24, 9), (5, 20, 3)], ids=["as large as the patch", "padded"])
def test_logits_that_would_take_much_of_the_memory_lie_in_a_file(monkeypatch, tmp_path, shape):
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    volume = random_image(*shape)
    in_memory = make_predictor(voxelwise, (8, 8, 8)).logits(Volume(volume))
    monkeypatch.setattr(module, "available_memory", lambda: 30_000)
    in_file = make_predictor(voxelwise, (8, 8, 8)).logits(Volume(volume))
    assert list(tmp_path.iterdir()) == [], "nothing is left behind, even by a process that is killed"
    assert is_in_a_file(in_file)
    assert not is_in_a_file(in_memory)
    assert torch.equal(in_file, in_memory)
    trace = whole_trace(shape)
    assert np.array_equal(*(export_labels([Logits(one, trace)], LIVER_KIDNEYS) for one in (in_file, in_memory)))


def test_a_disk_without_room_is_reported_and_memory_used(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "available_memory", lambda: 1)
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(module.os, "posix_fallocate", full, raising=False)
    volume = random_image(8, 8, 8)
    assert_voxelwise(make_predictor(voxelwise, (8, 8, 8)).logits(Volume(volume, case="case_7")), volume)
    assert "case_7" in caplog.text
    assert "TMPDIR" in caplog.text


def test_without_reserving_free_space_is_looked_up(monkeypatch, caplog):
    monkeypatch.setattr(module, "available_memory", lambda: 1)
    monkeypatch.delattr(module.os, "posix_fallocate", raising=False)
    assert module.empty_logits((4, 8, 8, 8), "c1").shape == (4, 8, 8, 8)
    assert caplog.text == ""
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    assert module.empty_logits((4, 8, 8, 8), "c1").shape == (4, 8, 8, 8)
    assert "TMPDIR" in caplog.text


def test_out_of_memory_is_answered_with_smaller_batches_and_remembered():
    sizes = []

    def hungry(x):
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return voxelwise(x)

    shares = []
    one = make_predictor(hungry, (8, 8, 8), batch=8)
    volume = random_image(8, 8, 40)
    assert_voxelwise(one.logits(Volume(volume), progress=shares.append), volume)
    assert sizes[:3] == [8, 4, 2]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0
    sizes.clear()
    one.logits(Volume(volume))
    assert max(sizes) == 2


@pytest.mark.parametrize(
    ("error", "batch"), [(torch.OutOfMemoryError("CUDA out of memory"), 1), (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), 8)]
)
def test_every_other_error_and_the_last_out_of_memory_are_raised(error, batch):
    network = Mock(side_effect=error)
    with pytest.raises(type(error), match=str(error)):
        make_predictor(network, (8, 8, 8), batch=batch).logits(Volume(random_image(8, 8, 8)))
    assert network.call_count == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e6])
def test_broken_logits_are_refused_with_the_case(value):
    def broken(x):
        output = voxelwise(x)
        output[0, 1, 3, 3, 3] = value
        return output

    with pytest.raises(ValueError, match="case_7"):
        make_predictor(broken, (8, 8, 8)).logits(Volume(random_image(8, 8, 8), case="case_7"))


def test_a_network_of_the_wrong_kind_is_refused():
    image = random_image(8, 8, 8)
    for network, volume, message in (
        (lambda x: x, image, r"\(1, 4, 8, 8, 8\).*\(1, 1, 8, 8, 8\)"),
        (lambda x: (voxelwise(x),), image, "tuple"),
        (voxelwise, image[0], "c1: .*C, Z, Y, X"),
    ):
        with pytest.raises(ValueError, match=message):
            make_predictor(network, (8, 8, 8)).logits(Volume(volume, case="c1"))


@pytest.mark.parametrize(("options", "message"), [({"step": 0}, "step"), ({"step": 1.5}, "step"), ({"batch": 0}, "batch"), ({}, "network")])
def test_senseless_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_predictor(voxelwise if options else [], (8, 8, 8), **options)


def test_sums_reach_only_one_patch_along_the_longest_axis(monkeypatch):
    """The memory promise: besides the result, one patch's thickness of float32 sums."""
    shapes, finish = [], module.PatchAggregator.finish
    monkeypatch.setattr(module.PatchAggregator, "finish", lambda self: shapes.append(tuple(self.total.shape)) or finish(self))
    for order in set(itertools.permutations((8, 10, 64))):
        make_predictor(voxelwise, (8, 8, 8)).logits(Volume(random_image(*order)))
        assert shapes[-1] == (4, *(8 if n == 64 else n for n in order))
