"""Models in folders anywhere, without a home, and networks that stay loaded."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from oracle_home import DATASET, MODEL, HomeFactory, oracle_case

import autoseg
from autoseg import PredictSettings, cli
from autoseg.data.images import read_label, write_image
from autoseg.pipeline import chosen_models
from autoseg.pipeline.fast_prediction import way_of
from autoseg.pipeline.loaded_model import LoadedModel, describe_models
from autoseg.runtime.runs import Run
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Choice
from autoseg.schema.cheaper_prediction import COARSE_TO_FINE, NO_MIRRORING, WAYS, DiceLoss
from autoseg.trainers.cheaper_validation import read_cheaper

CPU = PredictSettings(device="cpu")
SPACING = (2.5, 0.8, 0.7)


@pytest.fixture(scope="module")
def copies(shared_oracle_home: HomeFactory, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The results of a dataset, its model and its fold, each copied away and renamed, without validation."""
    results = shared_oracle_home() / "results" / DATASET
    folder = tmp_path_factory.mktemp("elsewhere")
    kinds = {"results": results, "model": results / MODEL[3], "fold": results / MODEL[3] / "fold_0"}
    without = shutil.ignore_patterns("validation", "*.png", "history.csv")
    copied = {kind: shutil.copytree(path, folder / f"my {kind}", ignore=without) for kind, path in kinds.items()}
    return copied | {"fold_0": shutil.copytree(kinds["fold"], folder / "fold_0", ignore=without), "own": kinds["fold"]}


@pytest.fixture(scope="module")
def model(copies: dict[str, Path]) -> LoadedModel:
    return autoseg.load_model(copies["results"], CPU)


@pytest.mark.parametrize("kind", ["results", "model", "fold", "fold_0", "own"])
def test_a_folder_anywhere_predicts_without_a_home(copies: dict[str, Path], kind: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    image, label, geometry = oracle_case(7)
    write_image(tmp_path / "in" / "new_0000.nii.gz", image[None], geometry)
    assert cli.predict(["-i", "in", "-o", "out", "-m", str(copies[kind]), "--device", "cpu"]) == 0
    assert np.array_equal(read_label(tmp_path / "out" / "new.nii.gz").array, label)
    found, spacing = autoseg.predict((image, SPACING), copies[kind], settings=CPU)
    assert np.array_equal(found, label) and spacing == SPACING


def test_what_is_no_model_is_refused_with_what_is_there(copies: dict[str, Path], tmp_path: Path, shared_oracle_home: HomeFactory) -> None:
    home = shared_oracle_home()
    (tmp_path / "empty").mkdir()
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.nii.gz").touch()
    half = shutil.copytree(copies["model"], tmp_path / "half")
    (half / "fold_0" / "checkpoint_final.pt").unlink()
    (copies["fold"] / "run.json").rename(tmp_path / "run.json")
    try:
        expected = {
            tmp_path / "nothing": "found nothing",
            tmp_path / "empty": "the folder is empty",
            tmp_path / "scans": r"found a\.nii\.gz",
            half: "training is not finished",
            home: f"name .*{DATASET}",
            home / "results": f"name .*{DATASET}",
            copies["fold"]: r"no run\.json",
            copies["own"] / "checkpoint_final.pt": "found a file",
        }
        for folder, message in expected.items():
            with pytest.raises(ValueError, match=message):
                autoseg.load_model(folder, CPU)
    finally:
        (tmp_path / "run.json").rename(copies["fold"] / "run.json")


def test_a_name_that_means_nothing_is_refused_in_words_of_python(shared_oracle_home: HomeFactory) -> None:
    with pytest.raises(
        ValueError, match=f"^nix means none of the trained datasets:\\n  {DATASET}\\nand .* has no folder of models"
    ) as caught:
        autoseg.load_model("nix", CPU, home=shared_oracle_home())
    assert "-d" not in str(caught.value)


def test_contradictory_ways_to_name_a_model_are_refused(copies: dict[str, Path]) -> None:
    for folder, more, message in (
        ("results", {"dataset": "1"}, "found both"),
        ("model", {"model": "2d"}, "leave one of them out"),
        ("fold_0", {"folds": ("1",)}, "leave one out"),
        ("results", {"model": "2d"}, "expected one of"),
        ("model", {"folds": ("3",)}, "expected trained folds 3, found 0"),
    ):
        with pytest.raises(ValueError, match=message):
            autoseg.predict_folder("in", "out", PredictSettings(folder=copies[folder], device="cpu", **more))


def test_results_in_their_home_are_those_of_the_dataset(shared_oracle_home: HomeFactory) -> None:
    home = shared_oracle_home()
    model = autoseg.load_model(home / "results" / DATASET, CPU)
    assert (model.source.name, model.source.workspace.home) == (DATASET, home)
    assert autoseg.load_model(1, CPU, home=home).source.results == model.source.results


def test_networks_are_loaded_once(copies: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, load = [], chosen_models.load_model
    monkeypatch.setattr(chosen_models, "load_model", lambda *given, **more: loaded.append(given) or load(*given, **more))
    model = autoseg.load_model(copies["results"], CPU)
    cases = [oracle_case(number) for number in range(4)]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda case: model.predict((case[0], SPACING))[0], cases))
    assert len(loaded) == 1
    assert all(np.array_equal(one, label) for one, (_, label, _) in zip(found, cases, strict=True))
    assert (model.channels, model.organs) == (("noNorm",), {"organ1": (1,), "organ2": (2,)})


def test_every_kind_of_image_comes_back_as_that_kind_with_probabilities_by_organ(model: LoadedModel, tmp_path: Path) -> None:
    array, label, geometry = oracle_case(7)
    write_image(tmp_path / "new.nii.gz", array[None], geometry)
    image = sitk.ReadImage(str(tmp_path / "new.nii.gz"))
    for given in (image, tmp_path / "new.nii.gz", str(tmp_path / "new.nii.gz"), [tmp_path / "new.nii.gz"]):
        found, shares = model.predict(given, probabilities=True)
        assert list(shares) == ["organ1", "organ2"]
        for one in (found, *shares.values()):
            assert (one.GetSize(), one.GetSpacing(), one.GetOrigin()) == (image.GetSize(), image.GetSpacing(), image.GetOrigin())
            assert one.GetDirection() == image.GetDirection()
        assert np.array_equal(sitk.GetArrayFromImage(found), label)
    (found, place), shares = model.predict((array, SPACING), probabilities=True)
    assert np.array_equal(found, label) and place == SPACING
    assert all(np.array_equal(shares[f"organ{value}"] > 0.5, label == value) for value in (1, 2))
    affine = np.diag([-0.7, -0.8, 2.5, 1])  # to left, posterior, superior, as the case lies
    (found, place), shares = model.predict((array.T, affine), probabilities=True)
    assert np.array_equal(found, label.T) and place is affine
    assert shares["organ1"].shape == array.T.shape


def test_images_that_do_not_fit_are_refused(model: LoadedModel) -> None:
    array = oracle_case(7)[0]
    for image, message in (
        ((np.stack([array, array]), SPACING), "expected 1 channel as in training, found 2"),
        (array, "needs its spacing"),
        ((array,), "needs its spacing .* found 1 things in a tuple"),
        ([array, array], "needs its spacing"),
        ((array, SPACING[1:]), r"expected 3 numbers as spacing, .*, found 2 with an array of shape"),
        ((array, (1.0,)), "2 or 3 numbers"),
        ((array, 3), "expected one spacing an axis in mm"),
        ((array, "3 mm"), "expected an array and its spacing in mm"),
        (None, "expected a path, a SimpleITK image, or an array with its spacing, got NoneType"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(image)


def test_a_loaded_model_predicts_folders(model: LoadedModel, tmp_path: Path) -> None:
    for number in (5, 6):
        image, _, geometry = oracle_case(number)
        write_image(tmp_path / f"in_{number}" / "new.nii.gz", image[None], geometry)
        assert model.predict_folder(tmp_path / f"in_{number}", tmp_path / f"out_{number}") == {}
        assert np.array_equal(read_label(tmp_path / f"out_{number}" / "new.nii.gz").array, oracle_case(number)[1])


def test_mirrored_copies_follow_what_held_out_cases_gained(copies: dict[str, Path], tmp_path: Path) -> None:
    results = shutil.copytree(copies["results"], tmp_path / "results")
    path = results / "choice.json"
    choice = read_json(path, Choice)
    assert autoseg.load_model(results, CPU).ensemble.models[MODEL[3]].predictor.mirror, "of one patient nothing is concluded"
    assert {one.way for one in read_cheaper(Run(copies["own"]))} == set(choice.cheaper[MODEL[3]]) == set(WAYS)
    write_json(path, replace(choice, cheaper={MODEL[3]: {NO_MIRRORING: DiceLoss(0.001, 0.0005, 0.0015, 9)}}))
    for asked, expected in ((None, False), (True, True), (False, False)):
        loaded = autoseg.load_model(results, replace(CPU, mirror=asked))
        assert loaded.ensemble.models[MODEL[3]].predictor.mirror is expected
        said = describe_models(loaded)[-1]
        assert said.startswith(f"{MODEL[3]}: with") and ("as asked" in said) == (asked is not None) and "gain +0.0010 Dice" in said


def test_fast_prediction_says_what_it_leaves_out_and_what_that_loses(copies: dict[str, Path], tmp_path: Path, caplog) -> None:
    image, label, geometry = oracle_case(7)
    write_image(tmp_path / "in" / "new_0000.nii.gz", image[None], geometry)
    words = ["-i", str(tmp_path / "in"), "-m", str(copies["results"]), "--device", "cpu", "--fast"]
    with caplog.at_level("INFO"):
        assert cli.predict([*words, "-o", str(tmp_path / "out")]) == 0
    assert np.array_equal(read_label(tmp_path / "out" / "new.nii.gz").array, label)
    said = [line for line in caplog.messages if line.startswith("--fast")]
    assert "coarse to fine, without mirrored copies, with larger steps: expected loss +0.0000 Dice (1 held-out patient)" in said[0]
    assert "1 case: about" in said[1] and "GB of memory" in said[1]
    (model,) = autoseg.load_model(copies["results"], replace(CPU, fast=True)).ensemble.models.values()
    assert way_of(model) == COARSE_TO_FINE and "coarse" in model.key and model.predictor.step == 0.75
    with pytest.raises(ValueError, match="leave one of them out"):
        replace(CPU, fast=True, mirror=True)
