"""Which models the ensembles of a paper's experiment are made of, from how many patients, and which of them its table has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ensemble_models import Says, add_model, fit, linked_home, planned_once, results, right, run_of, splits, wrong_in_a_corner

from autoseg.data.descriptions import planned_dataset
from autoseg.ensembling.fusion_trainer import some_patients
from autoseg.pipeline import paper_ensembles as paper
from autoseg.pipeline.experiments import describe_experiment
from autoseg.presets import PAPER_PRESETS
from autoseg.presets.experiment import Experiment, experiment
from autoseg.runtime.checkpoints import load_checkpoint, save_checkpoint
from autoseg.runtime.runs import FINAL_CHECKPOINT, ModelFolder
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Choice
from autoseg.schema.settings import EnsembleSettings, TrainSettings
from autoseg.trainers.validation import NothingValidatedError

planned = pytest.fixture(scope="module")(planned_once)
home = pytest.fixture(linked_home)


def model(home: Path, row: str, loss: float, **organs: Says) -> tuple[str, TrainSettings]:
    """A model of the paper's row on two folds, with this validation loss; the row and its settings."""
    name = add_model(home, organs, tag=row, folds="01")
    for fold in "01":
        (results(home) / name / f"fold_{fold}/history.csv").write_text(f"validation_interval,validation_loss\n1,{loss}\n")
    return row, TrainSettings(organs=tuple(organs) if len(organs) == 1 else (), tag=row, iterations=2, device="cpu")


def experiment_of(*models: tuple[str, TrainSettings], kinds: str = "Argmax") -> Experiment:
    ensembles = tuple(one for one in PAPER_PRESETS["crespi2023"].ensembles if one.name.startswith(kinds))
    rows, trainings = zip(*models, strict=True)
    return Experiment("crespi2023", trainings, rows, {}, ensembles)


def members(home: Path, found: Experiment) -> list[str]:
    """The members of its first ensemble, as organ and row."""
    workspace = Workspace(home)
    ((_, settings), *_), failures = paper.paper_ensembles(workspace, planned_dataset(workspace, 3), found, ["2d"])
    assert not failures
    return [name.removeprefix("2d__Trainer__").replace("__", " ") for name in settings.members]


def test_baselines_of_a_single_organ_are_no_members(home: Path) -> None:
    """Where there is one organ they are binary, too, but not what the paper's ensembles are made of."""
    found = experiment_of(model(home, "U-Net", 0.1, ball=right()), model(home, "binary-U-Net", 0.2, ball=right()))
    assert members(home, found) == ["ball binary-U-Net"]


def test_members_of_the_papers_further_experiments(home: Path) -> None:
    """The ball has the lower Dice: of it the second best model is redundant; the baseline of all organs is one of experiment 4."""
    models = [model(home, "DeepLabV3", 0.1, ball=right(), bar=right())]
    for row, loss in (("binary-U-Net", 0.4), ("binary-DeepLabV3", 0.2), ("binary-SE-ResUNet", 0.3)):
        models += [model(home, row, loss, ball=wrong_in_a_corner()), model(home, row, loss, bar=right())]
    best = ["ball binary-DeepLabV3", "bar binary-DeepLabV3"]
    assert members(home, experiment_of(*models)) == members(home, experiment_of(*models, kinds="scarce")) == best
    assert members(home, experiment_of(*models, kinds="redundant")) == [*best, "ball binary-SE-ResUNet"]
    assert members(home, experiment_of(*models, kinds="multiclass")) == [*best, "DeepLabV3"]
    alone = experiment_of(*models[1:3], kinds="redundant"), experiment_of(*models[1:], kinds="multiclass")
    for one, reason in zip(alone, ("only one model of ball", "DeepLabV3, one of its members, is not trained"), strict=True):
        rows, failures = paper.paper_ensembles(Workspace(home), planned_dataset(Workspace(home), 3), one, ["2d"])
        assert not rows and all(reason in said for said in failures.values())


def test_the_table_has_no_ensembles_of_former_networks(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Their scores would stand beside those of models that were trained again; --restart trains them anew with the models."""
    found = experiment_of(model(home, "binary-U-Net", 0.2, ball=right()), model(home, "binary-U-Net", 0.2, bar=right()))
    paper.train_paper_ensembles(3, found, ["2d"], home=home)
    table = describe_experiment(3, found, Choice({}, (), {}, 0), ["2d"], home=home)
    assert "\nArgmax" in table and "not run" not in table
    for path in results(home).glob(f"2d__*/fold_0/{FINAL_CHECKPOINT}"):
        states, meta = load_checkpoint(path)
        save_checkpoint(path, {"network": {name: value + 1 for name, value in states["network"].items()}}, meta)
    table = describe_experiment(3, found, Choice({}, (), {}, 0), ["2d"], home=home)
    assert "\nArgmax" not in table and "not run: Argmax: " in table and "trained again since" in table
    paper.train_paper_ensembles(3, found, ["2d"], home=home)
    assert "Argmax is not trained" in caplog.text
    again = replace(found, trainings=tuple(replace(one, restart=True) for one in found.trainings))
    paper.train_paper_ensembles(3, again, ["2d"], home=home)
    assert "\nArgmax" in describe_experiment(3, found, Choice({}, (), {}, 0), ["2d"], home=home)


def test_the_table_says_which_ensembles_are_not_there(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A fold of two patients' cases of which one has no stored prediction cannot be fused; the row was left out without a word."""
    found = experiment_of(model(home, "binary-U-Net", 0.2, ball=right()), kinds="Layer")
    for fold in "01":
        case = splits(home)[int(fold)].val[0]
        (results(home) / f"2d__Trainer__ball__binary-U-Net/fold_{fold}/validation/{case}.b2nd").unlink()
    paper.train_paper_ensembles(3, found, ["2d"], home=home)
    assert "Layer Fusion is not trained: layer fusion: expected held-out cases of two patients" in caplog.text
    table = describe_experiment(3, found, Choice({}, (), {}, 0), ["2d"], home=home)
    assert "not run: Layer Fusion: no fold of it is trained and validated" in table


def test_names_of_ensembles_ask_for_them_and_for_the_papers_models(tmp_path: Path) -> None:
    home = tmp_path
    (home / "raw/Dataset001_Tiny").mkdir(parents=True)
    found = experiment("crespi2023", 1, home=home, models=["scarce-Meta-U-Net"], organs=("ball", "block"))
    usual = experiment("crespi2023", 1, home=home, organs=("ball", "block"))
    assert found.trainings == usual.trainings and len(found.trainings) == 9
    assert [one.name for one in usual.ensembles] == ["Argmax", "Layer Fusion", "Logits Conc.", "Meta U-Net"]
    assert found.ensembles[:4] == usual.ensembles and found.ensembles[4].share == 0.2
    few = experiment("crespi2023", 1, home=home, models=["binary-U-Net", "redundant-Layer-Fusion"], organs=("ball",))
    assert few.rows == ("binary-U-Net",) and few.ensembles[-1].name == "redundant-Layer-Fusion"


def test_ensembles_that_the_folds_do_not_allow_are_not_announced() -> None:
    rows = PAPER_PRESETS["crespi2023"].ensembles[:4]
    assert paper.describe_ensembles(rows, 2).startswith(" Then the ensembles Argmax, Layer Fusion, Logits Conc., Meta U-Net: ")
    said = paper.describe_ensembles(rows, 1)
    assert "Then the ensembles Argmax, Layer Fusion: " in said and "Not the ensembles Logits Conc., Meta U-Net, which" in said
    assert "Then" not in paper.describe_ensembles(rows, 0) and "--folds" in paper.describe_ensembles(rows, 0)
    assert paper.describe_ensembles((), 1) == ""


def test_an_ensemble_none_of_whose_cases_can_be_validated_stops_no_others(home: Path, monkeypatch, caplog) -> None:
    """As where a disk lost the references; what fails by case is handed on, for the exit status."""
    found = experiment_of(model(home, "binary-U-Net", 0.2, ball=right()))
    found = replace(found, ensembles=(found.ensembles[0], replace(found.ensembles[0], name="Another")))
    asked: list[str] = []

    def fail(which: object, settings: EnsembleSettings, *, failures: dict[str, str], **_: object) -> None:
        asked.append(settings.kind)
        failures["case_0"] = "no reference"
        raise NothingValidatedError("not one of 2 cases could be validated")

    monkeypatch.setattr(paper, "train_ensemble", fail)
    failures: dict[str, str] = {}
    paper.train_paper_ensembles(3, found, ["2d"], home=home, failures=failures)
    assert asked == ["argmax"] * 2 and failures == {"case_0": "no reference"} and "Another is not trained: not one" in caplog.text


class TestShareOfPatients:
    def test_by_hand(self) -> None:
        patients = {"a": "1", "b": "1", "c": "2", "d": "3", "e": "4"}
        found = {some_patients(tuple("abcde"), patients, 0.5, np.random.default_rng(seed)) for seed in range(40)}
        assert all(len({patients[case] for case in one}) == 2 and ("a" in one) == ("b" in one) for one in found) and len(found) == 6
        assert len(some_patients(tuple("cde"), patients, 0.01, np.random.default_rng(0))) == 1
        assert some_patients(tuple("ba"), patients, 1, np.random.default_rng(0)) == ("b", "a")

    @pytest.mark.parametrize("kind", ["logits", "fusion"])
    def test_an_ensemble_learns_from_so_many_and_is_judged_by_all(self, home: Path, kind: str) -> None:
        """Ten patients in five folds: logits learn from half of eight, each half of a fold of fusion from its one."""
        name = add_model(home, {"ball": right()})
        scores = fit(home, kind, name, folds=("0",), iterations=1, share=0.5)["0"]
        assert {one.case for one in scores} == set(splits(home)[0].val)
        record = run_of(home, kind).record()
        assert record.ensemble.settings.share == 0.5 and "__0.5of_patients" in str(next(results(home).glob("ensemble__*")))
        others = {case for split in splits(home)[1:] for case in split.val}
        assert len(record.split.train) == (4 if kind == "logits" else 0) and set(record.split.train) <= others
        assert ModelFolder(results(home) / next(results(home).glob("ensemble__*")).name).run("0").is_finished

    def test_what_makes_no_sense(self, home: Path) -> None:
        name = add_model(home, {"ball": right()}, folds="0")
        for kind, share in (("argmax", 0.5), ("logits", 0.0), ("logits", 1.5)):
            with pytest.raises(ValueError, match="share of the patients"):
                fit(home, kind, name, share=share)
        assert not list(results(home).glob("ensemble__*"))
