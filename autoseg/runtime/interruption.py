"""Ctrl-C and SIGTERM, as a cluster's scheduler sends it before SIGKILL: both end a command alike, and training saves its state first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextlib.contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Inside the block SIGTERM raises `Terminated` in the main thread, as Ctrl-C raises KeyboardInterrupt."""
    with _handled({signal.SIGTERM: _raise}):
        yield


class PostponedInterruption:
    """Inside the block the first Ctrl-C or SIGTERM waits until `raise_if_signalled`; a second one ends what is going on at once.

    In another thread than the main one, which gets no signals, it does nothing.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> PostponedInterruption:
        self._signal = None
        self._stack.enter_context(_handled(dict.fromkeys((signal.SIGINT, signal.SIGTERM), self._note)))
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
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


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
