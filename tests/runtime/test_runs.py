"""Models and runs on disk: names, what is started, trained, validated, finished, and what stands beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.runtime.locks import exclusive_lock
from autoseg.runtime.runs import ModelFolder, Run, model_folders, started_runs, validated_runs
from autoseg.runtime.serialization import write_json
from autoseg.schema import Labels, Score


@pytest.fixture
def model(tmp_path: Path) -> ModelFolder:
    return ModelFolder.named(tmp_path / "results", "2d", "my_pkg.mine:MyTrainer", ("liver",))


def trained(run: Run) -> Run:
    run.folder.mkdir(parents=True, exist_ok=True)
    run.checkpoint.touch()
    return run


def test_names_of_folders_and_folds(model: ModelFolder) -> None:
    assert (model.name, model.configuration, model.is_ensemble) == ("2d__my_pkg.mine.MyTrainer__liver", "2d", False)
    assert ModelFolder(Path("ensemble__Meta")).is_ensemble
    run = model.run("all")
    assert (run.fold, run.model) == ("all", model)
    assert run.label_map("a", ".nii.gz") == model.folder / "fold_all" / "validation" / "a.nii.gz"


def test_a_run_is_finished_when_it_is_trained_and_every_case_validated(model: ModelFolder) -> None:
    run = trained(model.run("0"))
    assert run.is_trained and not run.is_finished
    score = Score("a", "liver", 0.5, 0.4, 1, 2)
    write_json(run.scores_file, [score])
    assert run.is_finished and run.scores() == [score]
    write_json(run.failures_file, {"b": "why"})
    assert run.is_validated and not run.is_finished


def test_only_trained_folds_make_a_model(model: ModelFolder) -> None:
    for fold in ("1", "all"):
        trained(model.run(fold))
    write_json(model.run("1").scores_file, [])
    (model.folder / "fold_0").mkdir()
    trained(Run(model.folder / "old_fold_0_1"))
    assert model.trained_folds() == ["1", "all"]
    assert model.validated_folds() == ["1"]
    (model.folder.with_name("3d_fullres__Trainer") / "fold_0").mkdir(parents=True)
    assert model_folders(model.folder.parent) == [model]
    assert validated_runs(model.folder.parent) == [model.run("1")]
    assert started_runs(model.folder.parent) == []


def test_records_and_siblings(model: ModelFolder, tiny_plan, tiny_job) -> None:
    record = tiny_job(tiny_plan())
    with pytest.raises(ValueError, match="run.json"):
        model.run("0").record()
    other = Labels(("spleen",), ((1,),))
    assert model.labels(other) == other
    for fold in "01":
        write_json(model.run(fold).record_file, record)
    assert model.run("0").is_started and model.run("0").record() == record
    assert model.run("0").siblings() == [model.run("1")] and model.run("2").siblings() == model.runs()
    assert model.labels(other) == record.plan.labels


def test_seconds_that_were_not_measured_are_left_out(model: ModelFolder) -> None:
    assert model.run("0").timings() == {}
    write_json(model.run("0").timings_file, {"a": 1, "b": None, "c": 2.5})
    assert model.run("0").timings() == {"a": 1.0, "c": 2.5}


def test_a_run_put_aside_is_kept_under_the_next_free_name(model: ModelFolder) -> None:
    for _ in range(2):
        trained(model.run("0"))
        with exclusive_lock(model.run("0").folder, "training"):
            model.run("0").put_aside()
    assert sorted(path.name for path in model.folder.iterdir()) == ["old_fold_0_1", "old_fold_0_2"]
    assert not list(model.folder.glob("*/.lock"))
