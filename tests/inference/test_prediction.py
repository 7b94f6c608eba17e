"""A folder of new images: what is done stays, what changed is done again, what fails is named, and each organ follows its model."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import story_data as data
from factories import OrganModel, ThresholdModel, drawn_image, ensemble_for, ensemble_of, predict, write_images

from autoseg.data.images import read_label, write_image
from autoseg.inference.ensemble import Ensemble
from autoseg.inference.manifest import MANIFEST, Manifest
from autoseg.runtime.serialization import read_json
from autoseg.schema import Case

ALL = ["new_0", "new_1", "new_2"]
TUESDAY = ThresholdModel(key="weights of tuesday", ball=60)


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return write_images(tmp_path / "in", 3)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def redone(cases: list[Case], out: Path, model: ThresholdModel | None = None, **options: object) -> list[str]:
    """Cases that the model predicts when the folder is predicted once more."""
    model = dataclasses.replace(model or ThresholdModel(), predicted=[])
    assert predict(cases, out, ensemble_of(a=model), **options) == {}
    return model.predicted


def test_label_maps_are_right_and_lie_on_their_images_and_half_written_files_are_removed(cases: list[Case], out: Path) -> None:
    out.mkdir()
    (out / ".partial-99999999-new_0.nii.gz").write_bytes(b"half")
    assert redone(cases, out) == ALL
    assert data.leftovers(out) == []
    for number, name in enumerate(ALL):
        _, expected, geometry = data.draw_case(number)
        found = read_label(out / f"{name}.nii.gz")
        assert np.mean(found.array == expected) > 0.98
        assert found.geometry.spacing == pytest.approx(geometry.spacing)
        assert set(np.unique(found.array)) == {0, data.BALL, data.BAR}


def test_a_users_own_hidden_files_stay(cases: list[Case], out: Path) -> None:
    mine = {out / ".lock": "of another tool", out / ".partial-results/thesis.txt": "mine", out / ".partial-scan.nii.gz": "mine"}
    for path, text in mine.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (0, 0))
    assert redone(cases[:1], out) == ALL[:1]
    assert {path: path.read_text() for path in mine} == mine


def test_only_what_is_missing_or_changed_is_predicted_again(cases: list[Case], out: Path, tmp_path: Path) -> None:
    assert redone(cases[:2], out) == ALL[:2]
    before = data.snapshot(out)
    for case in cases:
        os.utime(case.images[0], ns=(1, 1))
    assert redone(cases[:2], out) == redone(cases[:2], shutil.copytree(out, tmp_path / "copied")) == []
    assert data.snapshot(out) == before
    (out / "new_0.nii.gz").unlink()
    assert redone(cases, out) == ["new_0", "new_2"]
    image, _, geometry = data.draw_case(1)
    write_image(cases[1].images[0], image[None, ::-1], geometry)
    assert redone(cases, out) == ["new_1"]
    assert redone(cases, out) == []


@pytest.mark.parametrize(
    "other",
    [TUESDAY, *(ThresholdModel(predictor=SimpleNamespace(mirror=mirror, step=step)) for mirror, step in ((False, 0.5), (True, 0.25)))],
    ids=["weights", "mirroring", "step"],
)
def test_another_model_or_setting_predicts_everything_again(cases: list[Case], out: Path, other: ThresholdModel) -> None:
    redone(cases, out)
    assert redone(cases, out, other) == ALL
    assert redone(cases, out, other) == []


def test_another_choice_predicts_everything_again(cases: list[Case], out: Path) -> None:
    first, second = ThresholdModel(), ThresholdModel(bar=260)
    predict(cases, out, ensemble_of(a=first, b=second))
    assert predict(cases, out, ensemble_of(b=second, a=first)) == {}
    assert len(first.predicted) == len(second.predicted) == 6


def test_what_an_older_model_left_is_not_taken_for_the_newer_ones(cases: list[Case], out: Path) -> None:
    redone(cases, out, save_probabilities=True)
    assert redone(cases, out, TUESDAY, ending=".mha") == ALL
    failing = dataclasses.replace(TUESDAY, failing=("new_1",), predicted=[])
    assert list(predict(cases, out, ensemble_of(a=failing))) == ["new_1"]
    assert failing.predicted == ALL
    assert redone(cases, out, TUESDAY) == ["new_1"]
    assert redone(cases, out, TUESDAY, ending=".mha") == []
    assert redone(cases, out, TUESDAY, save_probabilities=True) == ALL


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("out of memory"), "out of memory"),
        (MemoryError(), "not enough memory for this case"),
        (MemoryError("9 TB"), "not enough memory for this case: 9 TB"),
    ],
)
def test_failing_cases_are_named_and_the_others_are_written(cases: list[Case], out: Path, error: Exception, reason: str) -> None:
    cases[1].images[0].write_bytes(b"no image")
    two_channels = Case("two", cases[0].images * 2)
    failures = predict([*cases, two_channels], out, ensemble_of(a=ThresholdModel(failing=("new_0",), error=error)))
    assert list(failures) == ["new_0", "new_1", "two"]
    assert failures["new_0"] == reason
    assert str(cases[1].images[0]) in failures["new_1"]
    assert "expected 1 channels as in training, found 2" in failures["two"]
    assert sorted(path.name for path in out.glob("[!.]*")) == [MANIFEST, "new_2.nii.gz"]
    image, _, geometry = data.draw_case(1)
    write_image(cases[1].images[0], image[None], geometry)
    assert redone(cases, out) == ["new_0", "new_1"], "only those that failed"


@pytest.mark.parametrize("ending", ["mha", ".MHA", ".mhd"])
def test_an_ending_is_understood_and_found_again(cases: list[Case], out: Path, ending: str) -> None:
    assert redone(cases, out, ending=ending) == ALL
    assert sorted(path.name for path in out.glob("new*")) == ["new_0.mha", "new_1.mha", "new_2.mha"]
    assert redone(cases, out, ending=ending) == []


def test_without_an_ending_it_is_the_inputs_and_one_that_cannot_be_written_is_refused_first(cases: list[Case], out: Path) -> None:
    image, _, geometry = data.draw_case(0)
    other = Case("other", (cases[0].images[0].with_name("other.nrrd"),))
    write_image(other.images[0], image[None], geometry)
    redone([other, cases[0]], out)
    redone([other], out, ending=".mha")
    assert {path.name for path in out.glob("*.n*")} == {"other.nrrd", "new_0.nii.gz"}
    assert np.array_equal(read_label(out / "other.mha").array, read_label(out / "other.nrrd").array)
    model = ThresholdModel()
    with pytest.raises(ValueError, match=r"\.png"):
        predict(cases, out, ensemble_of(a=model), ending=".png")
    assert model.predicted == []


def test_uncertainties_of_a_former_input_are_forgotten_also_where_the_new_one_fails(cases: list[Case], out: Path) -> None:
    redone(cases, out, uncertainty=True)
    cases[1].images[0].write_bytes(b"no image")
    assert list(predict(cases, out, ensemble_of(a=ThresholdModel()), uncertainty=True)) == ["new_1"]
    key = read_json(out / MANIFEST, dict)["cases"]["new_0"]["models"]
    rows = Manifest(out / MANIFEST, key).findings(cases)
    assert {row["case"] for row in rows} == {"new_0", "new_2"}


def test_probabilities_wanted_later_are_made(cases: list[Case], out: Path) -> None:
    redone(cases, out)
    assert redone(cases, out, save_probabilities=True) == ALL
    assert redone(cases, out, save_probabilities=True) == []
    assert redone(cases, out) == []
    shares, label = np.load(out / "new_0_probabilities.npy"), read_label(out / "new_0.nii.gz").array
    assert shares.shape == (2, *label.shape)
    assert np.all(shares[1][label == data.BAR] >= shares[0][label == data.BAR])


def labels_of(ensemble: Ensemble) -> set[int]:
    return set(np.unique(ensemble.segment(ensemble.logits(drawn_image()))))


@pytest.mark.parametrize(("blind_to", "left"), [("ball", 2), ("bar", 1)])
def test_each_organ_follows_its_own_model(blind_to: str, left: int) -> None:
    models = {name: ThresholdModel(**({organ: 1e4} if organ == blind_to else {})) for name, organ in (("a", "ball"), ("b", "bar"))}
    assert labels_of(ensemble_of(**models)) == {0, left}, "the organ that its own model does not see is not taken from the other"


class TestModelsOfSomeOrgans:
    """Each knows its own organ as 1; the dataset knows the ball as 1 and the bar as 2."""

    def test_each_gives_its_organ_in_the_datasets_values(self) -> None:
        ensemble = ensemble_of(a=OrganModel("ball", certainty=0.05), b=OrganModel("bar"))
        found = ensemble.segment(ensemble.logits(drawn_image()))
        expected = np.select([data.draw_case(0)[1] == value for value in (data.BALL, data.BAR)], [1, 2], 0)
        assert np.mean(found == expected) > 0.98
        assert set(np.unique(found)) == {0, 1, 2}

    def test_beside_a_model_of_all_organs_and_organs_that_nobody_segments_are_background(self) -> None:
        assert labels_of(ensemble_of(a=ThresholdModel(), b=OrganModel("bar"))) == {0, 1, 2}
        for model in (OrganModel("bar"), ThresholdModel()):
            assert labels_of(ensemble_for({"bar": ("b",)}, b=model)) == {0, 2}

    def test_averages_have_the_organs_of_their_members(self) -> None:
        models = {"a": OrganModel("ball"), "b": OrganModel("bar", bar=200), "c": OrganModel("bar", bar=300)}
        ensemble = ensemble_for({"ball": ("a",), "bar": ("b", "c")}, **models)
        found = ensemble.segment(ensemble.logits(drawn_image()))
        middle = ensemble_of(a=OrganModel("ball"), b=OrganModel("bar", bar=250))
        assert np.mean((found == 2) == (middle.segment(middle.logits(drawn_image())) == 2)) > 0.99

    def test_probabilities_lie_in_the_datasets_order(self, cases: list[Case], tmp_path: Path) -> None:
        one, two = OrganModel("ball"), OrganModel("bar")
        assert predict(cases[:1], tmp_path / "one", ensemble_of(a=one, b=two), save_probabilities=True) == {}
        shares = np.load(tmp_path / "one" / "new_0_probabilities.npy")
        voxels = data.draw_case(0)[0].astype(np.float64)
        for channel, logits in enumerate((voxels - 110, 5 * (voxels - 240))):
            np.testing.assert_allclose(shares[channel], 1 / (1 + np.exp(-logits / 10)), atol=2e-3)
        only_bar = ensemble_for({"bar": ("b",)}, b=two)
        assert predict(cases[:1], tmp_path / "two", only_bar, save_probabilities=True) == {}
        alone = np.load(tmp_path / "two" / "new_0_probabilities.npy")
        assert np.array_equal(alone[1], shares[1])
        assert not alone[0].any()

    def test_models_without_their_organ_or_of_different_organs_to_average_are_refused(self) -> None:
        with pytest.raises(ValueError, match="organ of b: .*bar"):
            ensemble_of(a=OrganModel("ball"), b=OrganModel("ball"))
        with pytest.raises(ValueError, match="bar: .*a: ball, bar; b: bar"):
            ensemble_for({"bar": ("a", "b")}, a=ThresholdModel(), b=OrganModel("bar"))
