"""Ctrl-C, SIGTERM, as a cluster's scheduler sends it before SIGKILL, and SIGHUP, as of a closed terminal or a lost ssh connection.

They end a command alike, and training saves its state first.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

TERMINATING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a process as Ctrl-C does; the second is unknown to Windows."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by one of the `TERMINATING` signals.

    Attributes:
        number: Of the signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = int(number)


@contextlib.contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Inside the block the `TERMINATING` signals raise `Terminated` in the main thread, as Ctrl-C raises KeyboardInterrupt."""
    with _handled(dict.fromkeys(TERMINATING, _raise)):
        yield


class PostponedInterruption:
    """Inside the block the first Ctrl-C, SIGTERM or SIGHUP waits until `raise_if_signalled`; a second one ends what is going on at once.

    In another thread than the main one, which gets no signals, it does nothing.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> PostponedInterruption:
        self._signal = None
        self._stack.enter_context(_handled(dict.fromkeys((signal.SIGINT, *TERMINATING), self._note)))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stack.close()
        if kind is None:
            self.raise_if_signalled()

    @property
    def is_signalled(self) -> bool:
        """Whether a signal waits."""
        return self._signal is not None

    def raise_if_signalled(self) -> None:
        """Raises KeyboardInterrupt or `Terminated` where a signal waits."""
        if self._signal is not None:
            _raise(self._signal, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            _raise(number, frame)
        self._signal = number


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated(number) if number in TERMINATING else KeyboardInterrupt


@contextlib.contextmanager
def _handled(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    """Sets handlers and puts the former ones back; signals that are ignored (as after ``nohup``) stay so."""
    former: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        former = {number: signal.getsignal(number) for number in handlers}
        former = {number: handler for number, handler in former.items() if handler not in (None, signal.SIG_IGN)}
    try:
        for number in former:
            signal.signal(number, handlers[number])
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
