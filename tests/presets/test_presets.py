"""The papers' experiments: every setting is explained and real, and what the user says wins."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from factories import ORGANS, make_configuration, make_plan, write_dataset

from autoseg import cli, pipeline
from autoseg.cli.options import PAPERS
from autoseg.inference.postprocessing import forced
from autoseg.networks import NETWORKS, build_network
from autoseg.networks.imagenet import encoder_of
from autoseg.pipeline import PlanSettings, TrainSettings
from autoseg.presets import PAPER_PRESETS
from autoseg.presets.experiment import experiment
from autoseg.presets.paper_preset import words_about
from autoseg.presets.settings import check_paper, plan_settings, train_settings
from autoseg.schema import Budget
from autoseg.schema.training_options import AugmentationOptions
from autoseg.trainers import TRAINERS
from autoseg.trainers.losses import LOSSES
from autoseg.trainers.optimizers import OPTIMIZERS
from autoseg.trainers.run_options import default_options
from autoseg.trainers.schedules import SCHEDULES
from autoseg.trainers.training_spec import training_spec

CT = make_plan(
    make_configuration(2, normalization=("ct",)),
    make_configuration(normalization=("ct",)),
    make_configuration(name="3d_lowres", normalization=("ct",)),
    make_configuration(name="3d_cascade", previous_stage="3d_lowres", normalization=("ct",)),
    make_configuration(2, name="2.5d", slices=3, data="2d", normalization=("ct",)),
    labels=replace(ORGANS, names=("liver", "spleen")),
    channels=("CT",),
)


def test_the_commands_list_them_all() -> None:
    assert PAPERS.replace(" or ", ", ").split(", ") == sorted(PAPER_PRESETS)


@pytest.mark.parametrize("name", PAPER_PRESETS)
class TestEach:
    def test_every_setting_is_explained_and_nothing_else(self, name):
        preset = PAPER_PRESETS[name]
        named = {one for one in ("configurations", "networks", "rows", "organ_by_organ") if getattr(preset, one)}
        of_rows = {key for row in preset.rows for key in row.training} - {"network"}
        assert set(preset.why) == named | set(preset.plan) | set(preset.training) | of_rows
        assert preset.departures and all(preset.why.values())

    def test_names_are_those_of_settings_and_of_things_that_exist(self, name):
        preset, settings = PAPER_PRESETS[name], train_settings(name)
        assert set(preset.plan) <= {one.name for one in fields(PlanSettings)}
        networks = {row.training.get("network") for row in preset.all_rows} - {None}
        assert settings.trainer in TRAINERS and networks <= set(NETWORKS)
        options = settings.options
        assert options["optimizer"] in OPTIMIZERS and options["schedule"] in SCHEDULES and options.get("loss", "dice_ce") in LOSSES

    def test_the_options_of_training_are_what_the_job_gets(self, name):
        settings = train_settings(name)
        options = default_options(Budget("time", 60.0, 4), "cpu", batch=2, changes=settings.changed_options)
        plain = {key: value for key, value in settings.options.items() if key != "augmentation"}
        assert {key: getattr(options, key) for key in plain} == plain
        augmentation = settings.options.get("augmentation", {})
        assert {key: getattr(options.augmentation, key) for key in augmentation} == augmentation

    def test_each_configuration_makes_a_variant_whose_network_can_be_built(self, name):
        for configuration in PAPER_PRESETS[name].configurations:
            for row in PAPER_PRESETS[name].all_rows:
                options = {"pretrained": None} if encoder_of(row.training.get("network", "")) else None
                settings = train_settings(name, network=row.training.get("network"), network_options=options)
                asked = training_spec(CT, configuration, settings)
                with torch.device("meta"):
                    shape = {"dim": asked.configuration.dim, "in_channels": CT.in_channels(asked.configuration), "out_channels": 3}
                    built = build_network(asked.configuration.network, **shape, **asked.configuration.network_options)
                assert sum(weight.numel() for weight in built.parameters()) > 500

    def test_nothing_of_the_planner_is_lost(self, name):
        settings = plan_settings(name, memory_gb=4.0, workers=None)
        assert (settings.memory_gb, settings.preset, settings.configurations) == (4.0, "default", PAPER_PRESETS[name].configurations)


def test_numbers_of_the_papers() -> None:
    conze, crespi, fang, roth, thaler = (train_settings(name) for name in sorted(PAPER_PRESETS))
    assert (conze.trainer, conze.network, conze.batch) == ("AdversarialTrainer", "vgg19_unet_cascade", 3)
    assert (conze.trainer_options, conze.options["learning_rate"], conze.options["loss"]) == ({"weight": 150.0}, 1e-5, "dice")
    assert (fang.trainer, fang.network, fang.normalization) == ("PyramidTrainer", None, ("clip:-200:200",))
    assert (fang.options["optimizer"], fang.options["learning_rate"], fang.options["loss"]) == ("rmsprop", 2e-4, "ce")
    assert (thaler.trainer, thaler.batch, thaler.iterations) == ("SpatialConfigurationTrainer", 1, 500_000)
    assert (thaler.options["learning_rate"], thaler.options["average_decay"]) == (1e-4, 0.999)
    assert plan_settings("thaler2021").spacing == (2.0, 2.0, 2.0)
    assert (roth.trainer, roth.network, roth.options["loss"]) == ("CascadeTrainer", "roth_unet", "weighted_ce")
    assert (plan_settings("roth2018").spacing, plan_settings("roth2018").one_grid) == ("x2", True)
    assert (roth.first_iterations, roth.iterations, roth.network_options) == (200_000, 115_000, {"valid": True})
    assert roth.trainer_options == {"previous_input": False, "first_step": 1.0, "second_step": 0.63, "tile_mean": "plain"}
    assert (crespi.window, train_settings("crespi2023", organs=("heart",)).window, crespi.options["learning_rate"]) == (None, "auto", 1e-3)


class TestWhatTheUserSaysWins:
    def test_a_single_number(self) -> None:
        settings = train_settings("conze2021", batch=5, options={"loss": "dice_ce"}, learning_rate=1e-4)
        assert settings.batch == 5
        assert settings.changed_options.items() >= {"loss": "dice_ce", "learning_rate": 1e-4, "optimizer": "adam"}.items()
        assert train_settings("fang2020", trainer="Trainer").trainer == "Trainer", "also where it is the default"

    def test_a_budget_replaces_the_budget(self) -> None:
        settings = train_settings("roth2018", seconds=60.0)
        assert (settings.iterations, settings.first_iterations, settings.seconds) == (None, None, 60.0)

    def test_intensities_replace_intensities(self) -> None:
        settings = train_settings("crespi2023", normalization=("zscore",))
        assert (settings.window, settings.normalization) == (None, ("zscore",))
        assert train_settings("fang2020", window=(400.0, 50.0)).normalization == ()

    def test_options_of_another_trainer_or_network_are_dropped_with_it(self) -> None:
        assert train_settings("fang2020", trainer="AdversarialTrainer").trainer_options == {}
        assert train_settings("fang2020", trainer_options={"fusion_from": 0.8}).trainer_options == {"fusion_from": 0.8}
        assert train_settings("conze2021", network="vnet").network_options == {}
        assert train_settings("conze2021", network_options={"pretrained": "vgg19.pth"}).network_options == {"pretrained": "vgg19.pth"}

    def test_a_network_that_the_paper_trained_on_imagenet_is_so_too(self) -> None:
        for network in ("vgg16_unet", "vgg19_unet", "vgg19_unetpp", "vgg16_unet_cascade", "vgg19_unet_cascade"):
            assert train_settings("conze2021", network=network).network_options == {"pretrained": "imagenet"}, network
        assert train_settings("conze2021", network="conze_unet").network_options == {}

    def test_a_network_of_the_papers_table_is_the_papers_model(self) -> None:
        found = [train_settings("conze2021", network=network) for network in ("vgg16_unet", "unet_cascade", "vgg16_unet_cascade")]
        assert [one.tag for one in found] == ["v16pUNet", "UNet1-1", "cGv16pUNet1-1"]
        assert [one.trainer for one in found] == ["Trainer", "Trainer", "AdversarialTrainer"]
        assert train_settings("conze2021", network="vgg16_unet_cascade", trainer="Trainer").tag == "v16pUNet1-1"
        assert train_settings("conze2021", network="vgg19_unetpp", tag="x").tag == "v19pUNetplus-x"

    def test_what_is_not_pretrained_or_trained_otherwise_has_not_the_papers_name(self) -> None:
        without = train_settings("conze2021", network="vgg16_unet", network_options={"pretrained": None})
        assert (without.tag, without.network_options) == ("v16UNet", {"pretrained": None})
        without = train_settings("conze2021", network="vgg19_unet_cascade", network_options={"pretrained": None})
        assert (without.tag, without.network_options) == ("", {"pretrained": None})
        assert train_settings("conze2021", trainer="PyramidTrainer").tag == ""

    def test_of_the_planner(self) -> None:
        settings = plan_settings("thaler2021", spacing=(3.0, 3.0, 3.0), configurations=("2d",))
        assert (settings.spacing, settings.configurations) == ((3.0, 3.0, 3.0), ("2d",))


def test_presets_of_the_planner_stay_what_they_were() -> None:
    assert plan_settings("resenc_m", memory_gb=6.0) == PlanSettings(preset="resenc_m", memory_gb=6.0)
    assert plan_settings(None) == PlanSettings()
    assert plan_settings("my:preset") == PlanSettings(preset="my:preset")
    assert train_settings("resenc_m", seed=3) == TrainSettings(seed=3)
    with pytest.raises(ValueError, match="preset: expected one of conze2021, .*resenc_xl.*Did you mean 'fang2020'"):
        plan_settings("fang2021")
    with pytest.raises(ValueError, match="preset of a training: resenc_m is one of planning"):
        check_paper("resenc_m")
    check_paper(None)


def test_each_organ_is_trained_with_each_network_unless_the_user_says_which(tmp_path: Path) -> None:
    write_dataset(tmp_path / "raw" / "Dataset001_Tiny")
    found = [(one.organs, one.network) for one in experiment("crespi2023", 1, home=tmp_path).trainings]
    networks = ("deeplabv3", "se_resunet", "pipo_unet")
    assert found[:6] == [((organ,), network) for organ in ("ball", "block") for network in networks]
    assert found[6:] == [((), network) for network in reversed(networks)], "and the baselines of all organs"
    some = experiment("crespi2023", 1, home=tmp_path, organs=("ball", "block"), network="vnet", seed=5).trainings
    assert [(one.organs, one.network, one.seed) for one in some] == [(("ball",), "vnet", 5), (("block",), "vnet", 5)]
    assert experiment(None, 1, home=tmp_path, seed=2).trainings == (TrainSettings(seed=2),)
    assert experiment("fang2020", 1, home=tmp_path).trainings == (train_settings("fang2020"),)


def test_the_commands_hand_them_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "raw" / "Dataset001_Tiny")
    asked: list = []
    monkeypatch.setattr(pipeline, "train", lambda *given, **_: asked.append(given))
    monkeypatch.setattr(pipeline, "run", lambda *given, **more: asked.append((*given, more["experiment"])))
    monkeypatch.setattr(pipeline, "describe_choice", str)
    monkeypatch.setattr(pipeline, "describe_experiment", lambda *_, **__: "")
    home = ["--home", str(tmp_path)]
    assert cli.train(["1", "2.5d", "0", "--preset", "fang2020", "--time", "1m", *home]) == 0
    assert asked[-1][3] == train_settings("fang2020", seconds=60.0)
    assert cli.run(["1", "--preset", "conze2021", "--iterations", "5", "--models", "UNet", "UNet1-1", *home]) == 0
    assert asked[-1][1] == PlanSettings(configurations=("2d",))
    models = [(one.organs, one.network, one.trainer, one.iterations) for one in asked[-1][2].trainings]
    assert models == [((organ,), network, "Trainer", 5) for organ in ("ball", "block") for network in ("conze_unet", "unet_cascade")]
    assert cli.train(["1", "2d", "0", *home]) == 0
    assert asked[-1][3] == TrainSettings()
    assert cli.train(["1", "2d", "0", "--preset", "conze2022", *home]) == 2
    assert "Did you mean 'conze2021'?" in capsys.readouterr().err
    assert cli.train(["1", "2d", "0", "--preset", "resenc_m", *home]) == 2
    assert "autoseg_plan_and_preprocess --preset resenc_m" in capsys.readouterr().err


def test_options_of_the_trainers_own_network_without_naming_it() -> None:
    settings = TrainSettings(trainer="PyramidTrainer", network_options={"input_scales": 1})
    configuration = training_spec(CT, "2.5d", settings).configuration
    assert (configuration.network, configuration.network_options["input_scales"]) == ("pipo_fan", 1)


class TestAugmentation:
    """Ranges and probabilities are the papers', and the user's single options go before them."""

    def test_numbers_of_the_papers(self) -> None:
        def options(name: str, **given: object) -> AugmentationOptions:
            changes = train_settings(name, options=given).changed_options
            return default_options(Budget("time", 60.0, 4), "cpu", batch=2, changes=changes).augmentation

        roth, thaler, conze, crespi, fang = map(options, ("roth2018", "thaler2021", "conze2021", "crespi2023", "fang2020"))
        assert (roth.elastic_voxels, roth.elastic_spacing, roth.elastic_distribution) == (4.0, 32.0, "uniform")
        assert (roth.rotation_degrees, roth.translation_voxels, roth.translation_share, roth.scale_probability) == (5.0, 20.0, 0.0, 0.0)
        assert thaler.elastic_points == 8
        assert (thaler.offset_limit, thaler.brightness_range) == (0.2, (0.8, 1.2))
        for one, parts in (
            (roth, {"rotation", "translation", "elastic"}),
            (thaler, {"rotation", "scale", "translation", "elastic", "offset", "brightness"}),
            (conze, {"rotation", "scale", "shear", "translation"}),
        ):
            drawn = {item.name: getattr(one, item.name) for item in fields(one) if item.name.endswith("_probability")}
            usual = {name: value for name, value in drawn.items() if "_channel_" not in name and value}
            assert usual == dict.fromkeys((f"{part}_probability" for part in parts), 1.0), "in every patch, and nothing else"
        assert min(crespi.rotation_probability, crespi.elastic_probability, crespi.distortion_probability) > 0
        assert crespi.scale_probability == fang.scale_probability == fang.elastic_probability == fang.rotation_probability == 0
        changed = options("roth2018", rotation_degrees=10)
        assert changed == replace(roth, rotation_degrees=10)
        assert options("roth2018", augmentation={"rotation_degrees": 10}) == changed


def test_what_fang_compares_with_is_trained_only_where_it_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path / "raw" / "Dataset001_Tiny")
    names = [row.name for row in PAPER_PRESETS["fang2020"].rows]
    assert experiment("fang2020", 1, home=tmp_path).rows == ("PIPO-FAN",)
    assert experiment("fang2020", 1, home=tmp_path, models=names).rows == tuple(names)
    (net,) = experiment("fang2020", 1, home=tmp_path, network="deeplabv3").trainings
    assert (net.trainer, net.network_options) == ("Trainer", {"block": "basic", "blocks": [2, 2, 2, 2]})
    assert train_settings("fang2020").tag == "PIPO-FAN"


def test_fang_keeps_two_components_of_kidneys_that_are_one_organ() -> None:
    words = PAPER_PRESETS["fang2020"].choice["postprocess"]
    assert words == PAPER_PRESETS["fang2020"].table.postprocess
    for names, expected in ((("liver", "Kidneys"), ("largest", "Kidneys=2")), (("liver", "kidney_left"), ("largest",))):
        labels = replace(ORGANS, names=names)
        assert words_about(labels, words) == expected
        assert {organ: steps.components for organ, steps in forced(expected, labels, {}).items()} == {
            names[0]: 1,
            names[1]: 2 if names[1] == "Kidneys" else 1,
        }
    assert words_about(replace(ORGANS, regions=True), words) == ()


def test_one_training_of_all_organs_is_a_baseline_and_not_called_binary() -> None:
    of_all, of_some = (train_settings("crespi2023", network="deeplabv3", organs=organs) for organs in ((), ("lung_left", "lung_right")))
    assert (of_all.tag, of_some.tag, of_some.window, of_some.sigmoid) == ("DeepLabV3", "DeepLabV3", None, None)
    one = train_settings("crespi2023", network="deeplabv3", organs=("heart",))
    assert (one.tag, one.window, one.sigmoid) == ("binary-DeepLabV3", "auto", True)


def test_fangs_models_of_a_single_organ_have_the_papers_values_for_one(tmp_path: Path) -> None:
    """Section IV-B: 2e-3, weights 0.2 and 1.2, fusion from 2000 of 2500 epochs, 62 falls of the rate."""

    def values(models: list[str], **given: object) -> list[tuple[object, ...]]:
        found = experiment("fang2020", 1, home=tmp_path, models=models, **given).trainings
        names = ("learning_rate", "class_weights", "schedule")
        return [(*(one.changed_options.get(name) for name in names), dict(one.trainer_options)) for one in found]

    write_dataset(tmp_path / "raw" / "Dataset001_Tiny")
    single = (2e-3, (0.2, 1.2), "percents_2500")
    assert values(["PIPO", "PIPO-FAN"], organs=("ball",)) == [(*single, {}), (*single, {"fusion_from": 0.8})]
    together = (2e-4, None, "percents", {"fusion_from": 0.5})
    assert values(["PIPO-FAN"]) == values(["PIPO-FAN"], organs=("ball", "block")) == [together]
    given = {"options": {"class_weights": (1.0, 1.0)}, "trainer_options": {"fusion_from": 0.7}, "organs": ("ball",)}
    assert values(["PIPO-FAN"], **given) == [(2e-3, (1.0, 1.0), "percents_2500", {"fusion_from": 0.7})]
    assert values(["PIPO-FAN"], options={"loss": "dice"}, organs=("ball",))[0][1] is None, (
        "weights of another loss's terms are not the paper's"
    )
    file = write_dataset(tmp_path / "raw" / "Dataset002_One") / "dataset.json"
    file.write_text(file.read_text().replace('"block": 5', '"ignore": 5').replace('"ball": 2', '"ball": 1'))
    (one,) = experiment("fang2020", 2, home=tmp_path).trainings
    assert one.changed_options["class_weights"] == (0.2, 1.2), "where the dataset has only one, nobody need name it"
    assert train_settings("fang2020", organs=("ball",)).changed_options["learning_rate"] == 2e-3


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("U-Net", 13_395_394),
        ("PIPO-3-1", 15_981_634),
        ("PIPO-5-1", 24_740_034),
        ("PIPO-FAN-3-3", 16_258_566 + 19),
        ("PIPO-FAN-5-3", 25_016_966 + 19),
        ("PIPO", 28_270_986),
        ("PIPO-FAN", 28_270_986 + 19),
    ],
)
def test_the_models_of_table_vii_have_its_parameters(model: str, parameters: int, tmp_path: Path) -> None:
    """Of one organ; the paper's table does not count the adaptive fusion, which has 19."""
    write_dataset(tmp_path / "raw" / "Dataset001_Tiny")
    (settings,) = experiment("fang2020", 1, home=tmp_path, models=[model], organs=("liver",)).trainings
    planned = make_configuration(2, name="2.5d", slices=3, normalization=("ct",), network_options=FIVE_LEVELS)
    spec = training_spec(replace(CT, configurations={"2.5d": planned}), "2.5d", settings)
    one = spec.configuration
    with torch.device("meta"):
        network = build_network(one.network, dim=2, in_channels=spec.plan.in_channels(one), out_channels=2, **one.network_options)
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    assert (one.patch_size, one.slice_shape) == ((224, 224), (256, 256))


FIVE_LEVELS = {"features": [4] * 6, "strides": [[1, 1], *[[2, 2]] * 5], "kernel_sizes": [[3, 3]] * 6}


def test_pages_name_models_of_their_papers() -> None:
    pages = (Path(__file__).parents[2] / "docs" / "papers").glob("*.md")
    commands = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines() if " --models " in line]
    named = [(re.search(r"--preset (\w+)", line)[1], line.partition(" --models ")[2].partition(" --")[0].split()) for line in commands]
    known = {name: {one.name for one in (*preset.rows, *preset.ensembles)} for name, preset in PAPER_PRESETS.items()}
    unknown = {(preset, *models) for preset, models in named if not set(models) <= known[preset]}
    assert len(commands) > 4 and not unknown
