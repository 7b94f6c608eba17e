"""Signals that wait until the work has reached a point at which it can be saved."""

from __future__ import annotations

import signal
import threading

import pytest

from autoseg.runtime.interruption import TERMINATING, PostponedInterruption, Terminated

pytestmark = pytest.mark.skipif(not hasattr(signal, "raise_signal"), reason="POSIX signals")


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), *((one, Terminated) for one in TERMINATING)])
def test_the_first_signal_waits_and_the_second_one_does_not(number: int, error: type[BaseException]) -> None:
    former = signal.getsignal(number)
    seen: list[bool] = []

    def work() -> None:
        with PostponedInterruption() as interruption:
            seen.append(interruption.is_signalled)
            signal.raise_signal(number)
            seen.append(interruption.is_signalled)
            signal.raise_signal(number)
            seen.append(False)

    with pytest.raises(error):
        work()
    assert seen == [False, True]
    assert signal.getsignal(number) == former


def test_a_signal_after_the_last_look_is_not_lost() -> None:
    interruption = PostponedInterruption()
    with pytest.raises(Terminated), interruption:
        signal.raise_signal(signal.SIGTERM)
    with interruption:
        assert not interruption.is_signalled


def test_ignored_signals_stay_ignored_and_other_threads_get_none() -> None:
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with PostponedInterruption() as interruption:
            signal.raise_signal(signal.SIGINT)
            assert not interruption.is_signalled
    finally:
        signal.signal(signal.SIGINT, former)
    seen: list[bool] = []

    def work() -> None:
        with PostponedInterruption() as interruption:
            seen.append(interruption.is_signalled)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (seen, signal.getsignal(signal.SIGINT)) == ([False], former)
