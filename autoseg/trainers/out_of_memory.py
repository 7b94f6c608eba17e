"""The error that a user sees where a training needs more memory than there is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ..runtime.hardware import is_out_of_memory
from ..schema import Configuration


@contextlib.contextmanager
def explained_out_of_memory(configuration: Configuration, device: torch.device) -> Iterator[None]:
    """Raises a RuntimeError that says what can be done where memory runs out; other errors pass as they are."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        patch = "x".join(map(str, configuration.patch_size))
        raise RuntimeError(
            f"out of memory on {device} with patch {patch} and batch {configuration.batch_size}: is another program using it? "
            "Run the same command again to go on, or plan for less with autoseg_plan_and_preprocess --memory"
        ) from error
