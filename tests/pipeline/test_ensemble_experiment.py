"""The whole experiments of Crespi et al. and of Fang and Yan on the phantom, from one command each, with tiny networks and budgets."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import story_data

from autoseg import cli
from autoseg.data.phantom.dataset import make_phantom
from autoseg.pipeline.experiments import _averages
from autoseg.presets import PAPER_PRESETS
from autoseg.presets.paper_preset import PaperTable
from autoseg.runtime.runs import ModelFolder
from autoseg.schema import Score

quick_trainings = story_data.quick_trainings
TINY: dict[str, dict[str, Any]] = {
    "pipo_unet": {"features": [4, 8]},
    "pipo_resunet": {"features": [4, 8]},
    "dense_unet": {"growth_rate": 4, "blocks": [2, 2, 2], "stem": 8, "last_features": 8},
    "se_resunet": {"width": 4, "levels": 2, "reduction": 2},
    "deeplabv3": {"width": 4, "blocks": [1, 1, 1, 1], "pyramid_channels": 8},
    "": {"features": [4, 4, 8, 8, 8]},
}
SLICES = ["--slice-shape", "32", "32", "--patch", "16", "16"]
QUICK = ["--iterations", "2", "--batch", "2", "--device", "cpu"]


def with_tiny_networks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    preset = PAPER_PRESETS[name]
    tiny = lambda row: TINY.get(row.training.get("network", ""), TINY[""])  # noqa: E731
    rows = [
        replace(row, training={**row.training, "network_options": row.training.get("network_options", {}) | tiny(row)})
        for row in preset.rows
    ]
    monkeypatch.setitem(PAPER_PRESETS, name, replace(preset, rows=tuple(rows)))


def lines_of(printed: str, name: str) -> list[list[str]]:
    """The cells of the lines of a model."""
    return [line.removeprefix(name).split() for line in re.findall(rf"^{re.escape(name)}  .*$", printed, re.M)]


def test_averages_are_over_cases_and_then_over_organs_and_global_dice_over_voxels() -> None:
    """Organ a: two cases with 2 TP of 4 and of 100; organ b: one case; a model without b is averaged over a."""
    table = PaperTable(chosen="", metrics={"dice": "Dice", "global_dice": "Global"}, score="dice", averages=True)
    a = [Score("x", "a", 0.5, 1 / 3, 2, 2), Score("y", "a", 0.9, 0.8, 50, 50)]
    b = [Score("x", "b", 0.3, 0.2, 10, 10)]
    lines = _averages(table, {"both": {"a": a, "b": b}, "one": {"a": a}}, ["a", "b", "never"])
    assert [line.split() for line in "\n".join(lines).splitlines() if line] == [
        ["average", "of", "the", "organs", "Dice", "Global", "cases"],
        ["both", "0.5000", f"{((0.5 * 4 + 0.9 * 100) / 104 + 0.3) / 2:.4f}", "2"],
        ["one", "0.7000", f"{(0.5 * 4 + 0.9 * 100) / 104:.4f}", "2"],
        ["Dice", "a", "b"],
        ["both", "0.7000", "0.3000"],
        ["one", "0.7000", "-"],
    ]


@pytest.mark.slow
def test_crespis_models_ensembles_and_table(tmp_path: Path, monkeypatch, capsys, caplog) -> None:
    make_phantom(tmp_path / "raw/Dataset900_Phantom", n_train=10, n_test=0, seed=0, size=0.3)
    with_tiny_networks(monkeypatch, "crespi2023")
    slices = ["--center-crop", "24", "26", "--patch", "16", "16"]
    command = [
        "900",
        "--preset",
        "crespi2023",
        "--organs",
        "liver",
        "spleen",
        "--folds",
        "0",
        "1",
        *QUICK,
        *slices,
        "--home",
        str(tmp_path),
    ]
    command += ["--models", *(row.name for row in PAPER_PRESETS["crespi2023"].rows), "redundant-Layer-Fusion", "multiclass-Meta-U-Net"]
    with caplog.at_level("INFO"):
        assert cli.run(command) == 0
    results, printed = tmp_path / "results/Dataset900_Phantom", capsys.readouterr().out
    assert "In all 18 trainings" in caplog.text and "Then the ensembles Argmax, Layer Fusion, Logits Conc., Meta U-Net" in caplog.text
    assert len(list(results.glob("2d__*/fold_*/validation/scores.json"))) == 18
    assert {path.name.split("__")[1] for path in results.glob("ensemble__*")} == {"Argmax", "Fusion", "Logits", "Meta"}
    members = ModelFolder(next(results.glob("ensemble__Logits*"))).run("0").record().ensemble.members
    assert len(members) == 2 and all("__binary-" in name for name in members), "the best of each organ among the binary models"
    assert re.search(r"^average of the organs +Dice +Precision +Recall +HD95 .mm. +cases", printed, re.M)
    assert re.search(r"^Dice +liver +spleen", printed, re.M)
    for name in ("U-Net", "SE-ResUNet", "DeepLabV3", "binary-U-Net", "Argmax", "Layer Fusion", "Logits Conc.", "Meta U-Net", *command[-2:]):
        average, by_organ = lines_of(printed, name)
        assert (len(average), len(by_organ)) == (5, 2), name
    record = ModelFolder(results / members[0]).run("0").record()
    assert record.configuration.center_crop == (24, 26) and record.configuration.normalization[0].startswith("window8:")
    assert (record.options.schedule, record.options.early_stopping, record.configuration.sigmoid) == ("plateau", 50, True)
    assert cli.run(command) == 0, "the same command again"


@pytest.mark.slow
def test_fangs_network_what_it_is_compared_with_and_its_ablations(tmp_path: Path, monkeypatch, capsys) -> None:
    make_phantom(tmp_path / "raw/Dataset900_Phantom", n_train=5, n_test=0, seed=0, size=0.3)
    with_tiny_networks(monkeypatch, "fang2020")
    models = [row.name for row in PAPER_PRESETS["fang2020"].rows]
    command = [
        "900",
        "--preset",
        "fang2020",
        "--models",
        *models,
        "--folds",
        "0",
        *QUICK,
        "--slice-shape",
        "32",
        "32",
        "--patch",
        "16",
        "16",
    ]
    assert cli.run([*command, "--home", str(tmp_path)]) == 0
    printed, results = capsys.readouterr().out, tmp_path / "results/Dataset900_Phantom"
    assert re.search(r"^average of the organs +Avg. Dice +Glb. Dice +cases", printed, re.M)
    assert all(len(lines_of(printed, name)) == 2 for name in models)
    assert "scored with post-processing: largest\n" in printed, "whose kidneys are two organs"
    record = ModelFolder(next(results.glob("2.5d__PyramidTrainer__*PIPO-FAN"))).run("0").record()
    assert (record.configuration.slice_shape, record.configuration.patch_size) == ((32, 32), (16, 16))
    assert record.options.organ_slices and (record.options.optimizer, record.options.momentum) == ("rmsprop", 0.0)
