"""The record of the device, version of torch and peak memory of a run, for people; no training depends on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..runtime.hardware import current_environment
from ..runtime.migrate.names import existing_file, former_file
from ..runtime.serialization import read_json, write_json
from ..schema.run_record import RunEnvironment

RUN_ENVIRONMENT = "run_environment.json"
"""In the folder of a run: a list, longer than one where it was continued on another device or with another version of torch."""


def read_run_environments(run: Path) -> list[RunEnvironment]:
    """The environments recorded of a run; none where there is no record, or one that another version wrote."""
    try:
        return read_json(existing_file(run / RUN_ENVIRONMENT), list[RunEnvironment])
    except (ValueError, OSError):
        return []


def record_run_environment(run: Path, device: torch.device) -> None:
    """Writes device, version of torch and peak memory so far; records from before an interruption stay."""
    known, now = read_run_environments(run), current_environment(device)
    if known and replace(known[-1], peak_bytes=now.peak_bytes) == now:
        *known, last = known
        now = replace(now, peak_bytes=max(now.peak_bytes, last.peak_bytes))
    write_json(run / RUN_ENVIRONMENT, [*known, now])


def remove_run_environment(run: Path) -> None:
    """Removes the record, as a run starts anew."""
    for path in (run / RUN_ENVIRONMENT, former_file(run / RUN_ENVIRONMENT)):
        path.unlink(missing_ok=True)
