"""Dataset folders are found by id, name or path."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.runtime.dataset_folders import find_dataset, list_datasets, matching_names


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text("{}")
    return folder


@pytest.mark.parametrize("which", [3, "3", "003", "Dataset003_Liver", "Liver", "liver"])
def test_by_any_name_or_folder(tmp_path, which):
    expected = make(tmp_path / "Dataset003_Liver")
    make(tmp_path / "Dataset030_Spleen")
    assert find_dataset(tmp_path, which) == expected
    assert find_dataset(tmp_path / "raw", str(expected)) == expected.resolve()


def test_unknown_lists_what_is_there(tmp_path):
    make(tmp_path / "Dataset003_Liver")
    with pytest.raises(ValueError, match=r"Dataset003_Liver.*'4'"):
        find_dataset(tmp_path, 4)
    with pytest.raises(ValueError, match=r"\(none\)"):
        find_dataset(tmp_path / "nothing", "Liver")


def test_names_of_any_kind():
    for which in (3, "03", "liver", "TASK03_LIVER"):
        assert matching_names(["Task03_Liver", "Dataset030_Spleen"], which) == ["Task03_Liver"]
    assert matching_names(["Dataset3_x"], "x") == matching_names(["Dataset3_x"], 3) == ["Dataset3_x"]
    assert matching_names(["Liver", "Dataset003_Liver"], "Liver") == ["Liver"]
    assert matching_names(["Liver", "Liver_2", "none"], "") == []


def test_two_that_fit(tmp_path):
    make(tmp_path / "Dataset003_Liver")
    make(tmp_path / "Dataset003_Spleen")
    with pytest.raises(ValueError, match="several"):
        find_dataset(tmp_path, 3)
    assert find_dataset(tmp_path, "Spleen").name == "Dataset003_Spleen"


def test_list_is_in_natural_order(tmp_path):
    for name in ("Dataset10_B", "Dataset2_A"):
        make(tmp_path / name)
    (tmp_path / "other").mkdir()
    assert [folder.name for folder in list_datasets(tmp_path)] == ["Dataset2_A", "Dataset10_B"]
