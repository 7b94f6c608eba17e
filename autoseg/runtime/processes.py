"""Who a process is, told apart from one that gets the same number later or elsewhere, and child processes that end with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

BOOT = """import json, sys
sys.path[:] = json.loads(sys.argv[1])
from autoseg.runtime.processes import end_with_parent
end_with_parent(int(sys.argv[2]))
from {module} import {name}
{name}()"""
"""Program of a child: the search path of its parent, so that what a user wrote is found there too, and one function to call.

What is heavy is imported last, as a parent may be killed in that second, too.
"""

PARENT_CHECK_SECONDS = 0.5


@dataclass(frozen=True)
class Machine:
    """Where a process number means something: two processes of equal machines can see each other.

    Attributes:
        host: Its name.
        boot: Identifies the time since it was started; empty where the system does not tell.
        namespace: Of process numbers; containers have one of their own, also where they share the host's name.
    """

    host: str
    boot: str
    namespace: str

    @classmethod
    def this(cls) -> Machine:
        """The machine, or container, of this process."""
        return cls(socket.gethostname(), _text(Path("/proc/sys/kernel/random/boot_id")), _namespace())

    @property
    def key(self) -> str:
        """Short enough for a file name."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]


def started(pid: int) -> str:
    """When a process was started, in letters and digits that no other process of the same number has; empty where nothing tells."""
    if sys.platform.startswith("linux"):
        return _linux_fields(pid)[1]
    if os.name == "nt":
        return _windows_state(pid)[1]
    command, environment = ["ps", "-o", "lstart=", "-p", str(pid)], {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=False)
        return re.sub(r"\W", "", done.stdout)
    return ""


@functools.lru_cache(maxsize=4)
def own_start(pid: int) -> str:
    """`started` of this process, asked once."""
    return started(pid)


def is_alive(pid: int, since: str = "") -> bool:
    """Whether the process of that number on this machine runs, and was started then (`started`; empty: whenever); in doubt it does."""
    if os.name == "nt":
        runs, now = _windows_state(pid)
        return runs and (not since or not now or since == now)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # somebody else's, but there
    if sys.platform.startswith("linux") and _linux_fields(pid)[0] in ("Z", "X"):
        return False  # dead, and its parent has not asked yet
    now = started(pid) if since else ""
    return not (since and now) or since == now


def start_child(function: str, *, environment: Mapping[str, str] | None = None, errors: IO[Any] | None = None) -> subprocess.Popen[bytes]:
    """Starts a fresh interpreter that calls a function ``module:name``, with pipes to its standard input and output.

    It ends when this process does (`end_with_parent`), however that ends.

    Args:
        environment: None means that of this process.
        errors: Where its standard error goes; None means that of this process.
    """
    module, name = function.split(":")
    command = [sys.executable, "-c", BOOT.format(module=module, name=name), json.dumps([str(one) for one in sys.path]), str(os.getpid())]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment)


def end_with_parent(parent: int) -> None:
    """To be called first in a child: it ignores Ctrl-C, SIGTERM and SIGHUP, on which the parent decides, and ends when that dies.

    On Linux the kernel does so, even inside a library call that lets no thread run; elsewhere a thread asks. On Windows, where a process
    does not learn of its parent's end, and where that was dead already, it is the end of the standard input (`end_when_closed`).
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        set_parent_death_signal = 1
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.name != "nt":

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(PARENT_CHECK_SECONDS)
            os._exit(0)

        threading.Thread(target=watch, daemon=True).start()


def terminate_with_parent(parent: int) -> None:
    """To be called first in a child: when the process `parent` ends, however that happens, this one gets SIGTERM, and may save its state.

    On Linux the kernel sends it; elsewhere a thread asks. On Windows nothing does.
    """
    if sys.platform.startswith("linux"):
        set_parent_death_signal = 1
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
        if os.getppid() != parent:  # it was dead already
            os.kill(os.getpid(), signal.SIGTERM)
    elif os.name != "nt":

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(PARENT_CHECK_SECONDS)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=watch, daemon=True).start()


def end_when_closed(stream: IO[bytes]) -> None:
    """Ends this process the moment that the other end closes `stream` or dies; watches in a thread of its own."""
    number = stream.fileno()  # not through the stream's buffer, on whose lock the interpreter would wait when it ends

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(number, 4096):
                pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _linux_fields(pid: int) -> tuple[str, str]:
    """State and start, in clock ticks since the machine was started; both empty where they cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return "", ""


def _windows_state(pid: int) -> tuple[bool, str]:
    """Whether a process runs, and its start; that is empty where it cannot be asked, as for another user's process."""
    if sys.platform != "win32":
        return False, ""
    access_denied = 5
    query_limited_information = 0x1000
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(query_limited_information, False, pid)
    if not handle:
        return ctypes.get_last_error() == access_denied, ""
    times = [ctypes.c_ulonglong() for _ in range(4)]  # of its creation, end, and time in the kernel and outside
    code = ctypes.c_ulong()
    still_active = 259
    try:
        found = kernel.GetProcessTimes(ctypes.c_void_p(handle), *(ctypes.byref(time) for time in times))
        kernel.GetExitCodeProcess(ctypes.c_void_p(handle), ctypes.byref(code))
        runs = code.value == still_active
        return runs, str(times[0].value) if found and runs else ""
    finally:
        kernel.CloseHandle(ctypes.c_void_p(handle))
