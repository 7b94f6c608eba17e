"""What a lock file says: who holds it, and whether that process lives as far as can be known.

On the same machine process number and start tell, in another container of the same kernel the system's own lock on the file (flock). Of
another machine a lock counts until it was not touched for `STALE_SECONDS`, by the clock of the file server.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from .disk import while_open_elsewhere
from .processes import Machine, is_alive, own_start

STALE_SECONDS = 300.0
"""A lock of another machine that was not touched for so long is that of a dead process; file systems may show a touch a minute late."""

REBOOT_SECONDS = 60.0
"""The same for a lock from before this machine was started, as far as that is known."""

UNWRITTEN_SECONDS = 60.0
"""A lock without a holder's name is just being written; after so long its writer was killed meanwhile, or was an earlier version."""

UNGUARDED_SECONDS = 3.0
"""A lock of another container without the system's lock is just being taken; after so long its holder is dead."""

GUARD_SECONDS = 1.0
"""For so long a new holder tries to get the system's lock, as others look at it for moments."""

Guard = Literal["held", "free", "unknown"]
"""Whether a process holds the system's lock on a file; unknown where there is no such thing."""


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

    @classmethod
    def parsed(cls, content: bytes) -> Holder | None:
        """What a lock file says; None where it is empty, damaged or another program's."""
        try:
            values = json.loads(content)
            holder = cls(**{**values, "machine": Machine(**values["machine"])})
        except (ValueError, TypeError, KeyError):
            return None
        texts = (*asdict(holder.machine).values(), holder.started, holder.since, holder.activity, holder.token)
        is_number = isinstance(holder.pid, int) and not isinstance(holder.pid, bool) and holder.pid > 0
        return holder if is_number and holder.token and all(isinstance(text, str) for text in texts) else None

    @property
    def content(self) -> bytes:
        """What `parsed` reads."""
        return json.dumps(asdict(self)).encode()

    @property
    def is_here(self) -> bool:
        """Whether this process can see that one."""
        return self.machine == Machine.this()

    def __str__(self) -> str:
        who = f"process {self.pid} on {self.machine.host}, since {self.since}"
        if self.is_here:
            return who
        minutes = f"{STALE_SECONDS / 60:.0f} minutes"
        return f"{who}; on another machine or in another container, so that after a kill the folder is free {minutes} later"


@dataclass(frozen=True)
class FoundLock:
    """A lock that is there already.

    Attributes:
        holder: None where the file is empty, damaged or another program's.
        touched: When it was touched last, by the clock of the file server.
        age: Seconds since then; 0 where the holder can be seen.
    """

    holder: Holder | None
    token: str
    touched: float
    age: float
    guard: Guard

    @classmethod
    def at(cls, path: Path) -> FoundLock | None:
        """What lies at `path` now; None where nothing does."""
        try:
            content, status = while_open_elsewhere(lambda: _read(path), always=True)
        except FileNotFoundError:
            return None
        holder = Holder.parsed(content)
        token = hashlib.sha256(content + f"{status.st_ino} {status.st_mtime_ns}".encode()).hexdigest() if holder is None else holder.token
        age = 0.0 if holder is not None and holder.is_here else server_time(path.parent) - status.st_mtime
        return cls(holder, token, status.st_mtime, age, _guard_of(path))

    @property
    def is_stale(self) -> bool:
        """Whether its holder is dead as far as can be known."""
        this = Machine.this()
        if self.holder is None:
            return self.guard != "held" and self.age > UNWRITTEN_SECONDS
        if self.holder.machine == this:
            return not is_alive(self.holder.pid, self.holder.started)
        if self.guard == "held":
            return False
        boot = self.holder.machine.boot
        if boot and boot == this.boot and self.guard == "free":  # another container, for which the same kernel keeps the system's locks
            return self.age > UNGUARDED_SECONDS
        limit = STALE_SECONDS
        if self.holder.machine.host == this.host and boot != this.boot:
            limit = min(limit, max(REBOOT_SECONDS, _uptime()))  # not touched since this machine was started
        return self.age > limit

    @property
    def is_alive(self) -> bool:
        """Whether its holder certainly lives; of others it shows when they touch the lock."""
        return self.guard == "held" or (self.holder is not None and self.holder.is_here and not self.is_stale)


def server_time(folder: Path) -> float:
    """The time by the clock of the server that stores `folder`; this machine's where nothing can be written there."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".lock-clock-") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def guarded(path: Path) -> int | None:
    """The descriptor of a file on which this process now holds the system's lock; None where there is no such lock."""
    try:
        import fcntl

        number = os.open(path, os.O_RDWR)
    except (ImportError, OSError):
        return None
    end = time.monotonic() + GUARD_SECONDS
    while True:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return number
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES) or time.monotonic() > end:
                os.close(number)
                return None
            time.sleep(0.01)


def _guard_of(path: Path) -> Guard:
    try:
        import fcntl

        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except ImportError:
        return "unknown"
    except OSError as error:
        return "held" if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else "unknown"
    return "free"


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    with path.open("rb") as file:  # opened anew: a network file system may show an older state of a file that is not opened
        return file.read(), os.fstat(file.fileno())


def _uptime() -> float:
    """Seconds since this machine was started; without limit where the system does not tell."""
    try:
        return float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return float("inf")
