"""Folders in which nothing was written are removed again, and no others."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from autoseg.runtime.locks import exclusive_lock
from autoseg.runtime.made_folders import made_folder
from autoseg.runtime.serialization import atomic_write


def test_what_was_made_and_stayed_empty_is_removed(tmp_path: Path) -> None:
    (tmp_path / "was_there").mkdir()
    inner, other = tmp_path / "was_there" / "a" / "b", tmp_path / "c" / "d"
    with made_folder(inner, other):
        assert inner.is_dir() and other.is_dir()
        (tmp_path / "c" / "file").touch()
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "c", tmp_path / "c" / "file", tmp_path / "was_there"]


def test_a_file_that_is_not_written_leaves_no_folder(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        with atomic_write(path) as partial:
            partial.touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail(tmp_path / "a" / "b" / "x.txt")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_on_a_folder_leaves_it_only_where_something_was_written(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "a" / "b", "testing"):
        assert (tmp_path / "a" / "b" / ".lock").is_file()
    assert list(tmp_path.iterdir()) == []
    with exclusive_lock(tmp_path / "a", "testing"):
        (tmp_path / "a" / "x").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


def test_who_waits_for_a_lock_on_a_folder_that_goes_makes_it_again(tmp_path: Path) -> None:
    begun, written = threading.Event(), tmp_path / "a" / "x"

    def wait() -> None:
        begun.set()
        with exclusive_lock(tmp_path / "a", "waiting", wait=True):
            written.touch()

    with exclusive_lock(tmp_path / "a", "testing"):
        other = threading.Thread(target=wait)
        other.start()
        begun.wait()
    other.join(20)
    assert written.is_file()
