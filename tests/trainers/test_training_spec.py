"""What of a plan a training follows when organs, window or normalisation are asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_configuration, make_plan, record_run

from autoseg.data.label_subsets import subset_labels
from autoseg.pipeline import TrainSettings
from autoseg.runtime.runs import ModelFolder
from autoseg.schema import Labels, Mirroring, Plan
from autoseg.trainers.training_spec import of_organs, training_spec

SIDED = Labels(("liver", "kidney_left", "kidney_right"), ((1,), (2,), (3,)))
FLAT = make_configuration(2, mirroring=Mirroring((0, 1), 1, ((1, 2),)), normalization=("ct",))
DEEP = make_configuration(3, mirroring=Mirroring((0, 1, 2), 2, ((1, 2),)), normalization=("ct",))
PLAN = replace(make_plan(FLAT, DEEP, labels=SIDED, channels=("CT",)), lateral_axis=2)


def test_nothing_asked_or_all_organs_is_the_plan_itself() -> None:
    asked = training_spec(PLAN, "2d", TrainSettings())
    assert asked.plan is PLAN
    assert (asked.configuration, asked.words) == (FLAT, ())
    assert of_organs(PLAN, SIDED.names) == (PLAN, "")


def test_a_tag_ends_the_models_name() -> None:
    assert training_spec(PLAN, "2d", TrainSettings(organs=("liver",), tag="focal-2.0")).words == ("liver", "focal-2.0")
    for wrong in ("a b", "a__b", "../a", "-x"):
        with pytest.raises(ValueError, match="--tag: expected a word"):
            training_spec(PLAN, "2d", TrainSettings(tag=wrong))


def test_a_plan_of_some_organs_reads_the_same_data() -> None:
    asked = training_spec(PLAN, "3d_fullres", TrainSettings(organs=("liver",)))
    assert asked.words == ("liver",)
    assert asked.plan.labels == subset_labels(SIDED, ("liver",))
    assert asked.plan.stored_labels == SIDED
    assert asked.configuration.data == DEEP.data
    assert of_organs(asked.plan, ("liver",)) == (asked.plan, "")


def test_organs_whose_names_read_alike_have_folders_of_their_own(tmp_path: Path) -> None:
    alike = replace(PLAN, labels=Labels(("tumour/core", "tumour core", "edema"), ((1,), (2,), (3,))))
    first, second = (training_spec(alike, "2d", TrainSettings(organs=(organ,))) for organ in alike.labels.names[:2])
    assert first.model(tmp_path, "Trainer") != second.model(tmp_path, "Trainer")
    earlier = record_run(ModelFolder(tmp_path / "2d__Trainer__tumour_core").run("0"), second.plan, configuration=FLAT)
    assert second.model(tmp_path, "Trainer") == earlier.model, "as earlier versions named it"
    assert first.model(tmp_path, "Trainer").folder.name.startswith("2d__Trainer__tumour_core_")


def mirrorings(plan: Plan, *organs: str) -> list[Mirroring]:
    return [configuration.mirroring for configuration in of_organs(plan, organs)[0].configurations.values()]


@pytest.mark.parametrize(
    ("organs", "flips_2d", "flips_3d"),
    [
        (("liver",), Mirroring((0, 1)), Mirroring((0, 1, 2))),
        (("kidney_left",), Mirroring((0,)), Mirroring((0, 1))),
        (("liver", "kidney_right"), Mirroring((0,)), Mirroring((0, 1))),
        (("kidney_right", "kidney_left"), Mirroring((0, 1), 1, ((0, 1),)), Mirroring((0, 1, 2), 2, ((0, 1),))),
    ],
)
def test_a_side_without_its_partner_is_not_flipped(organs: tuple[str, ...], flips_2d: Mirroring, flips_3d: Mirroring) -> None:
    assert mirrorings(PLAN, *organs) == [flips_2d, flips_3d]


def test_plans_that_do_not_say_where_left_is() -> None:
    """Their flips say it where the dataset has pairs; else no organ with a side is flipped at all."""
    assert mirrorings(replace(PLAN, lateral_axis=None), "kidney_left") == [Mirroring((0,)), Mirroring((0, 1))]
    unpaired = make_plan(make_configuration(), labels=Labels(("liver", "kidney_left"), ((1,), (2,))))
    assert mirrorings(unpaired, "kidney_left") == [Mirroring()]
    assert mirrorings(unpaired, "liver") == [Mirroring((0, 1, 2))]


def test_slices_from_the_side_may_be_flipped() -> None:
    assert mirrorings(replace(PLAN, lateral_axis=0), "kidney_left") == [Mirroring((0, 1)), Mirroring((1, 2))]


def test_words_in_the_name_of_the_model() -> None:
    asked = training_spec(PLAN, "2d", TrainSettings(network="vnet", organs=("liver", "kidney_left"), window=(400, 50)))
    assert asked.words == ("vnet", "liver+kidney_left", "w400_l50")
    assert (asked.configuration.network, asked.configuration.normalization) == ("vnet", ("window:400:50",))


def test_a_window_of_images_without_hounsfield_units_is_refused_with_what_to_take() -> None:
    """An organ without a usual window was asked for one in dataset.json, which would have been refused then."""
    plan = replace(PLAN, configurations={"2d": replace(PLAN.configurations["2d"], normalization=("zscore",))})
    for window in ("auto", (400.0, 50.0)):
        with pytest.raises(ValueError, match="found normalisation zscore; add --normalization zscore"):
            training_spec(plan, "2d", TrainSettings(organs=("liver",), window=window))


def test_the_organs_own_window() -> None:
    settings = TrainSettings(organs=("liver",), window="auto")
    assert training_spec(PLAN, "2d", settings).configuration.normalization == ("window:400:50",)
    assert training_spec(PLAN, "2d", settings, windows={"liver": (150.0, 30.0)}).words == ("liver", "w150_l30")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TrainSettings(organs=("kidney",)), "organ: expected one of kidney_left, kidney_right, liver, got 'kidney'"),
        (TrainSettings(window=(400, 50), normalization=("zscore",)), "expected only one of them"),
        (TrainSettings(window="soft"), "--window: expected width and level"),
        (TrainSettings(normalization=("percentile",)), "normalisation: expected one of clip:LOW:HIGH, ct, .* got 'percentile'"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: TrainSettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training_spec(PLAN, "2d", settings)
