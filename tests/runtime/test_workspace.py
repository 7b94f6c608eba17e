"""Which home folder is found, and which dataset a word means in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.data.descriptions import planned_dataset
from autoseg.runtime.runs import FINAL_CHECKPOINT
from autoseg.runtime.serialization import write_json
from autoseg.runtime.workspace import Workspace, find_workspace, last_name
from autoseg.schema import Split


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with nothing in it or above it."""
    here = tmp_path / "some" / "where"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def home(tmp_path: Path, tiny_dataset) -> Path:
    """A home folder with two datasets."""
    for name in ("Dataset003_Liver", "Dataset012_Heart"):
        tiny_dataset(tmp_path / "home" / "raw" / name, ("a",))
    return tmp_path / "home"


class TestFindingHome:
    def test_what_the_user_says_wins_over_everything(self, elsewhere, home, monkeypatch, tmp_path):
        (elsewhere / "raw").mkdir()
        monkeypatch.setenv("AUTOSEG_HOME", str(tmp_path / "variable"))
        assert find_workspace(home).home == home
        assert find_workspace(str(home) + "/../home").home == home

    def test_the_variable_wins_over_the_current_folder(self, elsewhere, home, monkeypatch):
        (elsewhere / "raw").mkdir()
        monkeypatch.setenv("AUTOSEG_HOME", str(home))
        assert find_workspace().home == home

    @pytest.mark.parametrize("raw", ["raw", "nnUNet_raw"])
    def test_the_nearest_folder_upwards_with_raw_data(self, elsewhere, raw):
        (elsewhere.parent / raw).mkdir()
        (elsewhere.parents[1] / "raw").mkdir()
        assert find_workspace().home == elsewhere.parent
        assert find_workspace().raw == elsewhere.parent / raw

    def test_raw_data_above_goes_before_results_here(self, elsewhere):
        (elsewhere / "results" / "Dataset001_X").mkdir(parents=True)
        (elsewhere / "results" / "Dataset001_X" / "plan.json").write_text("{}")
        assert find_workspace().home == elsewhere
        (elsewhere.parent / "raw").mkdir()
        assert find_workspace().home == elsewhere.parent

    def test_a_folder_of_results_without_a_model_is_no_home(self, elsewhere):
        (elsewhere / "results").mkdir()
        with pytest.raises(ValueError, match="no home folder"):
            find_workspace()

    def test_a_dataset_folder_in_a_raw_folder_leads_to_its_home(self, elsewhere, home):
        assert find_workspace(dataset=str(home / "raw" / "Dataset003_Liver")).home == home

    def test_a_dataset_folder_that_lies_alone_makes_the_current_folder_home(self, elsewhere, tmp_path, tiny_dataset):
        alone = tiny_dataset(tmp_path / "usb" / "Dataset005_Brain", ("a",))
        assert find_workspace(dataset=str(alone)).home == elsewhere

    def test_the_reference_tools_variable_is_the_last_resort(self, elsewhere, home, monkeypatch):
        (home / "raw").rename(home / "my_data")
        monkeypatch.setenv("nnUNet_raw", str(home / "my_data"))
        assert find_workspace().home == home
        assert find_workspace().dataset_folder(3) == home / "my_data" / "Dataset003_Liver"
        (elsewhere / "raw").mkdir()
        assert find_workspace().home == elsewhere

    def test_without_any_the_error_says_what_to_do(self, elsewhere):
        with pytest.raises(ValueError, match="where.*raw/.*mkdir raw.*--home"):
            find_workspace(dataset="3")


class TestDatasets:
    def test_reference_data_is_used_as_it_is(self, home):
        (home / "raw").rename(home / "nnUNet_raw")
        assert planned_dataset(Workspace(home), 3).folder == home / "nnUNet_raw" / "Dataset003_Liver"

    @pytest.mark.parametrize("which", [5, "5", "005", "Dataset005_Brain", "Brain"])
    def test_a_dataset_planned_from_elsewhere_is_known_by_its_id_afterwards(self, home, tmp_path, tiny_dataset, which):
        workspace = Workspace(home)
        alone = tiny_dataset(tmp_path / "usb" / "Dataset005_Brain", ("a", "b"))
        with pytest.raises(ValueError, match="Dataset003_Liver, Dataset012_Heart"):
            workspace.dataset_folder(which)
        write_json(workspace.preprocessed("Dataset005_Brain") / "dataset.json", planned_dataset(workspace, str(alone)))
        assert workspace.dataset_folder(which) == alone
        assert [case.name for case in planned_dataset(workspace, which).cases] == ["a", "b"]

    @pytest.mark.parametrize(("name", "which"), [("Task03_Liver", "3"), ("Dataset3_x", "03"), ("Dataset005_Brain", "dataset005_brain")])
    def test_a_dataset_planned_from_elsewhere_is_found_by_the_same_words_as_one_in_raw(self, home, tmp_path, name, which):
        (home / "raw").rename(home / "nothing")
        (home / "raw").mkdir()
        workspace = Workspace(home)
        write_json(workspace.preprocessed(name) / "dataset.json", {"folder": str(tmp_path / "usb" / name)})
        assert workspace.dataset_folder(which) == tmp_path / "usb" / name
        assert workspace.dataset_folder(f"/gone/{name}") == tmp_path / "usb" / name

    def test_an_id_that_means_several_is_refused_though_one_of_them_is_planned(self, home, tiny_dataset):
        tiny_dataset(home / "raw" / "Dataset003_Lung", ("a",))
        workspace = Workspace(home)
        write_json(workspace.preprocessed("Dataset003_Liver") / "dataset.json", {"folder": "x"})
        with pytest.raises(ValueError, match="several"):
            workspace.dataset_folder(3)

    def test_a_path_is_known_by_its_last_part(self, elsewhere):
        assert [last_name(which) for which in ("/x/Dataset003_Liver/", ".", 3)] == ["Dataset003_Liver", elsewhere.name, "3"]


def test_only_datasets_with_a_trained_fold_count(tmp_path):
    workspace = Workspace(tmp_path)
    assert workspace.trained_datasets() == []
    for run in ("Dataset001_A/2d__Trainer/fold_1", "Dataset002_B/3d_fullres__Trainer/fold_0", "Dataset003_C/2d__Trainer/old_fold_0_1"):
        (tmp_path / "results" / run).mkdir(parents=True)
        (tmp_path / "results" / run / FINAL_CHECKPOINT).touch()
    (tmp_path / "results" / "Dataset004_D" / "2d__Trainer" / "fold_0").mkdir(parents=True)
    assert workspace.trained_datasets() == ["Dataset001_A", "Dataset002_B"]


def test_plan_and_folds_are_read_and_a_missing_plan_names_the_command(tmp_path, tiny_plan):
    workspace, plan = Workspace(tmp_path), tiny_plan()
    with pytest.raises(ValueError, match=r"plan\.json.*autoseg_plan_and_preprocess -d Dataset001_Tiny"):
        workspace.plan(plan.dataset)
    write_json(workspace.preprocessed(plan.dataset) / "plan.json", plan)
    write_json(workspace.preprocessed(plan.dataset) / "splits.json", [Split(("a",), ("b",)), Split(("b",), ("a",))], digest=False)
    assert workspace.plan(plan.dataset) == plan
    assert workspace.splits(plan.dataset)[1] == Split(("b",), ("a",))
