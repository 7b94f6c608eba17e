"""Large arrays of a prediction in temporary files: the same logits, and pages that do not stay in memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import LIVER_KIDNEYS, make_predictor, random_image, voxelwise, whole_trace

from autoseg.inference import memory_limit as module
from autoseg.inference.export import export_labels
from autoseg.inference.logits import Logits
from autoseg.inference.memory_limit import MemoryLimit, folder_with_room
from autoseg.inference.predictor import Predictor
from autoseg.inference.volume_predictor import Volume
from autoseg.networks import build_network
from autoseg.networks.network_cost import held_bytes
from autoseg.runtime.hardware import memory_in_use


@pytest.mark.parametrize("most", [1, 10**12], ids=["files", "memory"])
@pytest.mark.parametrize("size", [(8, 24, 12), (24, 8, 12), (8, 12, 24)])
def test_within_a_limit_logits_and_labels_are_the_same(most: int, size: tuple[int, int, int], monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    volume, one = random_image(*size), make_predictor(voxelwise, (8, 8, 8), step=0.5)
    expected, limit = one.logits(Volume(volume)), MemoryLimit(most)
    found = one.logits(Volume(volume, limit=limit))
    assert limit.is_in_file(found) == (most == 1)
    assert torch.allclose(found.float(), expected.float(), atol=1e-2)
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    trace = whole_trace(size)
    maps = [export_labels([one], LIVER_KIDNEYS) for one in (limit.readable(Logits(found, trace)), Logits(expected, trace))]
    assert np.array_equal(*maps)


def test_outside_a_region_is_background_channel_by_channel() -> None:
    volume, one = random_image(8, 24, 12), make_predictor(voxelwise, (8, 8, 8))
    region = np.zeros((8, 24, 12), bool)
    region[:, 2:5] = True
    expected, found = (one.logits(Volume(volume, region=region, limit=limit)) for limit in (None, MemoryLimit(1)))
    assert torch.allclose(found.float(), expected.float(), atol=1e-2)


def test_arrays_in_files_leave_memory_and_keep_their_numbers() -> None:
    limit = MemoryLimit(1)
    tensor = limit.empty((4, 2**22), torch.float32, "case")
    tensor.fill_(3.0)
    before = memory_in_use()
    limit.release()
    assert before - memory_in_use() > 0.9 * tensor.nbytes
    assert float(tensor.min()) == 3.0


def test_what_is_given_counts_and_what_is_let_go_does_not() -> None:
    limit = MemoryLimit(memory_in_use() + 10**9, reserve=10**8)
    free = limit.free()
    assert 0 < free <= 9 * 10**8
    array = limit.empty((10**8,), torch.float16, "case", share=1.0)
    assert not limit.is_in_file(array)
    assert limit.free() == free - 2 * 10**8
    del array
    assert limit.free() == free


def test_without_a_disk_with_room_the_need_is_named(monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"scan 7: .*1000000\.0 GB .*TMPDIR"):
        folder_with_room(10**15, "scan 7")
    monkeypatch.setattr(module, "is_in_memory", lambda folder: True)
    with pytest.raises(ValueError, match="is memory"):
        folder_with_room(1, "scan 7")


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no folder in memory")
def test_folders_in_memory_are_known(tmp_path: Path) -> None:
    assert module.is_in_memory(Path("/dev/shm"))


def test_held_bytes_are_those_of_the_layers() -> None:
    grid = {"strides": [[1] * 3, [2] * 3], "kernel_sizes": [[3] * 3] * 2}
    options = {"features": [4, 8], "convs_per_stage": [1, 1], "decoder_convs": [1], **grid}
    network = build_network("plain_unet", dim=3, in_channels=1, out_channels=3, **options)
    held = held_bytes(network, (1, 1, 8, 8, 8))
    assert 4 * 8**3 * (4 + 4 + 8) <= held <= 4 * 8**3 * (1 + 4 * 5 + 3)
    assert next(network.parameters()).device.type == "cpu"


def test_a_predictor_counts_what_lies_in_files(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(MemoryLimit, "empty", lambda self, shape, dtype, source, *, share=0.25: asked.append(shape) or torch.zeros(shape))
    one: Predictor = make_predictor(voxelwise, (8, 8, 8))
    one.logits(Volume(random_image(8, 24, 12), limit=MemoryLimit(1)))
    assert asked == [(4, 8, 24, 12), (4, 8, 8, 12)], "logits, and sums one patch thick"
