"""A dataset that is checked from Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import write_dataset

import autoseg


def test_a_dataset_is_checked_by_number_name_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_dataset(tmp_path / "home" / "raw" / "Dataset003_Tiny")
    home = tmp_path / "home"
    for which in (3, "3", "Tiny", "Dataset003_Tiny", folder, str(folder)):
        assert autoseg.check_dataset(which, home=home, workers=0) == []
    monkeypatch.chdir(tmp_path)
    assert autoseg.check_dataset(folder, workers=0) == []
    alone = folder.rename(tmp_path / "alone")
    assert autoseg.check_dataset("alone", workers=0) == autoseg.check_dataset(alone, workers=0) == []
    for which, message in ((3, "no home folder"), (tmp_path / "home", "dataset.json")):
        with pytest.raises(ValueError, match=message):
            autoseg.check_dataset(which, workers=0)
    assert not (home / "preprocessed").exists()
