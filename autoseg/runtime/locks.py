"""Exclusive locks on folders, and removal of the partial files of killed processes.

A lock is a file ``.lock`` that is created exclusively, which every file system can, and says who holds it. Its holder touches it from time
to time; whether that one lives is judged in `lock_files`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .disk import WriteError, explained_write_errors, while_open_elsewhere
from .lock_files import STALE_SECONDS, UNWRITTEN_SECONDS, FoundLock, Holder, guarded, server_time
from .made_folders import missing_folders, remove_if_empty
from .processes import Machine, is_alive, own_start

log = logging.getLogger(__name__)

LOCK = ".lock"

HEARTBEAT_SECONDS = 20.0

POLL_SECONDS = (0.05, 3.0)
"""Between two looks at a lock that is waited for: at first, and after some time."""

TOLD_SECONDS = 1.0
"""After so long it is said who is waited for."""

REMOVE_SECONDS = 2.0
"""For so long the removal of a lock is tried again, which on Windows others prevent while they read it."""

PARTIAL_SECONDS = 3600.0
"""Partial files of another machine are removed when nothing was written to them for so long."""

PARTIAL = re.compile(r"\.partial-(?:(?P<pid>\d+)\.(?P<started>\w*)\.(?P<machine>[0-9a-f]{8})|(?P<earlier>\d+))-")
"""How names of partial files begin: those of `partial_name`, and of earlier versions."""


@contextmanager
def exclusive_lock(folder: Path, activity: str, *, wait: bool = False, name: str = LOCK) -> Iterator[None]:
    """Locks `folder` for this thread until the block ends or the process dies, however it dies.

    Of a holder on another machine it takes up to some minutes to see whether it lives; that is said meanwhile.

    Args:
        folder: Made if missing, and then removed again if nothing is written there; holds a file ``.lock`` meanwhile.
        activity: For the message that another process gets ("training" ...).
        wait: Wait for the other process instead of refusing.
        name: Of the file, where only a part of the folder is locked.

    Raises:
        ValueError: Another living process holds it; the message says which.
        WriteError: Nothing can be written there.
    """
    path, missing = folder / name, missing_folders(folder)
    try:
        with explained_write_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
        lock = _Lock(path, Holder.new(activity))
        try:
            lock.acquire(wait=wait)
            yield
        finally:
            lock.release()
    finally:
        remove_if_empty(missing)


class _Lock:
    """A lock of this process. A thread touches it, and removes it in the end: threads are not interrupted by Ctrl-C."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self._path, self._holder = path, holder
        self._guard: int | None = None
        self._is_held = False
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="autoseg-lock", daemon=True)
        self._thread.start()

    def acquire(self, *, wait: bool = False) -> None:
        """Takes the lock, also over from a dead process."""
        waiting = _Waiting(self._path, wait=wait)
        while not self._is_created():
            found = FoundLock.at(self._path)
            if found is None:
                continue  # released meanwhile
            if not found.is_stale:
                waiting.check(found)
            elif self._is_taken_over(found):
                break
            waiting.pause()
        self._is_held = True

    def release(self) -> None:
        """Gives the folder back. A forked child that comes here leaves its parent's lock alone."""
        if os.getpid() != self._holder.pid:
            return
        self._released.set()
        try:
            self._thread.join()
        except BaseException:  # Ctrl-C
            self._thread.join()
            raise

    def _is_created(self) -> bool:
        try:
            return _created(self._path, self._holder.content) and self._is_confirmed()
        except FileNotFoundError:  # who held it before wrote nothing, and removed the folder that it had made
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return False

    def _is_taken_over(self, found: FoundLock) -> bool:
        """Replaces the lock of a dead process. Only who holds the lock on that very lock may: of several takers one wins."""
        claim = _Lock(_claim_of(self._path, found.token), self._holder)
        try:
            claim.acquire()
            now = FoundLock.at(self._path)
            if now is not None and now.token == found.token and now.is_stale:
                _replace(self._path, self._holder.content)
                return self._is_confirmed()
        except _HeldError:
            pass
        finally:
            claim.release()
        return False

    def _is_confirmed(self) -> bool:
        """Whether the lock is this one's after all: who needs very long to write it may find that another took it meanwhile."""
        self._guard = guarded(self._path)
        if while_open_elsewhere(self._is_mine, always=True):
            return True
        self._close()
        return False

    def _is_mine(self) -> bool:
        try:
            return Holder.parsed(self._path.read_bytes()) == self._holder
        except FileNotFoundError:
            return False

    def _keep(self) -> None:
        """Touches the lock until it is released, and removes it then."""
        while not self._released.wait(HEARTBEAT_SECONDS):
            if self._is_held and not self._is_touched():
                log.error("%s: another process took this folder over, as this one was stopped for too long; end one of them", self._path)
                break
        self._released.wait()
        end = time.monotonic() + REMOVE_SECONDS
        while not self._is_removed() and time.monotonic() < end:
            time.sleep(POLL_SECONDS[0])
        self._close()

    def _is_touched(self) -> bool:
        """Writes one byte anew, so that the file server stamps it by its own clock; False where the lock is another's now."""
        with contextlib.suppress(OSError):  # of a folder that was renamed, or a server that is away for a moment
            with self._path.open("r+b", buffering=0) as file:
                found = Holder.parsed(file.read())
                if found != self._holder:
                    return found is None
                with contextlib.suppress(OSError):
                    file.seek(0)
                    file.write(self._holder.content[:1])
                    return True
            os.utime(self._path)  # some disks that are full have no room even for that
        return True

    def _is_removed(self) -> bool:
        """Removes the file where it is still this lock's, and nobody is just taking it over; False where that must be tried again."""
        claim = _claim_of(self._path, self._holder.token)
        try:
            if not self._is_mine():
                return True
            try:
                is_claimed = _created(claim, self._holder.content)
            except WriteError:  # a full disk has no room for the claim; nobody takes over from a living process but after minutes
                self._path.unlink()
                return True
            if not is_claimed:
                return False
            try:
                if self._is_mine():
                    self._path.unlink()
            finally:
                while_open_elsewhere(claim.unlink, always=True)
        except OSError:
            return False
        return True

    def _close(self) -> None:
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None


class _Waiting:
    """The wait for one lock: refuses where its holder lives and is not waited for, and says once who it is."""

    def __init__(self, path: Path, *, wait: bool) -> None:
        self._path, self._wait = path, wait
        self._begun, self._pause, self._is_told = time.monotonic(), POLL_SECONDS[0], False
        self._seen: dict[str, float] = {}

    def check(self, found: FoundLock) -> None:
        """Raises `_HeldError` where the holder of a lock lives: seen here, or by a touch since the first look, and not to be waited for."""
        is_alive = found.is_alive or self._seen.setdefault(found.token, found.touched) != found.touched
        if is_alive and not self._wait:
            who = f"another process is {found.holder.activity} here ({found.holder})" if found.holder else ""
            raise _HeldError(f"{self._path.parent}: {who or 'a process of another version of autoseg works here'}; wait for it or stop it")
        if not self._is_told and time.monotonic() - self._begun > TOLD_SECONDS:
            self._is_told = True
            who = f"{found.holder}, {found.holder.activity} here" if found.holder else "a process that is beginning here"
            limit = STALE_SECONDS if found.holder else UNWRITTEN_SECONDS
            until = "" if self._wait else f", up to {limit:.0f} seconds, to see whether it is still alive"
            log.info("%s: waiting for %s%s.", self._path.parent, who, until)

    def pause(self) -> None:
        """Sleeps, the longer the longer it lasts: on a network each look costs."""
        time.sleep(self._pause)
        self._pause = min(1.5 * self._pause, POLL_SECONDS[1])


class _HeldError(ValueError):
    """Another living process holds the lock."""


def _claim_of(path: Path, token: str) -> Path:
    """The lock that must be held to replace or remove the lock of that token."""
    return path.with_name(f"{LOCK}-{token[:32]}")


def _created(path: Path, content: bytes) -> bool:
    """Creates the file where there is none; False where there is one."""
    try:
        with explained_write_errors(path):
            number = while_open_elsewhere(lambda: os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    try:
        with explained_write_errors(path, size=len(content)), os.fdopen(number, "wb") as file:
            file.write(content)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise
    return True


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f"{path.name}-{uuid.uuid4().hex}.new")
    try:
        with explained_write_errors(beside):
            beside.write_bytes(content)
            while_open_elsewhere(lambda: os.replace(beside, path))
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def partial_name(name: str) -> str:
    """The name under which this process writes a file until it is whole: by it `remove_partial_files` knows whose it is."""
    return f".partial-{os.getpid()}.{own_start(os.getpid())}.{Machine.this().key}-{name}"


def remove_partial_files(folder: Path) -> None:
    """Removes partial files of killed processes from `folder` (not from its subfolders); files of living processes and others stay."""
    for leftover in folder.glob(".partial-*"):
        found = PARTIAL.match(leftover.name)
        if found and not _written_by_living(leftover, found):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _written_by_living(partial: Path, name: re.Match[str]) -> bool:
    """Whether a process that is still alive, here or on another machine, is writing this file."""
    if name["earlier"]:  # it wrote on this machine as far as is known
        return int(name["earlier"]) != os.getpid() and is_alive(int(name["earlier"]))
    if name["machine"] == Machine.this().key:
        return is_alive(int(name["pid"]), name["started"])
    with contextlib.suppress(FileNotFoundError):
        return server_time(partial.parent) - partial.stat().st_mtime < PARTIAL_SECONDS
    return False
