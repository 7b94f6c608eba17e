"""What the log says of a preset is what will run: the resolved settings and the plan, not the paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import ORGANS, make_configuration, make_plan, regions

from autoseg.presets import PAPER_PRESETS
from autoseg.presets.explanation import departures_of, explain, lines_of
from autoseg.presets.paper_preset import Departure
from autoseg.presets.settings import settings_for, train_settings
from autoseg.schema import Plan
from autoseg.schema.settings import PlanSettings
from autoseg.trainers.training_spec import of_stage, training_spec

PLAN = make_plan(
    make_configuration(2, normalization=("ct",)),
    make_configuration(normalization=("ct",), spacing=(8.0, 6.0, 6.0)),
    make_configuration(2, name="2.5d", slices=3, data="2d", normalization=("ct",)),
    labels=replace(ORGANS, names=("liver", "spleen")),
    channels=("CT",),
)


MR_PLAN = replace(
    PLAN, channels=("MR",), configurations={name: replace(one, normalization=("zscore",)) for name, one in PLAN.configurations.items()}
)


def lines(name: str, configuration: str, *, plan: Plan = PLAN, **given: Any) -> dict[str, str]:
    """Setting to what is said of it, in a training with a minute's budget."""
    settings = train_settings(name, **{"seconds": 60.0, "device": "cpu"} | given)
    spec = training_spec(plan, configuration, settings)
    found = lines_of(PAPER_PRESETS[name], [(settings, spec)], {})
    return {line.partition(": ")[0]: line.partition("; runs ")[2] for line in found}


class TestConze:
    def test_the_papers_model_runs_as_in_the_paper(self) -> None:
        said = lines("conze2021", "2d", organs=("liver",))
        options = said.pop("options")
        assert options.startswith(
            "loss dice, optimizer adam, learning_rate 1e-05, schedule constant, augmentation rotation_probability 1, "
        )
        assert "shear_degrees 10" in options and "mirror" not in options and "instead" not in options
        assert said == {
            "configurations": "2d",
            "rows": "vgg19_unet_cascade",
            "organ_by_organ": "one organ a model",
            "sigmoid": "one output with sigmoid",
            "trainer": "AdversarialTrainer with vgg19_unet_cascade",
            "trainer_options": "weight 150",
            "network_options": "encoder from vgg19-dcbb9e9d.pth",
            "batch": "3",
        }  # fmt: skip

    def test_another_network_of_the_paper_is_pretrained_or_the_line_says_that_it_is_not(self) -> None:
        said = lines("conze2021", "2d", organs=("liver",), network="vgg16_unet")
        assert said["network_options"] == "encoder from vgg16-397923af.pth" and said["trainer"] == "Trainer with vgg16_unet"
        said = lines("conze2021", "2d", organs=("liver",), network="vgg19_unet_cascade", network_options={"pretrained": None})
        assert said["network_options"] == "no pre-training instead of encoder from vgg19-dcbb9e9d.pth"
        assert lines("conze2021", "2d", network="vnet")["network_options"].startswith("no pre-training")

    def test_several_organs_and_numbers_of_the_user(self) -> None:
        said = lines("conze2021", "2d", batch=5, learning_rate=1e-4, options={"loss": "dice_ce"})
        assert said["organ_by_organ"] == "2 organs together (liver, spleen) instead of one organ a model"
        assert said["sigmoid"] == "3 outputs with softmax"
        assert said["batch"] == "5 instead of 3"
        assert said["options"].startswith("loss dice_ce, ") and "learning_rate 0.0001" in said["options"]
        assert " instead of loss dice, optimizer adam, learning_rate 1e-05" in said["options"]


class TestFang:
    def test_as_in_the_paper(self) -> None:
        said = lines("fang2020", "2.5d")
        assert said["configurations"] == "2.5d with 3 slices as channels"
        assert said["trainer"] == "PyramidTrainer with pipo_fan" and said["normalization"] == "clip:-200:200"
        assert not [line for line in said.values() if " instead of " in line]

    def test_of_images_without_hounsfield_units_the_normalisation_alone_is_otherwise(self) -> None:
        said = lines("fang2020", "2.5d", plan=MR_PLAN, normalization=("zscore",))
        assert said.pop("normalization") == "zscore instead of clip:-200:200"
        assert said["trainer"] == "PyramidTrainer with pipo_fan"
        assert not [line for line in said.values() if " instead of " in line]
        said = lines("crespi2023", "2d", plan=MR_PLAN, normalization=("zscore",), organs=("liver",))
        assert said.pop("window") == "zscore instead of window8:auto" and said.pop("window_bits") == "as planned instead of 8"
        assert not [line for line in said.values() if " instead of " in line]

    def test_with_another_trainer_network_and_normalisation(self) -> None:
        said = lines("fang2020", "2d", trainer="Trainer", network="conze_unet", normalization=("zscore",), batch=7)
        assert said["configurations"] == "2d instead of 2.5d"
        assert said["trainer"].startswith("Trainer with conze_unet instead of PyramidTrainer with ")
        assert said["trainer_options"] == "none instead of fusion_from 0.5"
        assert said["normalization"] == "zscore instead of clip:-200:200"
        assert said["batch"] == "7 instead of as planned"


def rows_said(name: str, configuration: str, organs: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """What is said of each of a paper's models."""
    preset, said = PAPER_PRESETS[name], {}
    for row in preset.rows:
        settings = settings_for(preset, row, {"organs": organs} if organs and row.organ_by_organ is not False else {})
        said[row.name] = lines_of(preset, [(settings, training_spec(PLAN, configuration, settings))], {})
    return said


def test_each_model_of_a_table_is_compared_with_itself() -> None:
    """Also where its name begins with another's; baselines of all organs are the paper's, too."""
    found = rows_said("fang2020", "2.5d") | rows_said("crespi2023", "2d", ("liver",))
    found |= {f"{name}, one organ": said for name, said in rows_said("fang2020", "2.5d", ("liver",)).items()}
    assert {name: [line for line in said if " instead of " in line] for name, said in found.items()} == dict.fromkeys(found, [])


def test_a_single_region_has_one_output_as_in_the_paper() -> None:
    plan = replace(PLAN, labels=regions(liver=(1, 2)))
    assert lines("conze2021", "2d", plan=plan, network="conze_unet")["sigmoid"] == "one output with sigmoid"


def test_sources_of_a_merged_dataset_are_told() -> None:
    said = lines("crespi2023", "2d", organs=("liver",), sources=("Dataset001_One",))
    assert said["sources"] == "Dataset001_One instead of all datasets"


def test_fine_tuning_says_the_rate_that_runs() -> None:
    said = lines("conze2021", "2d", pretrained=Path("model"))
    assert "learning_rate 1e-06" in said["options"] and " instead of loss dice, optimizer adam, learning_rate 1e-05" in said["options"]
    assert "rate_of_preset" not in lines("conze2021", "2d", learning_rate=1e-3)


def test_thaler_says_the_spacing_of_the_plan() -> None:
    assert lines("thaler2021", "3d_fullres")["spacing"] == "8 x 6 x 6 mm instead of 2 x 2 x 2 mm"
    said = lines("thaler2021", "3d_fullres", trainer="Trainer")
    assert said["trainer"].startswith("Trainer with plain_unet instead of SpatialConfigurationTrainer with scn")


def test_options_of_the_papers_network_are_not_given_to_another() -> None:
    assert train_settings("roth2018", network="conze_unet").network_options == {}
    said = lines("roth2018", "3d_fullres", network="conze_unet", network_options={"features": [4, 8]})
    assert said["network_options"] == "no pre-training, features 4 x 8 instead of no pre-training, valid yes"


@pytest.mark.parametrize("network", ["vgg16_unet", "vgg19_unet"])
def test_what_is_told_of_vgg_19_is_told_of_it_alone(network: str) -> None:
    settings = train_settings("conze2021", organs=("liver",), network=network, options={"foreground": 0.0})
    found = "; ".join(departures_of(PAPER_PRESETS["conze2021"], [(settings, training_spec(PLAN, "2d", settings))]))
    assert ("VGG-19" in found) == (network == "vgg19_unet") and "drawn more often" not in found


def test_a_budget_of_the_user_is_said_instead_of_the_papers() -> None:
    assert lines("roth2018", "3d_fullres", trainer="Trainer", seconds=90.0)["iterations"] == "90 s instead of 115000 iterations"


def test_what_roth_has_of_a_cascade_is_not_claimed_of_a_training_without_one() -> None:
    settings = train_settings("roth2018", device="cpu")
    said = lines_of(PAPER_PRESETS["roth2018"], [alone := (settings, training_spec(PLAN, "3d_fullres", settings))], {})
    assert [line for line in said if line.startswith("first_iterations")] == ["first_iterations: 200 000; runs no first stage"]
    assert departures_of(PAPER_PRESETS["roth2018"], [alone]) == []


def test_roth_says_the_grids_and_the_budgets_of_both_stages() -> None:
    full = make_configuration(spacing=(2.0, 2.0, 2.0))
    stages = (replace(full, name="3d_lowres"), replace(full, name="3d_cascade", previous_stage="3d_lowres"))
    plan = replace(make_plan(full, *stages), settings=PlanSettings(spacing="x2", one_grid=True))
    settings = train_settings("roth2018", device="cpu")
    specs = [training_spec(plan, name, settings) for name in ("3d_lowres", "3d_cascade")]
    said = lines_of(PAPER_PRESETS["roth2018"], [(of_stage(settings, spec), spec) for spec in specs], {})
    found = {line.partition(": ")[0]: line.partition("; runs ")[2] for line in said}
    assert not [line for line in found.values() if " instead of " in line]
    assert (found["spacing"], found["one_grid"]) == ("2 x 2 x 2 mm", "yes")
    assert found["iterations"] == "200000 iterations (3d_lowres roth_unet); 115000 iterations (3d_cascade roth_unet)"
    other = replace(plan, configurations=plan.configurations | {"3d_lowres": replace(full, name="3d_lowres", spacing=(4.0,) * 3)})
    other = replace(other, settings=PlanSettings(force_lowres=True))
    short = train_settings("roth2018", device="cpu", seconds=90.0, network_options={"valid": False})
    (line,) = [
        one for one in lines_of(PAPER_PRESETS["roth2018"], [(short, training_spec(other, "3d_cascade", short))], {}) if "one_grid" in one
    ]
    assert line.endswith("runs no instead of yes")
    said = lines_of(PAPER_PRESETS["roth2018"], [(short, training_spec(other, "3d_cascade", short))], {})
    assert any(one.endswith("no pre-training, valid no instead of no pre-training, valid yes") for one in said)
    assert any(one.startswith("first_iterations") and one.endswith("runs as the second instead of 200000") for one in said)


def test_thaler_says_that_patches_stand_for_regions() -> None:
    for given, expected in (({}, False), ({"trainer_options": {"whole_region": False}}, True)):
        settings = train_settings("thaler2021", device="cpu", **given)
        found = departures_of(PAPER_PRESETS["thaler2021"], [(settings, training_spec(PLAN, "3d_fullres", settings))])
        assert any("patches" in one for one in found) == expected


def test_departures_are_said_where_they_hold() -> None:
    preset = replace(PAPER_PRESETS["conze2021"], departures=("always", Departure("in 2d", lambda _, spec: spec.configuration.dim == 2)))
    trainings = [(settings := train_settings("conze2021", network="conze_unet"), training_spec(PLAN, "2d", settings))]
    assert departures_of(preset, trainings) == ["always", "in 2d"]
    settings = train_settings("thaler2021")
    assert departures_of(preset, [(settings, training_spec(PLAN, "3d_fullres", settings))]) == ["always"]


def test_a_budget_too_short_for_early_stopping_is_said() -> None:
    for given, expected in (
        ({"seconds": 1200.0}, True),
        ({"epochs": 60}, False),
        ({"seconds": 60.0, "options": {"early_stopping": 2}}, False),
    ):
        settings = train_settings("crespi2023", device="cpu", organs=("liver",), **given)
        found = departures_of(PAPER_PRESETS["crespi2023"], [(settings, training_spec(PLAN, "2d", settings))])
        assert any("never stops" in one for one in found) == expected, given


def test_departures_name_no_values_that_do_not_run() -> None:
    """The user's are in the line of the options."""
    options = {"plateau_patience": 3, "early_stopping": 7, "distortion_limit": 0.1}
    settings = train_settings("crespi2023", device="cpu", organs=("liver",), options=options, seconds=36000.0)
    found = "; ".join(departures_of(PAPER_PRESETS["crespi2023"], [(settings, training_spec(PLAN, "2d", settings))]))
    assert "not told: plateau_patience" in found and not any(number in found for number in ("10", "50", "0.3", "15"))
    for given, said in (({"seconds": 60.0, "batch": 4}, False), ({}, True)):
        settings = train_settings("fang2020", device="cpu", **given)
        found = "; ".join(departures_of(PAPER_PRESETS["fang2020"], [(settings, training_spec(PLAN, "2.5d", settings))]))
        assert ("the planned one" in found) == said and "default budget" not in found and "which were not asked for" in found


def test_models_that_differ_are_named(caplog: pytest.LogCaptureFixture) -> None:
    several = [train_settings("conze2021", organs=("liver",), network=one, seconds=60.0) for one in ("conze_unet", "vgg16_unet")]
    with caplog.at_level("INFO"):
        explain("conze2021", [(one, training_spec(PLAN, "2d", one)) for one in several])
    assert "network_options: encoders v16p, v19p trained on ImageNet; runs no pre-training (UNet); encoder from vgg16" in caplog.text
    assert "batch: 3 slices of CT, 5 of MR; runs 3\n" in caplog.text
    caplog.clear()
    explain(None, [])
    explain("resenc_m", [])
    assert not caplog.text
