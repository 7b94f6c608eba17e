"""Exclusive locks on folders, and removal of the partial files of killed processes.

A lock is a file ``.lock`` that is created exclusively, which every file system can, and says who holds it. Its holder touches it from time
to time. Whether a holder lives is known by process number and start on the same machine; of another machine, or a container, the lock
counts until it was not touched for `STALE_SECONDS`, by the clock of the file server. The system's own lock on the file (flock) is a second
sign of life, where there is such a thing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from .disk import WriteError, explained_write_errors
from .processes import Machine, is_alive, own_start

log = logging.getLogger(__name__)

LOCK = ".lock"

HEARTBEAT_SECONDS = 20.0
STALE_SECONDS = 300.0
"""A lock of another machine that was not touched for so long is that of a dead process; file systems may show a touch a minute late."""

REBOOT_SECONDS = 60.0
"""The same for a lock from before this machine was started, as far as that is known."""

UNWRITTEN_SECONDS = 3.0
"""A lock without a holder's name is just being written; after so long its writer was killed meanwhile, or was an earlier version."""

POLL_SECONDS = 0.2

PARTIAL_SECONDS = 3600.0
"""Partial files of another machine are removed when nothing was written to them for so long."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: process and machine, since when, doing what; `token` is different for every lock that is ever taken."""

    machine: Machine
    pid: int
    started: str
    since: str
    activity: str
    token: str

    @classmethod
    def new(cls, activity: str) -> Holder:
        """This process, from now on."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        return cls(Machine.this(), os.getpid(), own_start(os.getpid()), now, activity, uuid.uuid4().hex)


@contextmanager
def exclusive_lock(folder: Path, activity: str, *, wait: bool = False) -> Iterator[None]:
    """Locks `folder` for this thread until the block ends or the process dies, however it dies.

    Args:
        folder: Made if missing; holds a file ``.lock`` meanwhile.
        activity: For the message that another process gets ("training" ...).
        wait: Wait for the other process instead of refusing.

    Raises:
        ValueError: Another living process holds it; the message says which.
        WriteError: Nothing can be written there.
    """
    path = folder / LOCK
    with explained_write_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
    lock = _acquired(path, Holder.new(activity), wait=wait)
    try:
        yield
    finally:
        lock.release()


class _Lock:
    """A lock that this process holds; touched by a thread until it is released."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self._path, self._holder = path, holder
        self._guard = _flocked(path)
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="autoseg-lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Gives the folder back. A forked child that comes here leaves its parent's lock alone."""
        if os.getpid() != self._holder.pid:
            return
        self._released.set()
        self._thread.join()
        self._remove()
        if self._guard is not None:
            os.close(self._guard)

    def _remove(self) -> None:
        """Removes the file where it is still this lock's, and nobody is just taking it over."""
        if not _is_held_by(self._path, self._holder):
            return
        claim = _claim_of(self._path, self._holder.token)
        with contextlib.suppress(OSError):
            try:
                is_claimed = _created(claim, json.dumps(asdict(self._holder)).encode())
            except WriteError:  # a full disk has no room for the claim; nobody takes over from a living process but after minutes
                self._path.unlink()
                return
            if is_claimed:
                try:
                    if _is_held_by(self._path, self._holder):
                        self._path.unlink()
                finally:
                    claim.unlink()

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            if not self._path.exists():
                continue  # the folder was renamed
            if not _is_held_by(self._path, self._holder):
                log.error("%s: another process took this folder over, as this one was stopped for too long; end one of them", self._path)
                return
            with contextlib.suppress(OSError):
                os.utime(self._path)


def _acquired(path: Path, holder: Holder, *, wait: bool = False) -> _Lock:
    """Takes the lock at `path`, also over from a dead process."""
    content = json.dumps(asdict(holder)).encode()
    while True:
        if _created(path, content):
            return _Lock(path, holder)
        found = _Found.at(path)
        if found is None:
            continue  # released meanwhile
        if found.is_stale():
            # Only who holds the lock on this very lock may replace it, so that of several takers one wins.
            with contextlib.suppress(_HeldError):
                successor = _acquired(_claim_of(path, found.token), holder)
                try:
                    now = _Found.at(path)
                    if now is not None and now.token == found.token and now.is_stale():
                        _replace(path, content)
                        return _Lock(path, holder)
                finally:
                    successor.release()
        elif found.holder is not None and not wait:
            raise _HeldError(
                f"{path.parent}: another process is {found.holder.activity} here ({_who(found.holder)}); wait for it or stop it"
            )
        elif found.is_guarded and not wait:
            raise _HeldError(f"{path.parent}: a process of another version of autoseg works here; wait for it or stop it")
        time.sleep(POLL_SECONDS)


class _HeldError(ValueError):
    """Another living process holds the lock."""


@dataclass(frozen=True)
class _Found:
    """A lock that is there already.

    Attributes:
        holder: None where the file is empty or damaged.
        age: Seconds since it was touched, by the clock of the file server.
        is_guarded: Whether a process holds the system's lock on it.
    """

    holder: Holder | None
    token: str
    age: float
    is_guarded: bool

    @classmethod
    def at(cls, path: Path) -> _Found | None:
        """What lies at `path` now; None where nothing does."""
        try:
            with path.open("rb") as file:  # opened anew: a network file system may show an older state of a file that is not opened
                content, status = file.read(), os.fstat(file.fileno())
        except FileNotFoundError:
            return None
        holder = _parsed(content)
        token = hashlib.sha256(content + f"{status.st_ino} {status.st_mtime_ns}".encode()).hexdigest() if holder is None else holder.token
        return cls(holder, token, _now(path.parent) - status.st_mtime, _is_flocked(path))

    def is_stale(self) -> bool:
        """Whether its holder is dead as far as can be known."""
        this = Machine.this()
        if self.holder is None:
            return not self.is_guarded and self.age > UNWRITTEN_SECONDS
        if self.holder.machine == this:
            return not is_alive(self.holder.pid, self.holder.started)
        if self.is_guarded:
            return False
        limit = STALE_SECONDS
        if self.holder.machine.host == this.host and self.holder.machine.boot != this.boot:
            limit = min(limit, max(REBOOT_SECONDS, _uptime()))  # not touched since this machine was started
        return self.age > limit


def _claim_of(path: Path, token: str) -> Path:
    """The lock that must be held to replace or remove the lock of that token."""
    return path.with_name(f"{LOCK}-{token[:32]}")


def _created(path: Path, content: bytes) -> bool:
    """Creates the file where there is none; False where there is one."""
    try:
        with explained_write_errors(path):
            number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
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
            os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _parsed(content: bytes) -> Holder | None:
    try:
        values = json.loads(content)
        return Holder(**{**values, "machine": Machine(**values["machine"])})
    except (ValueError, TypeError, KeyError):
        return None


def _is_held_by(path: Path, holder: Holder) -> bool:
    try:
        return _parsed(path.read_bytes()) == holder
    except OSError:
        return False


def _who(holder: Holder) -> str:
    who = f"process {holder.pid} on {holder.machine.host}, since {holder.since}"
    if holder.machine == Machine.this():
        return who
    return (
        f"{who}; on another machine or in another container, so that after a kill the folder is free {STALE_SECONDS / 60:.0f} minutes later"
    )


def _now(folder: Path) -> float:
    """The time by the clock of the server that stores `folder`; this machine's where nothing can be written there."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".lock-clock-") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _uptime() -> float:
    """Seconds since this machine was started; without limit where the system does not tell."""
    try:
        return float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return float("inf")


def _flocked(path: Path) -> int | None:
    """The descriptor of a file on which this process now holds the system's lock; None where there is no such lock."""
    number = None
    try:
        import fcntl

        number = os.open(path, os.O_RDWR)
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return number
    except (ImportError, OSError):
        if number is not None:
            os.close(number)
        return None


def _is_flocked(path: Path) -> bool:
    """Whether another process holds the system's lock on the file; False where the file system knows no such locks."""
    try:
        import fcntl

        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except ImportError:
        return False
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    return False


def partial_name(name: str) -> str:
    """The name under which this process writes a file until it is whole: by it `remove_partial_files` knows whose it is."""
    return f".partial-{os.getpid()}.{own_start(os.getpid())}.{Machine.this().key}-{name}"


def remove_partial_files(folder: Path) -> None:
    """Removes partial files of killed processes from `folder` (not from its subfolders); those of living processes stay."""
    for leftover in folder.glob(".partial-*"):
        if not _written_by_living(leftover):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _written_by_living(partial: Path) -> bool:
    """Whether a process that is still alive, here or on another machine, is writing this file."""
    if found := re.match(r"\.partial-(\d+)\.(\w*)\.([0-9a-f]{8})-", partial.name):
        if found[3] == Machine.this().key:
            return is_alive(int(found[1]), found[2])
        with contextlib.suppress(FileNotFoundError):
            return _now(partial.parent) - partial.stat().st_mtime < PARTIAL_SECONDS
        return False
    number = partial.name.split("-")[1]  # of an earlier version, which wrote on this machine as far as is known
    return number.isdigit() and int(number) != os.getpid() and is_alive(int(number))
