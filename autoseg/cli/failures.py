"""The end of a command that works on many cases: which failed and why, how many, and the exit status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..runtime.shown_text import in_one_line
from .output import say

if TYPE_CHECKING:
    from ..pipeline.dry_run import DryRun

SHOWN = 3
"""Cases that the last line names before the rest is only counted."""

LONGEST = 100
"""Characters of a reason in the last line; the whole reason stands above."""


def finish(result: str, failures: Mapping[str, str], *, of: int, what: str = "failed") -> int:
    """Prints each failure and, as the last line, the result and what failed of how many cases; returns the exit status, 1 for failures."""
    for case, reason in failures.items():
        say(in_one_line(f"FAILED {case}: {reason}"), error=True)
    say(result + (f"; {counted(failures, of=of, what=what)}" if failures else ""))
    return 1 if failures else 0


def say_dry_run(found: DryRun) -> int:
    """Prints what would be done; returns the exit status, 1 where cases would fail."""
    for line in found.lines:
        say(line)
    return finish("Nothing was written (--dry-run)", found.failures, of=found.cases, what="would fail")


def counted(failures: Mapping[str, str], *, of: int, what: str = "failed") -> str:
    """Such as ``2 of 24 cases failed: a (cannot be read), b (expected 3 channels, found 1)``."""
    shown = [f"{in_one_line(case)} ({_short(reason)})" for case, reason in list(failures.items())[:SHOWN]]
    more = f" and {len(failures) - SHOWN} more" if len(failures) > SHOWN else ""
    return f"{len(failures)} of {cases(of)} {what}: {', '.join(shown)}{more}"


def cases(count: int) -> str:
    """The number of cases in words: ``1 case``, ``2 cases``."""
    return f"{count} case{'' if count == 1 else 's'}"


def _short(reason: str) -> str:
    line = in_one_line(reason.strip())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
