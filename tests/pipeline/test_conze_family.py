"""Conze's whole experiment on the phantom: the family is trained, MOvpUNet chosen by CHAOS score, and the paper's table printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import story_data
import torch
from oracle_home import DATASET, write_oracle_dataset

from autoseg import cli
from autoseg.data.phantom.dataset import make_phantom
from autoseg.networks.imagenet import FILES
from autoseg.networks.vgg_unet import vgg16_unet, vgg19_unet
from autoseg.runtime.checkpoints import load_checkpoint
from autoseg.runtime.runs import ModelFolder
from autoseg.runtime.serialization import read_json
from autoseg.schema import Choice
from autoseg.schema.training_options import TrainingOptions

quick_trainings = story_data.quick_trainings
FEATURES = [4, 4, 8, 8, 8]
TINY = ["--iterations", "2", "--batch", "2", "--device", "cpu", "--network-option", f"features={FEATURES}"]


def weights(folder: Path) -> Path:
    """Made-up files of weights of encoders so narrow."""
    folder.mkdir()
    for vgg, factory in {"vgg16": vgg16_unet, "vgg19": vgg19_unet}.items():
        torch.save(factory(dim=2, in_channels=3, out_channels=1, features=FEATURES).encoder.state_dict(), folder / FILES[vgg])
    return folder


@pytest.mark.slow
def test_the_papers_experiment_from_one_command(tmp_path, monkeypatch, capsys, caplog):
    make_phantom(tmp_path / "raw/Dataset900_Phantom", n_train=5, n_test=0, seed=0, size=0.3)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: (_ for _ in ()).throw(OSError("no route to host")))
    command = ["900", "--preset", "conze2021", "--organs", "liver", "spleen", "--folds", "0", *TINY, "--home", str(tmp_path)]
    with caplog.at_level("INFO"):
        assert cli.run(command) == 0
    results, printed = tmp_path / "results/Dataset900_Phantom", capsys.readouterr().out
    assert "In all 8 trainings: the unknown time of 16 iterations, with" in caplog.text
    assert "Not run: v16pUNet, v16pUNet1-1, cGv16pUNet1-1: " in caplog.text and FILES["vgg16"] in caplog.text
    assert len(list(results.glob("2d__*/fold_0/validation/scores.json"))) == 8
    check_table(printed, ["UNet", "v16UNet", "v19UNet", "UNet1-1"])
    assert (
        f"not run: v19pUNet, v19pUNet+, v19pUNet1-1, cGv19pUNet1-1: pretrained: expected the ImageNet weights {FILES['vgg19']}" in printed
    )
    assert printed.count("scored with post-processing: largest") == 1
    assert "Models are chosen, and scored in the paper's table, with post-processing: largest." in caplog.text
    choice = read_json(results / "choice.json", Choice)
    assert (choice.metric, choice.rule, choice.max_members) == ("chaos", "best_mean", 1)
    assert all(len(members) == 1 for members in choice.organs.values())

    with_files = [*command, "--network-option", f'pretrained="{weights(tmp_path / "weights")}"']
    assert cli.run(with_files) == 0
    check_table(capsys.readouterr().out, [f"{one}pUNet1-1" for one in ("v16", "v19", "cGv16", "cGv19")])
    models = sorted(path.name for path in results.glob("2d__*__liver__*"))
    assert len(models) == 11
    adversarial = next(ModelFolder(results / name) for name in models if "cGv19pUNet1-1" in name).run("0")
    record = adversarial.record()
    assert record.configuration.sigmoid and record.trainer == "AdversarialTrainer" and record.trainer_options == {"weight": 150.0}
    options = TrainingOptions(loss="dice", optimizer="adam", learning_rate=1e-5, schedule="constant", weight_decay=0.0)
    assert record.options.loss == options.loss and record.options.learning_rate == options.learning_rate
    states, _ = load_checkpoint(adversarial.checkpoint)
    heads = [weight for name, weight in states["network"].items() if name.endswith("decoder.head.weight")]
    assert [len(one) for one in heads] == [1, 1]


@pytest.mark.slow
def test_organs_that_overlap_are_chosen_without_post_processing(tmp_path, capsys, caplog):
    write_oracle_dataset(tmp_path / "raw" / DATASET, regions=True)
    with caplog.at_level("INFO"):
        assert cli.run(["1", "--preset", "conze2021", "--models", "UNet", "--folds", "0", *TINY, "--home", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "no post-processing (largest), as organs of this dataset overlap" in caplog.text and "post-processing" not in printed
    assert len(re.findall(r"^MOvpUNet .*= UNet", printed, re.M)) == 2
    caplog.clear()
    again = ["1", "--preset", "conze2021", "--models", "UNet", "v16UNet", "--folds", "0", *TINY, "--home", str(tmp_path)]
    with caplog.at_level("INFO"):
        assert cli.run([*again, "--batch", "1", "--models", "v16UNet"]) == 0
    assert len(re.findall(r"^MOvpUNet .*= v16UNet", capsys.readouterr().out, re.M)) == 2, "of the models of this experiment"
    with caplog.at_level("INFO"):
        assert cli.run([*again, "--batch", "1"]) == 0
    assert "batch: 3 slices of CT, 5 of MR; runs 2 instead of 3 (UNet); 1 instead of 3 (v16UNet)" in caplog.text, "as they were started"


@pytest.mark.slow
def test_pictures_without_a_spacing_are_chosen_by_dice(tmp_path, capsys, caplog):
    folder = write_oracle_dataset(tmp_path / "raw" / DATASET, dim=2)
    for path in folder.glob("*Tr/*.json"):
        path.unlink()
    command = ["1", "--preset", "conze2021", "--models", "UNet", "--organs", "organ1", "--folds", "0", *TINY, "--home", str(tmp_path)]
    with caplog.at_level("INFO"):
        assert cli.run(command) == 0
    assert "models are chosen by dice, as chaos needs a spacing, which nobody knows" in caplog.text
    assert re.search(r"^Dice +organ1", capsys.readouterr().out, re.M)
    assert cli.run([*command, "--folds", "all", "--models", "v16UNet"]) == 0
    assert "no table: none of its models was validated on held-out cases" in capsys.readouterr().out


def check_table(printed: str, models: list[str]) -> None:
    """A block an organ with the paper's five columns, a scoreboard, and MOvpUNet below, which names its model."""
    for organ in ("liver", "spleen"):
        assert re.search(rf"^{organ} +Dice +RAVD .%. +ASSD .mm. +MSSD .mm. +score +cases", printed, re.M), organ
    for model in models:
        assert len(re.findall(rf"^{re.escape(model)}  ", printed, re.M)) == 3, model
    assert len(re.findall(r"^MOvpUNet .*= \S*UNet", printed, re.M)) == 2
    assert re.search(r"^CHAOS score +liver +spleen +all organs", printed, re.M)
