"""Errors of single cases: each is named with its reason, and the other cases go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

from .disk import FULL, WriteError

log = logging.getLogger(__name__)


@contextmanager
def failure_of(case: str, failures: MutableMapping[str, str], what: str = "failed") -> Iterator[None]:
    """Puts the reason into `failures` where the block raises whatever a damaged file can raise; ``<case> <what>: <reason>`` is logged.

    Errors of the disk, which would fail every case alike, and interruptions pass.
    """
    try:
        yield
    except Exception as error:
        if ends_all_cases(error):
            raise
        failures[case] = reason_of(error)
        log.error("%s %s: %s", case, what, failures[case])
        log.debug("%s", case, exc_info=True)


def ends_all_cases(error: Exception) -> bool:
    """Whether an error is one of the disk, and none of one case."""
    return isinstance(error, WriteError) or (isinstance(error, OSError) and error.errno in FULL)


def reason_of(error: Exception) -> str:
    """An error in words for the user: messages of our own, of torch and of readers as they are, others with their kind."""
    if isinstance(error, MemoryError):
        return f"not enough memory for this case: {error}".removesuffix(": ")
    return str(error) if isinstance(error, (ValueError, OSError, RuntimeError)) and str(error) else f"{type(error).__name__}: {error}"
