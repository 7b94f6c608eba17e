"""The whole pipeline through its commands, from a raw folder to scored predictions, on datasets of four tiny cases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import story_data as data

import autoseg
from autoseg import cli
from autoseg.data.images import read_label
from autoseg.pipeline import PlanSettings, PredictSettings, TrainSettings
from autoseg.runtime.serialization import read_json
from autoseg.schema import Choice, Plan, Split

VOLUMES = "Dataset003_Tiny"
SHORT = TrainSettings(iterations=4, batch=2, device="cpu")
FAST = PredictSettings(model="3d_fullres", mirror=False, device="cpu")

quick_trainings = data.quick_trainings
Run = Callable[..., int]


def run_in(home: Path) -> Run:
    def run(command: Callable[[list[str]], int], *arguments: object) -> int:
        return command([*map(str, arguments), "--home", str(home)])

    return run


def train(run: Run, configuration: str, fold: str = "0") -> int:
    return run(cli.train, 3, configuration, fold, "--iterations", 4, "--batch", 2, "--device", "cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything up to the choice, made by the commands."""
    folder = tmp_path_factory.mktemp("story")
    data.make_volumes(folder / "raw" / VOLUMES)
    before = data.snapshot(folder / "raw")
    run = run_in(folder)
    assert run(cli.check, "-d", 3) == 0
    assert run(cli.plan_and_preprocess, "-d", 3, "--force-lowres", "--memory", "0.2GB", "--workers", 1) == 0
    for configuration in ("2d", "3d_fullres", "3d_cascade"):
        assert train(run, configuration) == 0
    assert run(cli.find_best_configuration, 3) == 0
    assert data.snapshot(folder / "raw") == before, "the data is never written to"
    return folder


@pytest.fixture(scope="module")
def predicted(home: Path) -> Path:
    out = home / "out"
    assert run_in(home)(cli.predict, "-i", home / "raw" / VOLUMES / "imagesTs", "-o", out, "--device", "cpu", "--save-probabilities") == 0
    return out


def grid_of(image: Path | sitk.Image) -> tuple[object, ...]:
    image = image if isinstance(image, sitk.Image) else sitk.ReadImage(str(image))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def test_every_stage_leaves_its_artefact(home: Path) -> None:
    preprocessed, results = home / "preprocessed" / VOLUMES, home / "results" / VOLUMES
    plan = read_json(preprocessed / "plan.json", Plan)
    assert list(plan.configurations) == ["2d", "3d_fullres", "3d_lowres", "3d_cascade", "2.5d"]
    assert all(reason.why for reason in plan.reasons)
    assert all((preprocessed / name).is_file() for name in ("fingerprint.json", "dataset.json"))
    splits = read_json(preprocessed / "splits.json", list[Split])
    assert sorted(sorted(split.val) for split in splits) == [["case_0", "case_2"], ["case_1", "case_3"]], "patients stay together"
    for model, folds in {"2d": "0", "3d_fullres": "0", "3d_cascade": "0", "3d_lowres": "01"}.items():
        for fold in folds:
            run = results / f"{model}__Trainer" / f"fold_{fold}"
            assert {path.name for path in run.iterdir() if path.name != ".lock"} == {
                *("run.json", "run_environment.json", "run.stamp.json", "checkpoint_final.pt", "history.csv", "progress.png", "validation"),
            }
            scores = json.loads((run / "validation" / "scores.json").read_text())["values"]
            assert len(scores) == 4, "two cases, two organs"
            assert all(0 <= score["dice"] <= 1 for score in scores)
    assert data.leftovers(home) == []


def test_choice_compares_every_model_and_average(home: Path) -> None:
    choice = read_json(home / "results" / VOLUMES / "choice.json", Choice)
    singles = {name for name in choice.table if " + " not in name}
    assert singles == {f"{name}__Trainer" for name in ("2d", "3d_fullres", "3d_lowres", "3d_cascade")}
    assert len(choice.table) == 4 + 6 + 4
    assert choice.folds == ("0",)
    for organ in ("ball", "bar"):
        means = {name: row[organ] for name, row in choice.table.items() if organ in row}  # none of averages with what has not learnt it
        chosen = means[" + ".join(choice.organs[organ])]
        assert chosen == pytest.approx(max(means.values()), abs=1e-6) or len(choice.organs[organ]) == 1
        assert "too few for a test" in choice.reasons[organ]


def test_predictions_lie_exactly_on_their_images(home: Path, predicted: Path) -> None:
    for number in (4, 5):
        image, label = home / "raw" / VOLUMES / "imagesTs" / f"case_{number}_0000.nii.gz", predicted / f"case_{number}.nii.gz"
        assert grid_of(image) == grid_of(label)
        assert set(np.unique(read_label(label).array)) <= {0, data.BALL, data.BAR}
    assert data.leftovers(predicted) == []


def test_probabilities_have_one_channel_an_organ(predicted: Path) -> None:
    for number in (4, 5):
        shares, label = np.load(predicted / f"case_{number}_probabilities.npy"), read_label(predicted / f"case_{number}.nii.gz").array
        assert (shares.shape, shares.dtype) == ((2, *label.shape), np.float16)
        assert shares.min() >= 0 and shares.max() <= 1
        assert shares[0][label == data.BALL].mean() > shares[0][label != data.BALL].mean()


@pytest.mark.parametrize("model", ["2d", "3d_cascade"])
def test_any_model_can_be_asked_for(home: Path, model: str, tmp_path: Path) -> None:
    image = home / "raw" / VOLUMES / "imagesTs" / "case_4_0000.nii.gz"
    assert run_in(home)(cli.predict, "-i", image, "-o", tmp_path, "-c", model, "--no-tta", "--ending", ".nrrd", "--device", "cpu") == 0
    found = read_label(tmp_path / "case_4.nrrd")
    assert found.array.shape == data.draw_case(4)[0].shape
    assert found.geometry.spacing == pytest.approx(data.SPACING)


def test_evaluate_names_the_organs(home: Path, predicted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores, reference = tmp_path / "scores.json", home / "raw" / VOLUMES / "labelsTs"
    assert run_in(home)(cli.evaluate, "-r", reference, "-p", predicted, "-d", 3, "--json", scores) == 0
    printed = capsys.readouterr().out
    assert "ball" in printed and "bar" in printed
    assert {(score["case"], score["organ"]) for score in json.loads(scores.read_text())["results"][0]["scores"]} == {
        (f"case_{number}", organ) for number in (4, 5) for organ in ("ball", "bar")
    }


def test_python_api_returns_the_kind_it_was_given(home: Path, tmp_path: Path) -> None:
    path = home / "raw" / VOLUMES / "imagesTs" / "case_4_0000.nii.gz"
    assert autoseg.predict_folder(path, tmp_path, FAST, home=home) == {}
    expected = sitk.ReadImage(str(tmp_path / "case_4.nii.gz"))
    from_path = autoseg.predict(path, settings=FAST, home=home)
    image = sitk.ReadImage(str(path))
    from_image = autoseg.predict(image, "3", settings=FAST, home=home)
    for found in (from_path, from_image):
        assert isinstance(found, sitk.Image)
        assert np.array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected))
        assert grid_of(found) == grid_of(image)
    spacing = image.GetSpacing()[::-1]
    labels, same = autoseg.predict((sitk.GetArrayFromImage(image), spacing), home / "results" / VOLUMES, settings=FAST)
    assert same == spacing
    assert np.array_equal(labels, sitk.GetArrayFromImage(expected))


def test_results_alone_are_enough_to_predict(home: Path, predicted: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "results", tmp_path / "results", ignore=shutil.ignore_patterns("validation", "history.csv", "*.png"))
    image = home / "raw" / VOLUMES / "imagesTs" / "case_4_0000.nii.gz"
    assert run_in(tmp_path)(cli.predict, "-i", image, "-o", tmp_path / "out", "--device", "cpu") == 0
    assert np.array_equal(read_label(tmp_path / "out" / "case_4.nii.gz").array, read_label(predicted / "case_4.nii.gz").array)


def test_a_copied_cascade_needs_its_first_stage_beside_it(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = home / "raw" / VOLUMES / "imagesTs" / "case_4_0000.nii.gz"
    results = shutil.copytree(home / "results" / VOLUMES, tmp_path / "renamed", ignore=shutil.ignore_patterns("validation", "*.png"))
    expected = autoseg.predict(image, settings=PredictSettings(model="3d_cascade", device="cpu"), home=home)
    for name in ("3d_cascade__Trainer", "my cascade"):
        model = results / "3d_cascade__Trainer"
        model = model if name == model.name else model.rename(results / name)
        assert cli.predict(["-i", str(image), "-o", str(tmp_path / name), "-m", str(model), "--device", "cpu"]) == 0
        assert np.array_equal(read_label(tmp_path / name / "case_4.nii.gz").array, sitk.GetArrayFromImage(expected))
    alone = shutil.copytree(results / "my cascade", tmp_path / "elsewhere" / "my cascade")
    assert cli.predict(["-i", str(image), "-o", str(tmp_path / "out"), "-m", str(alone), "--device", "cpu"]) == 2
    assert "its first stage 3d_lowres__Trainer" in " ".join(capsys.readouterr().err.split())


def test_results_without_choice_and_data_predict_where_there_is_no_choice(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results" / VOLUMES
    shutil.copytree(home / "results" / VOLUMES, results, ignore=shutil.ignore_patterns("validation", "choice.json"))
    image = home / "raw" / VOLUMES / "imagesTs" / "case_4_0000.nii.gz"
    arguments = ("-i", image, "-o", tmp_path / "out", "--device", "cpu")
    assert run_in(tmp_path)(cli.predict, *arguments) == 2
    assert "2d__Trainer, 3d_cascade__Trainer" in capsys.readouterr().err
    for name in ("3d_fullres", "3d_cascade", "3d_lowres"):
        shutil.rmtree(results / f"{name}__Trainer")
    assert run_in(tmp_path)(cli.predict, *arguments) == 0
    assert (tmp_path / "out" / "case_4.nii.gz").is_file()


def go_through(raw: Path, configuration: str) -> tuple[Plan, Path]:
    """Checks, plans, trains and predicts a dataset; returns the plan and the folder of predictions."""
    home = raw.parents[1]
    assert autoseg.check_dataset(raw, workers=0) == []
    plan = autoseg.plan_and_preprocess(raw, PlanSettings(configurations=(configuration,), memory_gb=0.2, workers=1))
    assert autoseg.train(raw, configuration, 0, SHORT)
    assert autoseg.predict_folder(raw / "imagesTs", home / "out", PredictSettings(device="cpu", save_probabilities=True), home=home) == {}
    assert data.leftovers(home) == []
    return plan, home / "out"


def test_colour_photographs_go_through_2d(tmp_path: Path) -> None:
    plan, out = go_through(data.make_pictures(tmp_path / "raw" / "Dataset005_Photo"), "2d")
    assert list(plan.configurations) == ["2d"]
    assert len(plan.channels) == 3
    found = read_label(out / "photo_4.png")
    assert found.array.shape == (40, 48)
    assert set(np.unique(found.array)) <= {0, 1, 2}
    assert np.load(out / "photo_4_probabilities.npy").shape == (2, 40, 48)


def test_decathlon_layout_with_4d_images_goes_through(tmp_path: Path) -> None:
    raw = data.make_decathlon(tmp_path / "raw" / "Task01_BRAIN")
    plan, out = go_through(raw, "3d_fullres")
    assert plan.channels == ("T1w", "T2w")
    found = sitk.ReadImage(str(out / "brain_4.nii.gz"))
    image = sitk.ReadImage(str(raw / "imagesTs" / "brain_4.nii.gz"))
    assert (found.GetSize(), found.GetSpacing()) == (image.GetSize()[:3], image.GetSpacing()[:3])


def test_regions_and_unannotated_voxels_go_through(tmp_path: Path) -> None:
    raw = data.make_regions(tmp_path / "raw" / "Dataset007_Regions")
    plan, out = go_through(raw, "3d_fullres")
    assert plan.labels.regions and plan.labels.ignore == 9
    path = out / "case_4.nii.gz"
    assert set(np.unique(read_label(path).array)) <= {0, data.BALL, data.BAR}
    assert grid_of(raw / "imagesTs" / "case_4_0000.nii.gz") == grid_of(path)
    assert np.load(out / "case_4_probabilities.npy").shape == (2, *read_label(path).array.shape)


def test_one_patient_trains_on_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = data.make_volumes(tmp_path / "raw" / VOLUMES, n_train=2, n_test=0, groups={"case_0": "same", "case_1": "same"})
    run = run_in(tmp_path)
    assert run(cli.plan_and_preprocess, "-d", 3, "-c", "2d", "--memory", "0.2GB", "--workers", 0) == 0
    assert train(run, "2d") == 2
    assert "expected all" in capsys.readouterr().err
    assert autoseg.run(raw, PlanSettings(configurations=("2d",), memory_gb=0.2, workers=0), SHORT).folds == ("all",)


def test_run_does_everything_and_goes_on(tmp_path: Path) -> None:
    raw = data.make_volumes(tmp_path / "raw" / VOLUMES, n_test=0)
    choice = None
    for _ in range(2):
        before, choice = choice, autoseg.run(raw, PlanSettings(configurations=("2d",), memory_gb=0.2, workers=1), SHORT)
    assert choice == before
    assert choice.cases > 0
