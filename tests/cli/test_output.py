"""Messages of a command as a terminal shows them."""

from __future__ import annotations

import argparse
import io
import logging
from pathlib import Path

import pytest
from tqdm import tqdm

from autoseg.cli.command import command
from autoseg.cli.failures import finish
from autoseg.cli.output import SHOWN_ALIKE, _AboveProgressBars, say
from autoseg.runtime import progress_bars
from autoseg.runtime.shown_text import one_of_many
from autoseg.runtime.worker_pool import run_cases

KIND = "headers that contradict themselves"


def warn_once_a_file(number: int) -> int:
    logging.getLogger("autoseg.data").warning("%s: is odd", Path(f"{number}.nii"), extra=one_of_many(KIND))
    logging.getLogger("autoseg.data").error("case %d failed", number)
    return number


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("shown_alike", "shown"), [(SHOWN_ALIKE, SHOWN_ALIKE), (None, 9)])
def test_of_messages_that_come_once_a_file_the_first_are_shown_and_the_rest_counted(
    workers: int, shown_alike: int | None, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = _AboveProgressBars(shown_alike=shown_alike)
    handler.setStream(stream := io.StringIO())
    logging.getLogger("autoseg").addHandler(handler)
    try:
        run_cases(warn_once_a_file, {str(number): (number,) for number in range(9)}, workers=workers)
        capsys.readouterr()
        handler.count_the_others()
    finally:
        logging.getLogger("autoseg").removeHandler(handler)
    lines = stream.getvalue().splitlines()
    assert (sum(line.endswith("is odd") for line in lines), sum(line.endswith("failed") for line in lines)) == (shown, 9)
    expected = f"{KIND}: 9 messages, of which {SHOWN_ALIKE} are shown (all with --verbose)\n" if shown_alike else ""
    assert capsys.readouterr().err == expected


def test_quiet_commands_print_warnings_and_errors_only(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("autoseg.cli.test")

    @command(lambda parser: None)
    def work(options: argparse.Namespace) -> int:
        """Do something."""
        log.info("what is done")
        log.warning("what is odd")
        say("the result")
        list(tqdm([1], desc="a bar", disable=False))
        return finish("the last line", {"a": "is damaged"}, of=2)

    assert work(["--quiet"]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "FAILED a: is damaged\n")
    assert [record.message for record in caplog.records] == ["what is odd"]
    monkeypatch.setenv(progress_bars.DRAWN, "1")
    assert work([]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "the result" and "the last line" in printed.out and "\ra bar" in printed.err
    with pytest.raises(SystemExit):
        work(["--quiet", "--verbose"])


@pytest.mark.parametrize(
    ("error", "words", "status"),
    [(MemoryError, [], 70), (TypeError, ["--verbose"], 70), (ValueError, ["--verbose"], 2), (ValueError, [], 2)],
)
def test_an_error_that_nobody_foresaw_is_not_status_1(
    error: type[Exception], words: list[str], status: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @command(lambda parser: None)
    def work(options: argparse.Namespace) -> int:
        """Do something."""
        raise error("broken")

    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("sys.argv", ["autoseg_work", *words])
    assert work() == status
    said = capsys.readouterr().err
    assert ("Traceback" in said) == (status == 70 or bool(words)) and "broken" in said
    if status == 70:
        with pytest.raises(error):  # from Python it is seen
            work(words)


@pytest.mark.parametrize("interval", [0.0, 60.0])
def test_in_a_pipe_bars_are_lines_and_only_those_that_take_long(
    interval: float, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_bars, "SECONDS_BETWEEN_LINES", interval)

    @command(lambda parser: None)
    def work(options: argparse.Namespace) -> int:
        """Do something."""
        list(tqdm([1, 2], desc="a bar", leave=options.verbose))
        return 0

    assert work(["--verbose"]) == work([]) == 0
    error = capsys.readouterr().err
    assert "\r" not in error and "\n\n" not in error
    assert [line.partition("|")[0] for line in error.splitlines()] == (
        ["a bar:   0%", "a bar:  50%", "a bar: 100%", "a bar: 100%"] + ["a bar:   0%", "a bar:  50%", "a bar: 100%"] if not interval else []
    )
