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
from autoseg.inference import manifest
from autoseg.inference.export import export_labels
from autoseg.inference.manifest import MANIFEST
from autoseg.inference.sampled_probabilities import probabilities_at
from autoseg.runtime.serialization import read_json
from autoseg.schema import Case


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return write_images(tmp_path / "in", 3)


def redone(cases: list[Case], out: Path, model: ThresholdModel, **options: object) -> list[str]:
    """Cases that the model predicts when the folder is predicted once more."""
    model = dataclasses.replace(model, predicted=[])
    assert predict(cases, out, ensemble_of(a=model), **options) == {}
    return model.predicted


def test_label_maps_are_right_and_lie_on_their_images(cases: list[Case], tmp_path: Path) -> None:
    assert predict(cases, tmp_path / "out", ensemble_of(a=ThresholdModel())) == {}
    for number in range(3):
        _, expected, geometry = data.draw_case(number)
        found = read_label(tmp_path / "out" / f"new_{number}.nii.gz")
        assert np.mean(found.array == expected) > 0.98
        assert found.geometry.spacing == pytest.approx(geometry.spacing)
        assert set(np.unique(found.array)) == {0, data.BALL, data.BAR}


def test_what_is_done_is_not_done_again(cases: list[Case], tmp_path: Path) -> None:
    model = ThresholdModel()
    assert redone(cases, tmp_path / "out", model) == ["new_0", "new_1", "new_2"]
    before = data.snapshot(tmp_path / "out")
    assert redone(cases, tmp_path / "out", model) == []
    assert data.snapshot(tmp_path / "out") == before


def test_a_changed_input_is_predicted_again(cases: list[Case], tmp_path: Path) -> None:
    redone(cases, tmp_path / "out", ThresholdModel())
    image, _, geometry = data.draw_case(1)
    write_image(cases[1].images[0], image[None, ::-1], geometry)
    assert redone(cases, tmp_path / "out", ThresholdModel()) == ["new_1"]
    assert redone(cases, tmp_path / "out", ThresholdModel()) == []


def test_a_copied_output_folder_and_inputs_of_another_time_are_as_they_were(cases: list[Case], tmp_path: Path) -> None:
    redone(cases, tmp_path / "out", ThresholdModel())
    for case in cases:
        os.utime(case.images[0], ns=(1, 1))
    assert redone(cases, shutil.copytree(tmp_path / "out", tmp_path / "copied"), ThresholdModel()) == []


def test_uncertainties_of_a_former_input_are_forgotten_also_where_the_new_one_fails(cases: list[Case], tmp_path: Path) -> None:
    redone(cases, tmp_path / "out", ThresholdModel(), uncertainty=True)
    cases[1].images[0].write_bytes(b"no image")
    assert list(predict(cases, tmp_path / "out", ensemble_of(a=ThresholdModel()), uncertainty=True)) == ["new_1"]
    rows = manifest.Manifest(tmp_path / "out", read_json(tmp_path / "out" / manifest.MANIFEST, dict)["models"]).findings(cases)
    assert {row["case"] for row in rows} == {"new_0", "new_2"}


def test_a_new_or_removed_file_is_made(cases: list[Case], tmp_path: Path) -> None:
    redone(cases[:2], tmp_path / "out", ThresholdModel())
    (tmp_path / "out" / "new_0.nii.gz").unlink()
    assert redone(cases, tmp_path / "out", ThresholdModel()) == ["new_0", "new_2"]


@pytest.mark.parametrize(
    "other",
    [
        ThresholdModel(key="weights of tuesday"),
        ThresholdModel(predictor=SimpleNamespace(mirror=False, step=0.5)),
        ThresholdModel(predictor=SimpleNamespace(mirror=True, step=0.25)),
    ],
    ids=["weights", "mirroring", "step"],
)
def test_another_model_or_setting_predicts_everything_again(cases: list[Case], tmp_path: Path, other: ThresholdModel) -> None:
    redone(cases, tmp_path / "out", ThresholdModel())
    assert redone(cases, tmp_path / "out", other) == ["new_0", "new_1", "new_2"]
    assert redone(cases, tmp_path / "out", other) == []


def test_another_choice_predicts_everything_again(cases: list[Case], tmp_path: Path) -> None:
    first, second = ThresholdModel(), ThresholdModel(bar=260)
    predict(cases, tmp_path / "out", ensemble_of(a=first, b=second))
    assert predict(cases, tmp_path / "out", ensemble_of(b=second, a=first)) == {}
    assert len(first.predicted) == len(second.predicted) == 6


def test_probabilities_wanted_later_are_made(cases: list[Case], tmp_path: Path) -> None:
    redone(cases, tmp_path / "out", ThresholdModel())
    assert redone(cases, tmp_path / "out", ThresholdModel(), save_probabilities=True) == ["new_0", "new_1", "new_2"]
    assert redone(cases, tmp_path / "out", ThresholdModel(), save_probabilities=True) == []
    assert redone(cases, tmp_path / "out", ThresholdModel()) == []
    shares, label = np.load(tmp_path / "out" / "new_0_probabilities.npy"), read_label(tmp_path / "out" / "new_0.nii.gz").array
    assert shares.shape == (2, *label.shape)
    assert np.all(shares[1][label == data.BAR] >= shares[0][label == data.BAR])


def test_probabilities_of_an_older_model_are_not_kept(cases: list[Case], tmp_path: Path) -> None:
    redone(cases, tmp_path / "out", ThresholdModel(), save_probabilities=True)
    newer = ThresholdModel(key="weights of tuesday", ball=60)
    redone(cases, tmp_path / "out", newer)
    assert redone(cases, tmp_path / "out", newer, save_probabilities=True) == ["new_0", "new_1", "new_2"]


def test_a_file_of_another_ending_is_not_mistaken_for_the_newer_models(cases: list[Case], tmp_path: Path) -> None:
    redone(cases, tmp_path / "out", ThresholdModel())
    newer = ThresholdModel(key="weights of tuesday", ball=60)
    assert redone(cases, tmp_path / "out", newer, ending=".mha") == ["new_0", "new_1", "new_2"]
    assert redone(cases, tmp_path / "out", newer) == ["new_0", "new_1", "new_2"]
    assert redone(cases, tmp_path / "out", newer, ending=".mha") == []


def test_a_failing_case_is_named_and_the_others_are_written(cases: list[Case], tmp_path: Path) -> None:
    out, model = tmp_path / "out", ThresholdModel(failing=("new_0",))
    cases[1].images[0].write_bytes(b"no image")
    failures = predict(cases, out, ensemble_of(a=model))
    assert list(failures) == ["new_0", "new_1"]
    assert failures["new_0"] == "out of memory"
    assert str(cases[1].images[0]) in failures["new_1"]
    assert sorted(path.name for path in out.iterdir()) == [MANIFEST, "new_2.nii.gz"]
    image, _, geometry = data.draw_case(1)
    write_image(cases[1].images[0], image[None], geometry)
    assert redone(cases, out, ThresholdModel()) == ["new_0", "new_1"], "only those that failed"


@pytest.mark.parametrize(("error", "reason"), [(MemoryError(), "this case"), (MemoryError("9 TB"), "this case: 9 TB")])
def test_a_case_that_is_too_large_does_not_stop_the_others(cases: list[Case], tmp_path: Path, error: Exception, reason: str) -> None:
    failures = predict(cases, tmp_path / "out", ensemble_of(a=ThresholdModel(failing=("new_0",), error=error)))
    assert failures == {"new_0": f"not enough memory for {reason}"}
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["new_1.nii.gz", "new_2.nii.gz"]


@pytest.mark.parametrize("ending", ["mha", ".MHA", ".mhd"])
def test_an_ending_is_understood_and_found_again(cases: list[Case], tmp_path: Path, ending: str) -> None:
    assert redone(cases, tmp_path / "out", ThresholdModel(), ending=ending) == ["new_0", "new_1", "new_2"]
    assert sorted(path.name for path in (tmp_path / "out").glob("new*")) == ["new_0.mha", "new_1.mha", "new_2.mha"]
    assert redone(cases, tmp_path / "out", ThresholdModel(), ending=ending) == []


def test_an_ending_that_cannot_be_written_is_refused_before_anything_is_predicted(cases: list[Case], tmp_path: Path) -> None:
    model = ThresholdModel()
    with pytest.raises(ValueError, match=r"\.png"):
        predict(cases, tmp_path / "out", ensemble_of(a=model), ending=".png")
    assert model.predicted == []


def test_a_failing_case_leaves_no_older_result_behind_as_if_it_were_new(cases: list[Case], tmp_path: Path) -> None:
    redone(cases, tmp_path / "out", ThresholdModel())
    predict(cases, tmp_path / "out", ensemble_of(a=ThresholdModel(key="weights of tuesday", failing=("new_1",))))
    assert redone(cases, tmp_path / "out", ThresholdModel(key="weights of tuesday")) == ["new_1"]


def test_wrong_number_of_channels_names_file_and_both_numbers(cases: list[Case], tmp_path: Path) -> None:
    two = Case("two", (cases[0].images[0], cases[0].images[0]))
    failures = predict([two, cases[1]], tmp_path / "out", ensemble_of(a=ThresholdModel()))
    assert list(failures) == ["two"]
    assert "expected 1 channels as in training, found 2" in failures["two"]


def test_half_written_files_of_a_killed_run_are_removed(cases: list[Case], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".partial-99999999-new_0.nii.gz").write_bytes(b"half")
    predict(cases, tmp_path / "out", ensemble_of(a=ThresholdModel()))
    assert data.leftovers(tmp_path / "out") == []


def test_ending_is_the_inputs_or_the_one_given(cases: list[Case], tmp_path: Path) -> None:
    image, _, geometry = data.draw_case(0)
    write_image(tmp_path / "in" / "other.nrrd", image[None], geometry)
    case = Case("other", (tmp_path / "in" / "other.nrrd",))
    predict([case, cases[0]], tmp_path / "out", ensemble_of(a=ThresholdModel()))
    predict([case], tmp_path / "out", ensemble_of(a=ThresholdModel()), ending=".mha")
    assert {path.name for path in (tmp_path / "out").glob("*.n*")} == {"other.nrrd", "new_0.nii.gz"}
    assert np.array_equal(read_label(tmp_path / "out" / "other.mha").array, read_label(tmp_path / "out" / "other.nrrd").array)


@pytest.mark.parametrize(("blind_to", "left"), [("ball", 2), ("bar", 1)])
def test_each_organ_follows_its_own_model(blind_to: str, left: int) -> None:
    blind = ThresholdModel(**{blind_to: 1e4})
    ensemble = ensemble_of(a=blind, b=ThresholdModel()) if blind_to == "ball" else ensemble_of(a=ThresholdModel(), b=blind)
    found = ensemble.segment(ensemble.logits(drawn_image()))
    assert set(np.unique(found)) == {0, left}, "the organ that its own model does not see is not taken from the other"


class TestModelsOfSomeOrgans:
    """Each knows its own organ as 1; the dataset knows the ball as 1 and the bar as 2."""

    def test_each_gives_its_organ_in_the_datasets_values(self) -> None:
        ensemble = ensemble_of(a=OrganModel("ball", certainty=0.05), b=OrganModel("bar"))
        found = ensemble.segment(ensemble.logits(drawn_image()))
        expected = np.select([data.draw_case(0)[1] == value for value in (data.BALL, data.BAR)], [1, 2], 0)
        assert np.mean(found == expected) > 0.98
        assert set(np.unique(found)) == {0, 1, 2}

    def test_where_both_claim_a_voxel_the_more_confident_one_wins(self) -> None:
        """The ball's model takes all that is bright, so the bar too; the bar's logits rise five times as fast."""
        ensemble = ensemble_of(a=OrganModel("ball", certainty=0.05), b=OrganModel("bar", certainty=0.02))
        logits = ensemble.logits(drawn_image())
        labels = {name: ensemble.models[name].plan.labels for name in "ab"}
        both = np.logical_and(*(export_labels([logits[name]], labels[name]) == 1 for name in "ab"))
        ball, bar = (probabilities_at([logits[name]], np.stack(np.nonzero(both)), labels[name])[:, 1] for name in "ab")
        found = ensemble.segment(logits)
        assert set(np.unique(found[both])) == {1, 2}
        assert np.array_equal(found[both], np.where(bar > ball, 2, 1))

    def test_together_with_a_model_of_all_organs(self) -> None:
        ensemble = ensemble_of(a=ThresholdModel(), b=OrganModel("bar"))
        assert set(np.unique(ensemble.segment(ensemble.logits(drawn_image())))) == {0, 1, 2}

    def test_organs_that_nobody_segments_are_background(self) -> None:
        for model in (OrganModel("bar"), ThresholdModel()):
            ensemble = ensemble_for({"bar": ("b",)}, b=model)
            assert set(np.unique(ensemble.segment(ensemble.logits(drawn_image())))) == {0, 2}

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

    def test_a_model_that_lacks_its_organ_is_refused(self) -> None:
        with pytest.raises(ValueError, match="organ of b: .*bar"):
            ensemble_of(a=OrganModel("ball"), b=OrganModel("ball"))

    def test_models_of_different_organs_are_not_averaged(self) -> None:
        with pytest.raises(ValueError, match="bar: .*a: ball, bar; b: bar"):
            ensemble_for({"bar": ("a", "b")}, a=ThresholdModel(), b=OrganModel("bar"))


def test_progress_of_all_members_adds_up_to_one() -> None:
    shares: list[float] = []
    ensemble_of(a=ThresholdModel(), b=ThresholdModel()).logits(drawn_image(), progress=shares.append)
    assert sum(shares) == pytest.approx(1)


def test_manifest_of_a_dicom_folder_sees_every_slice(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for number in range(3):
        (tmp_path / "series" / f"{number}.dcm").write_bytes(b"slice")
    case = Case("series", (tmp_path / "series",))
    before = manifest.input_key(case)
    assert manifest.input_key(case) == before
    os.utime(tmp_path / "series" / "1.dcm", ns=(1, 1))
    assert manifest.input_key(case) == before
    (tmp_path / "series" / "1.dcm").write_bytes(b"SLICE")
    assert manifest.input_key(case) != before
