"""Folders that are made for what will be written into them, and removed again where nothing was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def made_folder(*folders: Path) -> Iterator[None]:
    """Makes folders with their parents; those of them that are empty when the block ends, or fails, are removed again.

    What was there before stays, empty or not.

    Raises:
        OSError: One cannot be made.
    """
    missing = missing_folders(*folders)
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        remove_if_empty(missing)


def missing_folders(*folders: Path) -> list[Path]:
    """Those of folders and their parents that are not there, the innermost first."""
    missing = {one for folder in folders for one in (folder, *folder.parents) if not one.exists()}
    return sorted(missing, key=lambda one: len(one.parts), reverse=True)


def remove_if_empty(folders: Sequence[Path]) -> None:
    """Removes those folders in which nothing is, in this order."""
    for folder in folders:
        with suppress(OSError):  # something is in it, or it was never made
            folder.rmdir()
