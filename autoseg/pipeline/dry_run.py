"""What a command would do, as ``--dry-run`` says it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DryRun:
    """What a command would do.

    Attributes:
        lines: Inputs that were found, what would be computed, and files that would be written, replaced or kept.
        failures: Case -> reason for the cases that would be left out or fail.
        cases: All cases that were looked at.
    """

    lines: tuple[str, ...]
    failures: dict[str, str] = field(default_factory=dict)
    cases: int = 0


def would_write(*paths: Path) -> list[str]:
    """A line for each file or folder: that it would be new, or replaced."""
    return [f"{'Replaced' if os.path.lexists(path) else 'New'}: {path}" for path in paths]
