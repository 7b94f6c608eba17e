"""Predictions with ``--uncertainty``: maps beside the label maps, and a table of what to check first."""

from __future__ import annotations

import csv
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import story_data as data
from factories import BALL_AND_BAR, ThresholdModel, ensemble_of, make_geometry, predict, write_images

from autoseg import cli
from autoseg.data.images import read_image, read_label, write_image
from autoseg.data.labels import to_internal_values
from autoseg.inference.ensemble import Ensemble
from autoseg.inference.logits import Logits
from autoseg.inference.manifest import MANIFEST
from autoseg.inference.organ_places import organ_places
from autoseg.inference.prediction_files import UNCERTAINTY, Destination
from autoseg.inference.uncertainty import OrganUncertainty
from autoseg.pipeline import evaluate_folders
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Calibration, Case, Choice, DiceRegression, Image, PostProcessing
from autoseg.selection.case_ranking import COLUMNS, RANKED_CASES, ranked
from autoseg.selection.prediction_tables import conclude_prediction, is_table

NAN = float("nan")
FAST = ("--device", "cpu", "--no-tta", "--uncertainty")


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return write_images(tmp_path / "in", 2)


def maps_of(out: Path, case: str = "new_0") -> list[np.ndarray]:
    return [read_image([out / UNCERTAINTY / f"{case}_{what}.nii.gz"]).array[0] for what in ("entropy", "disagreement")]


def average_of(*folds: ThresholdModel, **changes: object) -> Ensemble:
    """One member that is the average of these folds."""
    choice = Choice(dict.fromkeys(BALL_AND_BAR.names, ("a",)), ("0",), {}, 0, **changes)
    return Ensemble(choice, {"a": folds[0]}, BALL_AND_BAR, {"a": folds})


class TestMaps:
    def test_lie_on_the_image_and_are_high_along_borders(self, cases: list[Case], tmp_path: Path) -> None:
        assert predict(cases, tmp_path / "out", ensemble_of(a=ThresholdModel()), uncertainty=True) == {}
        entropy, disagreement = maps_of(tmp_path / "out")
        label = read_label(tmp_path / "out" / "new_0.nii.gz")
        assert entropy.dtype == np.float32
        assert read_image([tmp_path / "out" / UNCERTAINTY / "new_0_entropy.nii.gz"]).geometry.origin == pytest.approx(label.geometry.origin)
        assert 0 <= entropy.min() < 0.05 < 0.3 < entropy.max() <= 1
        assert not disagreement.any(), "a single network"

    def test_folds_that_disagree_show_where(self, cases: list[Case], tmp_path: Path) -> None:
        """One of them sees the ball in everything but the bar."""
        for out, ball in (("same", 110), ("other", -60)):
            predict(cases, tmp_path / out, average_of(ThresholdModel(), ThresholdModel(ball=ball)), uncertainty=True)
        assert not maps_of(tmp_path / "same")[1].any()
        disagreement, label = maps_of(tmp_path / "other")[1], data.draw_case(0)[1]
        assert disagreement[label == 0].mean() > 0.7
        assert disagreement[label == data.BAR].mean() < 0.1

    def test_a_hot_model_is_less_sure_and_segments_the_same(self, cases: list[Case], tmp_path: Path) -> None:
        for out, calibration in (("cold", {}), ("hot", {"a": Calibration(4.0)})):
            ensemble = average_of(ThresholdModel(), calibration=calibration)
            predict(cases, tmp_path / out, ensemble, uncertainty=True, save_probabilities=True)
        files = [read_label(tmp_path / out / "new_0.nii.gz").array for out in ("cold", "hot")]
        assert np.array_equal(*files)
        assert maps_of(tmp_path / "hot")[0].mean() > maps_of(tmp_path / "cold")[0].mean() + 0.1
        shares = [np.load(tmp_path / out / "new_0_probabilities.npy")[0, files[0] == data.BALL].mean() for out in ("cold", "hot")]
        assert shares[1] < shares[0] - 0.02

    def test_what_is_done_is_not_done_again_and_what_is_wanted_later_is_made(self, cases: list[Case], tmp_path: Path) -> None:
        model, out = ThresholdModel(), tmp_path / "out"
        predict(cases, out, average_of(model))
        assert not (out / UNCERTAINTY).exists()
        predict(cases, out, average_of(model), uncertainty=True)
        assert len(model.predicted) == 4
        before = data.snapshot(out)
        predict(cases, out, average_of(model), uncertainty=True)
        predict(cases, out, average_of(model))
        assert (len(model.predicted), data.snapshot(out)) == (4, before)
        (out / UNCERTAINTY / "new_1_entropy.nii.gz").unlink()
        predict(cases, out, average_of(model), uncertainty=True)
        assert model.predicted[4:] == ["new_1"]
        predict(cases, out, average_of(model), uncertainty=True, save_probabilities=True)
        assert len(read_json(out / MANIFEST, dict)["cases"]["new_0"]["findings"]) == 2


def test_another_temperature_or_post_processing_predicts_again(cases: list[Case], tmp_path: Path) -> None:
    model, steps = ThresholdModel(), ({"ball": PostProcessing(components=1)}, {"bar": PostProcessing(3.0)})
    for changes in ({}, {"calibration": {"a": Calibration(2.0)}}, *({"postprocessing": one} for one in steps)):
        del model.predicted[:]
        predict(cases, tmp_path / "out", average_of(model, **changes))
        predict(cases, tmp_path / "out", average_of(model, **changes, rule="a new reason"))
        assert len(model.predicted) == 2


def test_post_processing_reaches_the_file(cases: list[Case], tmp_path: Path) -> None:
    """Single bright voxels of the noise are found as ball and bar by this threshold."""
    for out, steps in (("raw", {}), ("clean", {"ball": PostProcessing(components=1)})):
        predict(cases[:1], tmp_path / out, average_of(ThresholdModel(ball=80.0), postprocessing=steps))
    raw, cleaned = (read_label(tmp_path / out / "new_0.nii.gz").array for out in ("raw", "clean"))
    assert np.count_nonzero(raw == data.BALL) > np.count_nonzero(cleaned == data.BALL) > 100
    assert np.array_equal(raw == data.BAR, cleaned == data.BAR)


def test_the_most_doubtful_comes_first() -> None:
    found = [("a", "ball", 0.9), ("b", "ball", 0.5), ("c", "bar", 0.95), ("d", "bar", NAN), ("e", "bar", 0.99)]
    findings = [OrganUncertainty(case, organ, 1.0, expected, 0.1, 0.0) for case, organ, expected in found]
    choice = Choice({}, (), {}, 0, dice_regression={"bar": DiceRegression(2.0, -1.2, 0.0, 1.0, 9)})
    rows = ranked(findings, choice)
    assert [row.uncertainty.case for row in rows] == ["b", "c", "e", "a", "d"]
    assert rows[1].dice == pytest.approx(0.7)


def test_the_table_holds_every_organ_of_every_case(cases: list[Case], tmp_path: Path) -> None:
    out, ensemble = tmp_path / "out", average_of(ThresholdModel())
    predict(cases, out, ensemble, uncertainty=True)
    conclude_prediction(Destination(folder=out, uncertainty=True), cases, ensemble, tmp_path / "results")
    rows = list(csv.DictReader((out / RANKED_CASES).open(encoding="utf-8")))
    assert tuple(rows[0]) == COLUMNS
    assert {(row["case"], row["organ"]) for row in rows} == {(f"new_{n}", organ) for n in range(2) for organ in BALL_AND_BAR.names}
    dice = [float(row["estimated_dice"]) for row in rows]
    assert dice == sorted(dice)
    one = next(row for row in rows if (row["case"], row["organ"]) == ("new_0", "bar"))
    label = read_label(out / "new_0.nii.gz").array
    assert float(one["volume_ml"]) == pytest.approx(np.count_nonzero(label == data.BAR) * np.prod(data.SPACING) / 1000, abs=1e-3)
    assert float(one["mean_disagreement"]) == 0
    (stored,) = (row for row in read_json(out / MANIFEST, dict)["cases"]["new_0"]["findings"] if row["organ"] == "bar")
    places = organ_places(to_internal_values(label, BALL_AND_BAR, source="file"), BALL_AND_BAR, read_label(out / "new_0.nii.gz").geometry)
    assert stored["statistics"]["place"]["centre_mm"] == pytest.approx(places["bar"].centre_mm)
    assert is_table(out / RANKED_CASES)
    (tmp_path / RANKED_CASES).write_text("my,table")
    assert not is_table(tmp_path / RANKED_CASES)
    shutil.copytree(out, tmp_path / "reference", ignore=shutil.ignore_patterns(UNCERTAINTY, "*.json", "*.csv"))
    scored = {score.case for score in evaluate_folders(tmp_path / "reference", out)}
    assert scored == {"new_0", "new_1"}, "maps are no label maps"


@pytest.mark.slow
def test_from_training_to_the_table_by_the_commands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home, images = tmp_path / "home", tmp_path / "home" / "raw" / "Dataset003_Tiny" / "imagesTs"
    data.make_volumes(home / "raw" / "Dataset003_Tiny")
    at = ("--home", str(home))
    assert cli.plan_and_preprocess(["-d", "3", "-c", "2d", "--workers", "1", *at]) == 0
    for fold in "01":
        assert cli.train(["3", "2d", fold, "--iterations", "4", "--batch", "2", "--device", "cpu", *at]) == 0
    assert cli.find_best_configuration(["3", *at]) == 0
    path = home / "results" / "Dataset003_Tiny" / "choice.json"
    choice = read_json(path, Choice)
    assert 0 <= choice.calibration["2d__Trainer"].error_after <= 1
    write_json(path, replace(choice, postprocessing={"ball": PostProcessing(components=1)}))
    with caplog.at_level(logging.INFO):
        assert cli.predict(["-i", str(images), "-o", str(tmp_path / "doubts"), *FAST, *at]) == 0
    assert "Post-processing: ball: only the largest component kept" in caplog.text
    assert cli.predict(["-i", str(images), "-o", str(tmp_path / "plain"), *FAST[:-1], *at]) == 0
    for case in ("case_4", "case_5"):
        labels = [read_label(tmp_path / out / f"{case}.nii.gz").array for out in ("doubts", "plain")]
        assert np.mean(labels[0] != labels[1]) < 1e-3, "the mean of the folds is the model"
        entropy, disagreement = maps_of(tmp_path / "doubts", case)
        assert entropy.max() > 0.1 and disagreement.max() > 0, "two networks"
    assert len((tmp_path / "doubts" / RANKED_CASES).read_text().splitlines()) == 5


class Flat(ThresholdModel):
    """Sees pictures."""

    def logits(self, image: Image, **options: object) -> Logits:
        shape = image.geometry.shape
        volume = Image(image.array[:, None], make_geometry((1, *shape)))
        seen = super().logits(volume, **options)
        return replace(seen, trace=replace(seen.trace, geometry=image.geometry, transpose=(0, 1), spacing=image.geometry.spacing))


def test_pictures_get_maps_of_eight_bits(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(60, 160, (1, 20, 24)).astype(np.uint8)
    place = make_geometry((20, 24))
    write_image(tmp_path / "in" / "photo_0000.png", picture, place)
    model = Flat()
    model.plan = replace(model.plan, transpose=(0, 1))
    case = Case("photo", (tmp_path / "in" / "photo_0000.png",))
    assert predict([case], tmp_path / "out", average_of(model, Flat(ball=90.0)), uncertainty=True) == {}
    for what in ("entropy", "disagreement"):
        found = read_image([tmp_path / "out" / UNCERTAINTY / f"photo_{what}.png"])
        assert found.array.shape == (1, 20, 24)
        assert 40 < found.array.max() <= 255
