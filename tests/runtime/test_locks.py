"""A folder belongs to one living process; what a dead one left is known as such."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoseg.runtime import locks
from autoseg.runtime.disk import WriteError
from autoseg.runtime.locks import Holder, exclusive_lock, partial_name, remove_partial_files
from autoseg.runtime.processes import Machine, is_alive, started

HOLD = """
import sys, time
from pathlib import Path
from autoseg.runtime.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    time.sleep(60)
"""


def leave_lock(folder: Path, *, age: float = 0, **changes: object) -> None:
    """Writes the lock of another holder, touched `age` seconds ago."""
    path = folder / ".lock"
    holder = dataclasses.replace(Holder.new("training"), token="of another", **changes)
    path.write_text(json.dumps(dataclasses.asdict(holder)))
    os.utime(path, (time.time() - age,) * 2)


def test_a_killed_process_frees_its_folder_at_once(tmp_path: Path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    other.kill()  # and nobody waits for it: it stays in the table of processes
    time.sleep(0.2)
    begun = time.monotonic()
    with exclusive_lock(tmp_path, "training"):
        assert time.monotonic() - begun < 1
    other.communicate()
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_another_process_got_meanwhile_is_not_the_holder(tmp_path: Path):
    leave_lock(tmp_path, started="1")
    with exclusive_lock(tmp_path, "training"):
        assert json.loads((tmp_path / ".lock").read_text())["started"] != "1"


@pytest.mark.parametrize("machine", [Machine("elsewhere", "b", "1"), dataclasses.replace(Machine.this(), namespace="container")])
def test_another_machine_or_container_counts_until_it_is_silent(machine: Machine, tmp_path: Path):
    leave_lock(tmp_path, machine=machine, pid=1, age=locks.STALE_SECONDS - 60)
    with pytest.raises(ValueError, match=f"training here .process 1 on {machine.host}, since .*free 5 minutes later"):
        exclusive_lock(tmp_path, "training").__enter__()
    leave_lock(tmp_path, machine=machine, pid=os.getpid(), age=locks.STALE_SECONDS + 60)
    with exclusive_lock(tmp_path, "training"):
        pass


@pytest.mark.parametrize("content", ["", "{", '{"pid": 1}'])
def test_a_lock_whose_writer_was_killed_is_taken_over(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "UNWRITTEN_SECONDS", 0.5)
    (tmp_path / ".lock").write_text(content)
    with exclusive_lock(tmp_path, "training"):
        assert f'"pid": {os.getpid()}' in (tmp_path / ".lock").read_text()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_where_flock_fails_the_lock_works_all_the_same(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive_lock(tmp_path, "training"), pytest.raises(ValueError, match="another process is training here"):
        exclusive_lock(tmp_path, "training").__enter__()
    with exclusive_lock(tmp_path, "training"):
        pass


def test_of_many_that_take_over_one_wins(tmp_path: Path):
    leave_lock(tmp_path, started="1")
    held, most = [], []

    def take() -> None:
        with exclusive_lock(tmp_path, "training", wait=True):
            held.append(1)
            most.append(len(held))
            time.sleep(0.01)
            held.pop()

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6
    assert list(tmp_path.iterdir()) == []


def test_the_holder_touches_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.05)
    with exclusive_lock(tmp_path, "training"):
        os.utime(tmp_path / ".lock", (0, 0))
        time.sleep(0.5)
        assert (tmp_path / ".lock").stat().st_mtime > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_does_not_give_its_parents_lock_back(tmp_path: Path):
    lock = exclusive_lock(tmp_path, "training")
    lock.__enter__()
    if (child := os.fork()) == 0:
        lock.__exit__(None, None, None)
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / ".lock").is_file()
    lock.__exit__(None, None, None)
    assert not (tmp_path / ".lock").exists()


def test_a_process_is_known_by_its_number_and_start():
    assert is_alive(os.getpid(), started(os.getpid()))
    assert not is_alive(os.getpid(), "1") or not started(os.getpid())
    assert not is_alive(2**22 + 1)


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        (lambda name: name, True),
        (lambda name: name.replace(f".partial-{os.getpid()}.", ".partial-99999999."), False),
        (lambda name: name.replace(Machine.this().key, "0" * 8), True),
    ],
    ids=["of this process", "of a dead process", "of another machine"],
)
def test_partial_files_of_living_processes_stay(change: Callable[[str], str], stays: bool, tmp_path: Path):
    path = tmp_path / change(partial_name("image.nii.gz"))
    path.touch()
    remove_partial_files(tmp_path)
    assert path.exists() == stays
    if stays and str(os.getpid()) in path.name and Machine.this().key not in path.name:
        os.utime(path, (0, 0))
        remove_partial_files(tmp_path)
        assert not path.exists()


def test_a_lock_is_removed_though_the_disk_became_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    created = locks._created

    def full(path: Path, content: bytes) -> bool:
        if path.name == locks.LOCK:
            return created(path, content)
        raise WriteError(errno.ENOSPC, "full")

    monkeypatch.setattr(locks, "_created", full)
    with exclusive_lock(tmp_path, "training"):
        assert (tmp_path / locks.LOCK).exists()
    assert not list(tmp_path.iterdir())
