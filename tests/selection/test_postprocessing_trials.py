"""Calibration, post-processing and estimated Dice of a choice, from validations that were written by hand."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import CASES, DATASET, make_plan, one_hot, plan_of, planned_home, record_run, regions, save_prediction, truth, write_labels

from autoseg.data.descriptions import planned_dataset
from autoseg.data.labels import to_file_values
from autoseg.runtime.runs import ModelFolder, Run
from autoseg.runtime.serialization import read_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Calibration, Choice, Plan, PostProcessing
from autoseg.selection import cross_validation, postprocessing_choice
from autoseg.selection.calibration import calibrated_choice
from autoseg.selection.cross_validation import CrossValidation
from autoseg.selection.dice_regression import QualityEstimate
from autoseg.selection.postprocessing_choice import SHAPES, organ_shapes
from autoseg.selection.postprocessing_trials import choose_postprocessing
from autoseg.selection.quality_estimation import QUALITY_ESTIMATES

MODEL = "3d_fullres__Trainer"


class Home:
    """A dataset of four cases in two folds, and models whose predictions a test decides."""

    def __init__(self, folder: Path) -> None:
        self.workspace, self.plan = Workspace(folder), make_plan()
        self.dataset = planned_dataset(self.workspace, 1)
        self.cases = {"0": self.dataset.cases[:2], "1": self.dataset.cases[2:]}
        self.choice = Choice({"ball": (MODEL,), "block": (MODEL,)}, ("0", "1"), {}, 4)

    def run(self, case: str, model: str = MODEL) -> Run:
        return ModelFolder(self.workspace.results(DATASET) / model).run("0" if case in "ab" else "1")

    def validate(self, case: str, label_map: np.ndarray, *, confidence: float = 4.0, model: str = MODEL, plan: Plan | None = None) -> None:
        plan, run = plan or self.plan, self.run(case, model)
        save_prediction(run, case, one_hot(label_map, plan, confidence), plan)
        write_labels(run.label_map(case, ".nii.gz"), to_file_values(label_map, plan.labels))
        record_run(run, plan)

    def validate_all(self, label_map: Callable[[str], np.ndarray] = truth, **options: Any) -> None:
        """Stores predictions of all cases: label maps (internal values) and probabilities."""
        for case in CASES:
            self.validate(case, label_map(case), **options)

    def annotate(self, organs: Mapping[str, Sequence[str]]) -> None:
        """Says which organs were annotated in some cases; the ball is removed where it was not."""
        path = self.dataset.folder / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"annotated": organs}))
        for case in self.dataset.cases:
            if "ball" not in organs.get(case.name, ["ball"]):
                write_labels(case.label, np.where(truth(case.name) == 2, 5, 0))

    def cross_validation(self) -> CrossValidation:
        return CrossValidation(self.workspace.results(DATASET), self.plan, self.cases)

    def postprocessed(self, choice: Choice | None = None) -> Choice:
        return choose_postprocessing(self.workspace, self.dataset, self.cross_validation(), choice or self.choice, {})

    def calibrated(self, choice: Choice | None = None) -> Choice:
        return calibrated_choice(self.cross_validation(), choice or self.choice)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(planned_home(tmp_path))


def with_stray_ball(case: str) -> np.ndarray:
    found = truth(case)
    found[0, 0, 0:3] = 1
    return found


@pytest.fixture
def few_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cases are too few for any test: one that gains passes here where none loses."""
    monkeypatch.setattr(postprocessing_choice, "wilcoxon", lambda gains, one_sided: 0.01 if gains.min() >= 0 else 1.0)
    monkeypatch.setattr(postprocessing_choice, "FEWEST_CHANGED", 1)


def test_four_cases_choose_no_post_processing_and_say_why(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.validate_all(with_stray_ball)
    with caplog.at_level(logging.INFO):
        assert home.postprocessed().postprocessing == {}
    assert "Post-processing of ball: none; not kept: only the largest component kept: mean dice " in caplog.text
    assert "over 4 patients, 4 better and 0 worse, too few change for p < 0.05" in caplog.text


@pytest.mark.usefixtures("few_suffice")
class TestPostProcessing:
    def test_is_chosen_where_it_helps_and_only_there(self, home: Home) -> None:
        home.validate_all(lambda case: with_stray_ball(case) if case in "ab" else truth(case))
        (found,) = home.postprocessed().postprocessing.items()
        assert (found[0], found[1].components) == ("ball", 1)
        assert "over 4 patients, 2 better and 0 worse, one-sided p = 0.01" in found[1].why
        home.validate_all()
        wrong = truth("a")
        wrong[:3, :6, :6] = 2  # the block is found twice, the wrong one is larger
        home.validate("a", wrong)
        assert home.postprocessed().postprocessing == {}

    def test_what_is_asked_for_is_taken_without_a_trial(self, home: Home) -> None:
        home.validate_all()
        found = home.postprocessed(replace(home.choice, postprocess=("ball=2",)))
        assert found.postprocessing == {"ball": PostProcessing(components=2, why="as asked for")}
        home.validate_all(with_stray_ball)
        assert home.postprocessed(replace(home.choice, postprocess=("none",))).postprocessing == {}
        both = home.postprocessed(replace(home.choice, postprocess=("largest",)))
        assert {organ: steps.components for organ, steps in both.postprocessing.items()} == {"ball": 1, "block": 1}
        home.cases = {"all": home.dataset.cases}
        assert set(home.postprocessed(replace(home.choice, postprocess=("largest",))).postprocessing) == {"ball", "block"}

    def test_number_of_parts_comes_from_the_labels(self, home: Home) -> None:
        """The block has two parts in every label: two are kept, the third is removed."""
        for case in home.dataset.cases:
            found = truth(case.name)
            found[1:3, 1:4, 1:4] = 2
            write_labels(case.label, to_file_values(found, home.plan.labels))
            found[-1, 0, 0] = 2
            home.validate(case.name, found)
        assert home.postprocessed().postprocessing["block"].components == 2

    def test_an_organ_is_judged_where_it_was_annotated(self, home: Home) -> None:
        home.annotate({"a": ["block"]})
        home.validate_all(with_stray_ball)
        assert "over 3 patients, 3 better" in Home(home.workspace.home).postprocessed().postprocessing["ball"].why

    def test_an_emptied_mask_is_no_precise_one(self, home: Home) -> None:
        """What was found of the ball is smaller than any ball: to remove it leaves nothing to be wrong, and nothing of the organ."""
        for case in CASES:
            found = truth(case)
            places = np.argwhere(found == 1)
            found[found == 1] = 0
            found[tuple(places[len(places) // 2])] = found[0, 0, 0] = found[0, 0, 1] = 1
            home.validate(case, found)
        assert "ball" not in home.postprocessed(replace(home.choice, metric="precision")).postprocessing

    def test_regions_are_left_alone(self, home: Home, caplog: pytest.LogCaptureFixture) -> None:
        nested = regions(whole=(2, 5), core=(5,))
        home.plan, home.dataset = replace(home.plan, labels=nested), replace(home.dataset, labels=nested)
        home.choice = replace(home.choice, organs=dict.fromkeys(nested.names, (MODEL,)))
        for case in CASES:
            found = with_stray_ball(case)
            home.validate(case, found)
            save_prediction(home.run(case), case, np.stack([(found > 0) * 8.0 - 4, (found == 2) * 8.0 - 4]), home.plan)
        with caplog.at_level(logging.INFO):
            choice = home.postprocessed(home.calibrated())
        assert choice.postprocessing == {}
        assert set(choice.dice_regression) == {"whole", "core"}
        assert "No post-processing: the organs of" in caplog.text

    def test_organs_of_different_models_are_merged_first(self, home: Home) -> None:
        plans = {f"2d__Trainer__{organ}": plan_of(organ) for organ in ("ball", "block")}
        for value, (model, plan) in enumerate(plans.items(), start=1):
            home.validate_all(lambda case, v=value: (with_stray_ball(case) == v).astype(np.int16), model=model, plan=plan)
        choice = replace(home.choice, organs={"ball": ("2d__Trainer__ball",), "block": ("2d__Trainer__block",)})
        found = home.postprocessed(home.calibrated(choice))
        assert list(found.postprocessing) == ["ball"]
        assert set(found.calibration) == set(plans)

    def test_probabilities_that_are_gone_cost_only_what_needs_them(self, home: Home) -> None:
        home.validate_all(with_stray_ball)
        for case in CASES:
            home.run(case).logits(case).unlink()
        choice = home.postprocessed(home.calibrated())
        assert list(choice.postprocessing) == ["ball"]
        assert (choice.calibration, choice.dice_regression) == ({}, {})

    def test_a_label_of_another_shape_is_named(self, home: Home) -> None:
        home.validate_all()
        write_labels(home.dataset.cases[0].label, np.zeros((3, 3, 3)))
        with pytest.raises(ValueError, match=r"case a: .*a\.nii\.gz: .*\(10, 14, 16\)"):
            home.postprocessed()

    def test_fold_all_is_no_evidence(self, home: Home) -> None:
        home.cases = {"all": home.dataset.cases}
        assert home.calibrated() == home.choice
        assert home.postprocessed() == home.choice


def test_organ_shapes_are_measured_once(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / SHAPES
    found = organ_shapes(home.dataset, path)
    assert found["block"] == [(3 * 4 * 4 * 2.0,)] * 4, "mm³"
    assert set(read_json(path, dict)) == set(CASES)
    monkeypatch.setattr(postprocessing_choice, "_measure", lambda case, labels: pytest.fail(f"{case.name} is measured again"))
    assert organ_shapes(home.dataset, path) == found
    renamed = replace(home.dataset, labels=replace(home.dataset.labels, names=("globe", "block")))
    write_labels(home.dataset.cases[0].label, np.zeros((3, 3, 3)))
    for dataset in (renamed, home.dataset):
        with pytest.raises(pytest.fail.Exception, match="a is measured again"):
            organ_shapes(dataset, path)


class TestCalibration:
    @pytest.mark.parametrize(
        ("shift", "confidence", "coldest", "hottest", "better"),
        [
            pytest.param(1, 5.5, 1.3, 10, 2, id="too sure, as a part of what it says is wrong"),
            pytest.param(0, 0.5, 0.25, 0.5, 1, id="right but unsure"),
        ],
    )
    def test_mends_the_probabilities(self, home: Home, shift, confidence, coldest, hottest, better) -> None:
        home.validate_all(lambda case: np.roll(truth(case), shift, axis=2), confidence=confidence)
        found = home.calibrated().calibration[MODEL]
        assert coldest < found.temperature < hottest
        assert found.error_before > better * found.error_after
        assert home.calibrated().calibration[MODEL] == found, "the same voxels are drawn again"

    @pytest.mark.slow
    def test_processes_give_the_same(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        home.validate_all(with_stray_ball)
        expected = home.postprocessed(home.calibrated())
        assert expected.postprocessing and expected.dice_regression
        monkeypatch.setattr(cross_validation, "MANY", 0)
        assert home.postprocessed(home.calibrated()) == expected

    def test_a_case_that_fails_is_named(self, home: Home) -> None:
        home.validate_all()
        home.run("d").logits("d").write_bytes(b"damaged")
        with pytest.raises(ValueError, match="Calibrating: 1 of 4 cases failed; the first: fold 1, d: .*d.b2nd"):
            home.calibrated()

    def test_voxels_with_the_ignore_label_are_left_out(self, home: Home) -> None:
        """The model is wrong only where nobody said what is right."""
        home.plan = replace(home.plan, labels=replace(home.plan.labels, ignore=9))
        home.dataset = replace(home.dataset, labels=home.plan.labels)
        for case in home.dataset.cases:
            right = truth(case.name)
            values = to_file_values(right, home.plan.labels)
            values[:, :, :6] = np.where(right[:, :, :6] == 0, 9, values[:, :, :6])
            write_labels(case.label, values)
            home.validate(case.name, np.where(values == 9, 1, right).astype(np.int16), confidence=6)
        assert home.calibrated().calibration[MODEL].error_before < 0.01

    def test_what_was_not_annotated_is_no_false_alarm(self, home: Home) -> None:
        """Nobody drew the ball; the model sees it. That is no error of its probabilities."""
        home.annotate(dict.fromkeys(CASES, ["block"]))
        home.validate_all(confidence=6)
        assert Home(home.workspace.home).calibrated().calibration[MODEL].error_before < 0.01


def test_dice_is_estimated_from_probabilities(home: Home) -> None:
    """The less sure the model, the more it errs."""
    for number, case in enumerate(CASES):
        home.validate(case, np.roll(truth(case), number, axis=2), confidence=6 - 1.2 * number)
    found = home.postprocessed(replace(home.choice, calibration={MODEL: Calibration(1.0)})).dice_regression["ball"]
    assert found.cases == 4
    assert found.slope > 0
    assert found.correlation > 0.7, "of each case estimated by the others"


@pytest.mark.usefixtures("few_suffice")
def test_masks_and_references_have_places_after_post_processing(home: Home) -> None:
    home.validate_all(lambda case: with_stray_ball(case) if case in "ab" else truth(case))
    home.annotate({"d": ["ball"]})
    assert "ball" in Home(home.workspace.home).postprocessed().postprocessing
    found = read_json(home.workspace.results(DATASET) / QUALITY_ESTIMATES, dict[str, list[QualityEstimate]])
    for one in found["ball"]:
        assert one.statistics.place.largest_share == 1, "the stray ball was removed"
        assert one.statistics.place.centre_mm == pytest.approx(one.reference_place.centre_mm)
        assert bool(one.reference_place.from_others_mm) == (one.case != "d"), "where not all organs were annotated nobody knows the others"
        assert one.statistics.place.from_others_mm
