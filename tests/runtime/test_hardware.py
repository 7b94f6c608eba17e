"""What the computer offers, and how a wrong device is answered."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from autoseg.runtime import hardware as machine
from autoseg.runtime.hardware import (
    autocast,
    autocast_dtype,
    available_memory,
    choose_device,
    cpu_count,
    device_memory,
    is_out_of_memory,
    keep_freed_memory,
    memory_format,
    peak_memory,
    release_memory,
)

CPU = torch.device("cpu")


def pretend_files(monkeypatch: pytest.MonkeyPatch, texts: dict[str, str]) -> None:
    def read_text(path: Path, *_: object, **__: object) -> str:
        if str(path) in texts:
            return texts[str(path)]
        raise OSError("not there")

    monkeypatch.setattr(machine.Path, "read_text", read_text)


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8), (None, 8)]
)
def test_cores_follow_the_containers_quota(monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    pretend_files(monkeypatch, {"/sys/fs/cgroup/cpu.max": quota} if quota else {})
    assert cpu_count() == expected


def test_memory_is_what_system_and_container_both_leave(monkeypatch):
    files = {"/proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n"}
    for limit, available in ((None, 8000 * 1024), ("5000000", 3_000_000), ("max", 8000 * 1024), ("1000", 0)):
        cgroup = {"/sys/fs/cgroup/memory.max": limit, "/sys/fs/cgroup/memory.current": "2000000"} if limit else {}
        pretend_files(monkeypatch, files | cgroup)
        assert available_memory() == available


def test_this_computers_numbers_are_plausible():
    assert cpu_count() >= 1
    assert 2**20 < peak_memory() < 2**50
    assert 0 <= device_memory(CPU) < 2**60
    assert keep_freed_memory() in (True, False)
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "cpu"), (False, False, "cpu")], ids=["gpu", "apple", "none"]
)
def test_auto_takes_a_gpu_and_apples_only_when_asked_for(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == expected
    if mps:
        assert choose_device("mps").type == "mps"


@pytest.mark.parametrize("name", ["banana", "gpu", "cuda:x", "", "meta"])
def test_an_unknown_device_is_answered_with_the_known_ones(name):
    with pytest.raises(ValueError, match="--device: expected auto, cpu, cuda, cuda:N or mps"):
        choose_device(name)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(ValueError, match=f"--device {name}: .*use --device cpu"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="cuda:2: expected a GPU below cuda:2"):
        choose_device("cuda:2")


def test_half_precision_is_used_only_where_the_processor_has_it(monkeypatch):
    monkeypatch.setattr(machine, "_is_bf16_faster", lambda: True)
    for supported, expected in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda supported=supported: supported)
        assert autocast_dtype(CPU) is expected
        with autocast(CPU):
            assert torch.is_autocast_enabled("cpu") is supported
    assert autocast_dtype(torch.device("mps")) is None
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: pytest.fail("an installation without mkldnn has no such op"))
    assert autocast_dtype(CPU) is None


@pytest.mark.parametrize(
    ("processor", "tiles", "faster"),
    [("GenuineIntel", True, True), ("GenuineIntel", False, False), ("AuthenticAMD", False, True), (None, False, True)],
)
def test_intels_processors_compute_in_float32_unless_they_have_matrix_tiles(monkeypatch, processor, tiles, faster):
    pretend_files(monkeypatch, {"/proc/cpuinfo": f"vendor_id\t: {processor}\n\nvendor_id : other"} if processor else {})
    monkeypatch.setattr(machine.platform, "processor", lambda: "aarch64")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    assert machine._is_bf16_faster.__wrapped__() is faster


@pytest.mark.parametrize(
    ("capability", "hip", "expected"),
    [((9, 0), None, torch.bfloat16), ((8, 0), None, torch.bfloat16), ((7, 5), None, torch.float16), ((7, 0), "6.2", torch.bfloat16)],
)
def test_gpus_that_only_emulate_bfloat16_compute_in_float16(monkeypatch, capability, hip, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert autocast_dtype(torch.device("cuda", 1)) is expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not tell")
def test_the_peak_of_a_child_is_not_its_parents():
    held = bytearray(b"x") * 2**29
    assert peak_memory() > len(held)
    code = "from autoseg.runtime.hardware import peak_memory; print(peak_memory())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**20 < int(found.stdout) < 2**28


def test_memory_that_nobody_uses_is_given_back(monkeypatch):
    class Ring:
        pass

    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    gc.disable()
    try:
        ring = Ring()
        ring.itself, alive = ring, weakref.ref(ring)
        del ring
        assert alive() is not None
        release_memory(CPU)
        assert alive() is None
        assert not emptied
    finally:
        gc.enable()
    release_memory(torch.device("cuda"))
    assert emptied == [True]


def test_channels_lie_last():
    assert memory_format(3) is torch.channels_last_3d
    assert memory_format(2) is torch.channels_last


def test_out_of_memory_is_told_from_other_errors():
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("MPS backend out of memory"),
    ):
        assert is_out_of_memory(error)
    for error in (RuntimeError("shape mismatch"), ValueError("case: damaged"), KeyboardInterrupt()):
        assert not is_out_of_memory(error)
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
