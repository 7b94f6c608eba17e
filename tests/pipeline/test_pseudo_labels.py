"""``--pseudo-labels`` from the dataset to the run: what is predicted, by whom, when it is made again, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from functools import partial

import numpy as np
import pytest
from oracle_home import DATASET, MODEL, oracle_case

from autoseg.data.descriptions import planned_dataset
from autoseg.data.images import write_image
from autoseg.pipeline import PlanSettings, TrainSettings, find_best_configuration, plan_and_preprocess, pseudo_labelling, running, train
from autoseg.preprocessing.planned_cases import preprocess_unlabelled
from autoseg.preprocessing.pseudo_labelled_cases import FULL, PseudoLabelledCase
from autoseg.presets.experiment import Experiment
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.runs import ModelFolder
from autoseg.runtime.serialization import write_json
from autoseg.runtime.workspace import Workspace
from autoseg.selection.stored_scores import taught_models

pytestmark = pytest.mark.usefixtures("no_pictures")
STUDENT = MODEL[3] + "__pseudo"


@pytest.fixture(scope="module")
def shared_home(shared_oracle_home, tmp_path_factory):
    """A home with a chosen model of fold 0, and two preprocessed images without label maps."""
    home = shutil.copytree(shared_oracle_home(), tmp_path_factory.mktemp("pseudo") / "home")
    add_images(home, 10, 11)
    workspace = Workspace(home)
    dataset, plan = planned_dataset(workspace, DATASET), workspace.plan(DATASET)
    preprocess_unlabelled(workspace, dataset, plan, plan.configurations["3d_fullres"], workers=0)
    return home


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("autoseg.trainers.run_setup.measure_step", lambda job, device: StepCost(0.01, 1))
    monkeypatch.setattr(pseudo_labelling, "preprocess_unlabelled", partial(preprocess_unlabelled, workers=0))


@pytest.fixture
def home(shared_home, tmp_path):
    return shutil.copytree(shared_home, tmp_path / "home")


def add_images(home, *numbers):
    for number in numbers:
        image, _, geometry = oracle_case(number)
        write_image(home / f"raw/{DATASET}/imagesUn/u{number}_0000.nii.gz", image[None], geometry)
    plan_and_preprocess(1, PlanSettings(configurations=("3d_fullres",), workers=0), home=home)


def learn(home, fold=0, **changes):
    settings = {"iterations": 3, "batch": 2, "device": "cpu", "network": "oracle_home:Oracle", "pseudo_labels": True, **changes}
    return train(1, "3d_fullres", fold, TrainSettings(**settings), home=home)


def student(home, fold="0", name=STUDENT):
    return ModelFolder(home / "results" / DATASET / name).run(fold)


def stored(home, record, name):
    root = home / "preprocessed" / DATASET
    pseudo = root / "pseudo_labels" / record.pseudo_labels.models[:16] / "3d_fullres"
    return PseudoLabelledCase(pseudo, name, images=root / "unlabelled" / "3d_fullres")


def nobody(*_):
    raise AssertionError("pseudo-labels are made again")


def test_they_are_the_chosen_models_predictions_and_never_in_validation(home):
    scores = learn(home)
    record = student(home).record()
    assert sorted(record.pseudo_labels.cases) == ["u10", "u11"]
    assert record.pseudo_labels.choice.organs == {"organ1": (MODEL[3],), "organ2": (MODEL[3],)}
    assert record.pseudo_labels.choice.member_folds == {MODEL[3]: ("0",)}
    for number in (10, 11):
        case = stored(home, record, f"u{number}")
        np.testing.assert_array_equal(np.maximum(case.segmentation[:], 0), np.rint(case.image[0] / 100).clip(0, 2))
        assert case.weights[:].min() > 0.9 * FULL  # it is sure of whole hundreds
    assert {score.case for score in scores} == set(record.split.val)
    assert not {*record.split.train, *record.split.val} & record.pseudo_labels.cases.keys()
    assert not list(student(home).validation.glob("u1*"))


def test_they_are_made_once_and_anew_when_the_choice_changed(home, monkeypatch):
    learn(home)
    first = student(home).record().pseudo_labels.models
    file = home / "results" / DATASET / "choice.json"
    with monkeypatch.context() as patch:
        patch.setattr(pseudo_labelling, "_label", nobody)
        learn(home, restart=True)
        choice = find_best_configuration(1, home=home)
        hotter = {name: dataclasses.replace(one, temperature=200.0) for name, one in choice.calibration.items()}
        write_json(file, dataclasses.replace(choice, calibration=hotter), digest=False)  # as if edited by hand
        with pytest.raises(ValueError, match="not one of 2 images"):
            learn(home, tag="other")
    learn(home, tag="other")
    other = student(home, name=STUDENT + "__other").record()
    assert other.pseudo_labels.models != first
    before, after = (stored(home, one, "u10").weights[:] for one in (student(home).record(), other))
    assert (before != after).any()  # the temperature is another


def test_a_run_goes_on_with_the_teachers_it_began_with(home, monkeypatch):
    learn(home)
    run = student(home)
    folder = home / "preprocessed" / DATASET / "pseudo_labels"
    run.checkpoint.unlink()
    run.scores_file.unlink()
    shutil.rmtree(folder)  # spares no run, as they can be made again
    learn(home)
    assert stored(home, run.record(), "u10").weights.shape
    run.checkpoint.unlink()
    run.scores_file.unlink()
    shutil.rmtree(folder)
    record = run.record()
    changed = dataclasses.replace(record.pseudo_labels, models="0" * 64)
    write_json(run.record_file, dataclasses.replace(record, pseudo_labels=changed))
    with pytest.raises(ValueError, match="began with pseudo-labels of other networks of .* start over with --restart"):
        learn(home)


def test_images_that_were_changed_since_are_noticed(home):
    learn(home)
    run = student(home)
    run.checkpoint.unlink()
    run.scores_file.unlink()
    image, _, geometry = oracle_case(77)
    write_image(home / f"raw/{DATASET}/imagesUn/u10_0000.nii.gz", image[None], geometry)
    add_images(home)
    with pytest.raises(ValueError, match="began with other images without label maps, or with more: u10"):
        learn(home)


def test_each_fold_has_the_networks_of_its_own(home):
    with pytest.raises(ValueError, match="expected its fold 1 to be trained, as other folds' .* Run: autoseg_train .* 3d_fullres 1 "):
        learn(home, 1)


def test_images_of_held_out_patients_are_left_out(home, caplog):
    val = student(home).model.folder.parent
    held_out = ModelFolder(val / MODEL[3]).run("0").record().split.val[0]
    shutil.rmtree(home / "results")
    shutil.rmtree(home / "preprocessed")
    raw = home / f"raw/{DATASET}"
    shutil.copy(raw / "imagesUn/u10_0000.nii.gz", raw / f"imagesUn/{held_out}-later_0000.nii.gz")
    plan_and_preprocess(1, PlanSettings(configurations=("3d_fullres",), workers=0, groups=r"^[a-z]\d+"), home=home)
    learn(home, pseudo_labels=False)
    with caplog.at_level("INFO"):
        learn(home)
    names = student(home).record()
    later = f"{held_out}-later" in names.pseudo_labels.cases
    assert later == (held_out not in names.split.val)
    assert later or "1 images without label maps are left out" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"trainer": "SpatialConfigurationTrainer", "network": None},
            r"\(Trainer, CascadeTrainer, .*found SpatialConfigurationTrainer",
        ),
        ({"options": {"pseudo_share": 1.5}}, "pseudo_share: expected a share between 0 and 1"),
    ],
)
def test_what_cannot_learn_from_them_is_refused_before_anything_is_made(home, changes, message):
    with pytest.raises(ValueError, match=message):
        learn(home, **changes)
    assert not student(home).folder.exists()


def test_without_images_or_models_it_says_what_to_do(oracle_home):
    home = oracle_home()
    with pytest.raises(ValueError, match="found none in the plan; put them into .*imagesUn.* and run autoseg_plan_and_preprocess"):
        learn(home)
    add_images(home, 10)
    shutil.rmtree(home / "results")
    with pytest.raises(ValueError, match="nothing is trained yet; train without it first"):
        learn(home)
    assert not (home / "results").exists(), "refused before a folder is made"


def test_where_folds_vote_in_prediction_they_vote_here(home, monkeypatch):
    chosen = dataclasses.replace(find_best_configuration(1, home=home), vote=True)
    monkeypatch.setattr(pseudo_labelling, "models_chosen", lambda *_: chosen)
    seen = []
    segment = pseudo_labelling.Ensemble.segment
    monkeypatch.setattr(pseudo_labelling.Ensemble, "segment", lambda *what: seen.append(what[2]) or segment(*what))
    learn(home)
    assert [list(by_fold) for by_fold in seen] == [[MODEL[3]]] * 2


def test_a_model_that_was_taught_teaches_none(home):
    learn(home)
    assert taught_models(home / "results" / DATASET) == {STUDENT}
    find_best_configuration(1, home=home)  # among both
    learn(home, tag="other")
    assert student(home, name=STUDENT + "__other").record().pseudo_labels.models == student(home).record().pseudo_labels.models


def test_run_trains_without_chooses_trains_with_and_chooses_again(home, monkeypatch):
    shutil.rmtree(home / "results")
    plan, done = PlanSettings(configurations=("3d_fullres",), workers=0), []
    monkeypatch.setattr(running, "train", lambda *what, **more: done.append(what[3].pseudo_labels) or train(*what, **more))
    choose = running.find_best_configuration
    monkeypatch.setattr(running, "find_best_configuration", lambda *what, **more: done.append("choice") or choose(*what, **more))
    settings = TrainSettings(iterations=3, batch=2, device="cpu", network="oracle_home:Oracle", pseudo_labels=True)
    begin = partial(running.run, 1, plan, home=home, folds=("0", "1"))
    choice = begin(settings)
    assert done == [False, False, "choice", True, True, "choice"]
    assert set(choice.table) >= {MODEL[3], STUDENT}
    teachers = [student(home, fold).record().pseudo_labels.choice for fold in ("0", "1")]
    assert [one.member_folds for one in teachers] == [{MODEL[3]: ("0",)}, {MODEL[3]: ("1",)}]
    assert begin(settings).organs == choice.organs
    assert done[6:] == [False, False, True, True, "choice"]


def test_run_refuses_what_cannot_be_taught_before_the_first_training(home):
    shutil.rmtree(home / "results")
    plan = PlanSettings(configurations=("3d_fullres",), workers=0)
    with pytest.raises(ValueError, match="found SpatialConfigurationTrainer"):
        running.run(1, plan, TrainSettings(trainer="SpatialConfigurationTrainer", pseudo_labels=True), home=home)
    with pytest.raises(ValueError, match="is no part of a paper's experiment"):
        running.run(1, plan, home=home, experiment=Experiment("roth2018", (TrainSettings(pseudo_labels=True),)))
    assert not list((home / "results").rglob("fold_*"))
