"""What `autoseg_run` refuses, and how early: before a dataset is measured, and before the first training."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import write_dataset

from autoseg import cli

NAME = "Dataset003_Balls"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "raw" / NAME, [f"case_{number}" for number in range(5)])
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--organs", "BALL"], "organ: expected one of ball, block, got 'BALL'. Did you mean 'ball'?"),
        (["--preset", "conze2021", "--organs", "blok", "--models", "UNet"], "Did you mean 'block'?"),
        (["--network", "vgg16_unett"], "Did you mean 'vgg16_unet'?"),
        (["-tr", "AdversialTrainer"], "Did you mean 'AdversarialTrainer'?"),
        (["--loss", "dice_topp"], "Did you mean 'dice_topk'?"),
        (["--training-option", "mirror_prob=0"], "mirror_probability"),
        (["--pretrained", "nowhere.pt"], "nowhere.pt"),
        (["--folds", "0", "zero"], "--folds: expected numbers of folds, or all, got 'zero'"),
    ],
)
def test_what_no_plan_would_make_right_is_refused_before_planning(home, capsys, words, message):
    assert cli.run(["3", *words, "--home", str(home)]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in home.iterdir()] == ["raw"], "nothing was measured or written"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "0", "7"], "fold: expected 0 to 4 or all, got '7'"),
        (["--sources", "Dataset001_Other"], "--sources: source of Dataset003_Balls: expected one of"),
        (["--preset", "fang2020"], "its numbers are Hounsfield units, expected a channel of CT"),
        (["--preset", "crespi2023", "--organs", "ball"], "add --normalization zscore"),
        (["--patch", "32"], "--patch: expected 2 sizes for 2d, got 32"),
        (["-c", "2d", "3d_lowres"], "autoseg_plan_and_preprocess -d Dataset003_Balls --force-lowres"),
    ],
)
def test_what_this_plan_cannot_do_is_refused_before_cases_are_preprocessed(home, capsys, words, message):
    assert cli.run(["3", "-c", "2d", "--iterations", "1", "--device", "cpu", "--workers", "0", *words, "--home", str(home)]) == 2
    assert message in capsys.readouterr().err
    assert not (home / "results").exists()
    assert sorted(path.name for path in (home / "preprocessed" / NAME).iterdir() if path.suffix != ".lock") == [
        "fingerprint.json",
        "fingerprint.stamp.json",
    ]


def test_after_planning_for_a_paper_the_next_command_trains_for_it(home, capsys):
    assert cli.plan_and_preprocess(["-d", "3", "--preset", "roth2018", "--workers", "0", "--home", str(home)]) == 0
    assert f"Next: autoseg_train {NAME} 3d_cascade 0 --preset roth2018\n" in capsys.readouterr().out


def test_the_plan_is_not_blamed_for_a_network_that_was_named(home, capsys):
    assert cli.plan_and_preprocess(["-d", "3", "-c", "3d_fullres", "--workers", "0", "--home", str(home)]) == 0
    words = ["--network", "vgg16_unet", "--network-option", "pretrained=imagenet", "--iterations", "1", "--device", "cpu"]
    assert cli.train(["3", "3d_fullres", "0", *words, "--home", str(home)]) == 2
    said = capsys.readouterr().err
    assert "this network is 3D; expected none (--network-option pretrained=null)" in said and "plan.json" not in said
    assert not (home / "results").exists()


def test_the_plan_is_not_blamed_for_options_that_were_named(home, capsys):
    assert cli.plan_and_preprocess(["-d", "3", "-c", "3d_fullres", "--workers", "0", "--home", str(home)]) == 0
    words = ["--network-option", "features=[8]", "--iterations", "1", "--device", "cpu"]
    assert cli.train(["3", "3d_fullres", "0", *words, "--home", str(home)]) == 2
    said = capsys.readouterr().err
    assert "in features" in said and "plan.json" not in said
