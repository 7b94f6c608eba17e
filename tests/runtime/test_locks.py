"""A folder belongs to one living process; what a dead one left is known as such."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from autoseg.runtime import lock_files, locks, processes
from autoseg.runtime.disk import WriteError
from autoseg.runtime.lock_files import FoundLock, Holder
from autoseg.runtime.locks import exclusive_lock, partial_name, remove_partial_files
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


@pytest.mark.parametrize("machine", [Machine("elsewhere", "b", "1"), dataclasses.replace(Machine.this(), boot="", namespace="container")])
def test_another_machine_or_container_counts_while_it_touches_its_lock(machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    leave_lock(tmp_path, machine=machine, pid=1, age=lock_files.STALE_SECONDS - 60)
    touch = threading.Timer(1.5, (tmp_path / ".lock").touch)
    touch.start()
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(ValueError, match=f"training here .process 1 on {machine.host}, since .*free 5 minutes later"),
    ):
        exclusive_lock(tmp_path, "training").__enter__()
    assert "waiting for process 1" in caplog.text and "up to 300 seconds" in caplog.text
    touch.join()
    leave_lock(tmp_path, machine=machine, pid=os.getpid(), age=lock_files.STALE_SECONDS - 0.5)
    with exclusive_lock(tmp_path, "training"):  # half a second later
        pass


def test_a_killed_container_of_the_same_kernel_frees_its_folder_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(lock_files, "STALE_SECONDS", 3.0)
    container = dataclasses.replace(Machine.this(), host="pod", boot="b", namespace="container")
    monkeypatch.setattr(Machine, "this", classmethod(lambda cls: Machine("pod2", "b", "another")))
    leave_lock(tmp_path, machine=container, pid=1, age=2 * lock_files.UNGUARDED_SECONDS)
    with (tmp_path / ".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is training here .process 1 on pod"):
            exclusive_lock(tmp_path, "training").__enter__()
    monkeypatch.setattr(lock_files, "STALE_SECONDS", 300.0)
    begun = time.monotonic()
    with exclusive_lock(tmp_path, "training"):
        assert time.monotonic() - begun < 1


def test_who_writes_its_lock_too_slowly_is_not_a_second_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_files, "UNWRITTEN_SECONDS", 0.3)
    real, slow, held = os.fdopen, threading.local(), []

    def fdopen(number: int, mode: str) -> object:
        if getattr(slow, "is_slow", False):
            slow.is_slow = False
            time.sleep(1)
        return real(number, mode)

    def hold(seconds: float, *, is_slow: bool = False) -> None:
        slow.is_slow = is_slow
        with exclusive_lock(tmp_path, "training", wait=True):
            held.append(1)
            assert len(held) == 1
            time.sleep(seconds)
            held.pop()

    monkeypatch.setattr(os, "fdopen", fdopen)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(hold, 0.5, is_slow=True)
        while not (tmp_path / ".lock").exists():
            time.sleep(0.01)
        second = pool.submit(hold, 1.2)
        first.result(), second.result()
    assert list(tmp_path.iterdir()) == []


def test_one_error_of_the_server_does_not_end_the_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.05)
    real, failures = Path.open, [OSError(errno.ESTALE, "Stale file handle"), OSError(errno.EIO, "Input/output error")]

    def flaky(path: Path, *options: object, **more: object) -> object:
        if path.name == ".lock" and failures:
            raise failures.pop()
        return real(path, *options, **more)

    with exclusive_lock(tmp_path, "training"):
        monkeypatch.setattr(Path, "open", flaky)
        time.sleep(0.3)
        os.utime(tmp_path / ".lock", (0, 0))
        time.sleep(0.3)
        assert not failures and (tmp_path / ".lock").stat().st_mtime > 0


def test_a_touch_goes_by_the_clock_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On some shares os.utime writes the clock of the client, which may be wrong by minutes."""
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.05)
    real = os.utime
    with exclusive_lock(tmp_path, "training"):
        monkeypatch.setattr(os, "utime", lambda path, times=None: real(path, times or (time.time() - 600,) * 2))
        time.sleep(0.3)
        assert time.time() - (tmp_path / ".lock").stat().st_mtime < 60


def test_a_holder_that_is_taken_over_says_so_and_leaves_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.05)
    with exclusive_lock(tmp_path, "training"):
        leave_lock(tmp_path, machine=Machine("elsewhere", "b", "1"))
        time.sleep(0.3)
    assert "another process took this folder over" in caplog.text
    assert "of another" in (tmp_path / ".lock").read_text()


def test_ctrl_c_while_a_lock_is_given_back_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, signals = threading.Thread.join, [KeyboardInterrupt]

    def join(thread: threading.Thread, *options: float) -> None:
        if signals and thread.name == "autoseg-lock":
            raise signals.pop()
        real(thread, *options)

    monkeypatch.setattr(threading.Thread, "join", join)
    with pytest.raises(KeyboardInterrupt), exclusive_lock(tmp_path, "training"):
        pass
    with exclusive_lock(tmp_path, "training"):
        pass


def test_a_lock_that_others_have_open_is_removed_a_moment_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Windows refuses to remove, and for moments to open, a file that another process has open."""
    refused = {"unlink": 2, "open": 0}

    def refusing(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(path: Path, *options: object, **more: object) -> object:
            if path.name == ".lock" and refused[name]:
                refused[name] -= 1
                raise PermissionError(errno.EACCES, "used by another process", str(path))
            return real(path, *options, **more)

        return call

    for name in refused:
        monkeypatch.setattr(Path, name, refusing(name, getattr(Path, name)))
    with exclusive_lock(tmp_path, "training"):
        refused["open"] = 2
        with pytest.raises(ValueError, match="another process is training here"):
            exclusive_lock(tmp_path, "training").__enter__()
    assert refused == {"unlink": 0, "open": 0} and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pid", ["abc", None, [1], 0, -1, 3.5, True])
def test_a_lock_that_names_no_process_is_nobodys(pid: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_files, "UNWRITTEN_SECONDS", 0)
    leave_lock(tmp_path, pid=pid)
    with exclusive_lock(tmp_path, "training"):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_lock_that_is_waited_for_is_said_once_and_looked_at_less_and_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    looks, real = [], FoundLock.at
    monkeypatch.setattr(FoundLock, "at", classmethod(lambda cls, path: looks.append(path.name) or real(path)))
    lock = exclusive_lock(tmp_path, "preprocessing")
    lock.__enter__()
    threading.Timer(2, lambda: lock.__exit__(None, None, None)).start()
    with caplog.at_level(logging.INFO), exclusive_lock(tmp_path, "preprocessing", wait=True):
        assert len(looks) <= 10
    assert caplog.text.count(f"waiting for process {os.getpid()}") == 1 and "preprocessing here" in caplog.text


@pytest.mark.parametrize("name", [".partial-results/thesis.txt", ".partial-scan.nii.gz", ".partial-12.nii.gz", ".partial-1.2-of-3.txt"])
def test_files_that_are_only_called_partial_stay(name: str, tmp_path: Path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    remove_partial_files(tmp_path)
    assert path.exists()


@pytest.mark.parametrize(("error", "runs"), [(5, True), (87, False)], ids=["access denied", "no such process"])
def test_a_process_of_another_windows_user_lives(error: int, runs: bool, monkeypatch: pytest.MonkeyPatch):
    kernel = SimpleNamespace(OpenProcess=Mock(return_value=0))
    monkeypatch.setattr(ctypes, "WinDLL", lambda *_, **__: kernel, raising=False)
    monkeypatch.setattr(ctypes, "get_last_error", lambda: error, raising=False)
    monkeypatch.setattr(processes, "os", SimpleNamespace(name="nt"))
    monkeypatch.setattr(processes, "sys", SimpleNamespace(platform="win32"))
    assert is_alive(1234, "133") == runs


@pytest.mark.parametrize("content", ["", "{", '{"pid": 1}'])
def test_a_lock_whose_writer_was_killed_is_taken_over(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_files, "UNWRITTEN_SECONDS", 0.5)
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
