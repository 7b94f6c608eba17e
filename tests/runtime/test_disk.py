"""Errors of writing name file, disk and room; they end all cases, where what is wrong with one case does not."""

from __future__ import annotations

import errno
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import worker_jobs

from autoseg.preprocessing.storage import write_array
from autoseg.runtime.checkpoints import save_checkpoint
from autoseg.runtime.disk import WriteError, explained_write_errors, in_words
from autoseg.runtime.serialization import atomic_write, write_json
from autoseg.runtime.worker_pool import run_cases

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of file sizes")


@pytest.fixture
def small_files():
    """Files may have 64 kB."""
    resource = pytest.importorskip("resource")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, former[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, former)


@POSIX
@pytest.mark.parametrize(
    "write",
    [
        lambda path: save_checkpoint(path, {"network": {"w": torch.rand(50_000)}}, {}),
        lambda path: write_array(path, np.random.default_rng(0).random((1, 32, 64, 64), np.float32)),
        lambda path: write_json(path, ["x" * 100_000]),
    ],
    ids=["checkpoint", "array", "json"],
)
def test_a_writer_that_hides_the_reason_is_explained(write, tmp_path: Path, small_files: None):
    with pytest.raises(WriteError, match=rf"^{tmp_path}/out.* cannot be written: the disk / takes no file of this size"):
        write(tmp_path / "out.b2nd")
    assert list(tmp_path.iterdir()) == []


@POSIX
def test_a_copy_of_a_folder_hides_no_reason(tmp_path: Path, small_files: None):
    (tmp_path / "copy").mkdir()
    with pytest.raises(WriteError, match="copy: cannot be written: the disk / takes no file"), explained_write_errors(tmp_path / "copy"):
        raise shutil.Error([("series", "copy", "[Errno 27] File too large")])


def test_a_full_disk_says_how_much_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2000))
    message = r"a\.npy: cannot be written: the disk .* is full: 2\.0 kB free, about 3\.0 kB more are needed; make room"
    with pytest.raises(WriteError, match=message), atomic_write(tmp_path / "a.npy", size=5000):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_holes_of_a_file_still_need_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2000))

    def write() -> None:
        with atomic_write(tmp_path / "a.npy", size=5000) as partial:
            with partial.open("wb") as file:
                file.truncate(5000)
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WriteError, match=r"2\.0 kB free, about 3\.0 kB more are needed"):
        write()


def test_other_errors_stay_what_they_are(tmp_path: Path):
    for error in (RuntimeError("of a network"), PermissionError(errno.EACCES, "", "/elsewhere/input"), OSError(errno.EIO, "input")):
        with pytest.raises(type(error)) as caught, atomic_write(tmp_path / "a"):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_ends_all_cases(workers: int):
    with pytest.raises(WriteError, match="/full/case: cannot be written: the disk / is full"):
        run_cases(worker_jobs.fill_disk, {name: (name,) for name in "abc"}, workers=workers)


def test_a_folder_that_the_disk_refuses_is_explained_where_the_error_is_shown(tmp_path: Path):
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "new"))
    assert in_words(full).startswith(f"{tmp_path}/new: cannot be written: the disk ")
    assert in_words(WriteError(errno.ENOSPC, "in words")) == "in words"
    assert in_words(FileNotFoundError(errno.ENOENT, "no", "/x")) == "/x: there is no such file or folder; look at the path, or make it"
    (tmp_path / "file").write_text("")
    blocked = in_words(NotADirectoryError(errno.ENOTDIR, "no", str(tmp_path / "file" / "below")))
    assert blocked.startswith(f"{tmp_path}/file/below: cannot be written, as {tmp_path}/file is a file and no folder")
    denied = in_words(PermissionError(errno.EACCES, "no", str(tmp_path / "new")))
    assert (
        denied == f"{tmp_path}/new: may not be written there by this user; give the right to write in {tmp_path}, or choose another folder"
    )
    assert "[Errno" not in in_words(IsADirectoryError(errno.EISDIR, "no", str(tmp_path)))


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOTDIR, errno.EEXIST, errno.EROFS])
def test_a_folder_that_cannot_be_made_is_an_error_of_writing(tmp_path: Path, number: int) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "sub" / "new.json" if number in (errno.ENOTDIR, errno.EEXIST) else tmp_path / "out" / "new.json"
    with pytest.raises(WriteError, match=r"new.json: (cannot be written|may not be written)"), explained_write_errors(path):
        raise OSError(number, "no", str(path.parent))
    assert in_words(ValueError("a mistake")) == "a mistake"
