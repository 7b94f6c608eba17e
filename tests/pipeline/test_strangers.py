"""Folders from strangers: what SECURITY.md promises of results, preprocessed and dataset folders, one test a promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle_home import CONFIGURATION, DATASET, HomeFactory, oracle_case

from autoseg.data.images import write_image
from autoseg.pipeline import (
    PredictSettings,
    TrainSettings,
    find_best_configuration,
    predict,
    train,
    write_report,
)
from autoseg.runtime.checkpoints import load_checkpoint, save_checkpoint
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Choice


def edit(path: Path, **changes: Any) -> None:
    """Changes entries (``part.name``) of a JSON file as somebody would who knows the format."""
    content = json.loads(path.read_text())
    content.pop("digest", None)
    for name, value in changes.items():
        *parts, last = name.split("__")
        place = content
        for part in parts:
            place = place[part]
        place[last] = value
    path.write_text(json.dumps(content))


def fold_of(home: Path) -> Path:
    """The folder of the trained fold."""
    return next((home / "results" / DATASET).glob("*/fold_0"))


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that Python finds and that leaves a file behind when it is imported."""
    mark = tmp_path / "ran"
    (tmp_path / "stranger.py").write_text(f"open({str(mark)!r}, 'w').close()\nfrom oracle_home import Oracle\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "stranger", raising=False)
    return mark


def test_a_run_record_runs_no_code_unless_it_is_allowed(oracle_home: HomeFactory, stranger: Path, tmp_path: Path) -> None:
    home = oracle_home()
    image, label, geometry = oracle_case(9)
    write_image(tmp_path / "x.nii.gz", image[None], geometry)
    run = fold_of(home) / "run.json"
    for name in ("torch.hub:load", "stranger:Oracle"):
        edit(run, configuration__network=name)
        with pytest.raises(ValueError, match=f"run.json: network: .*{name}.*--allow-code {name.partition(':')[0]}"):
            predict(tmp_path / "x.nii.gz", home=home)
    assert not stranger.exists()
    found = predict(tmp_path / "x.nii.gz", home=home, settings=PredictSettings(allow_code=("stranger",), device="cpu"))
    assert stranger.exists()
    assert np.array_equal(np.asarray(__import__("SimpleITK").GetArrayFromImage(found)), label)


def test_neither_plan_nor_choice_run_code(oracle_home: HomeFactory, stranger: Path) -> None:
    home = oracle_home()
    preprocessed, results, fold = home / "preprocessed" / DATASET, home / "results" / DATASET, fold_of(home)
    for option in ("network", "normalization"):
        name = ["stranger:Oracle"] if option == "normalization" else "stranger:Oracle"
        plan = (preprocessed / "plan.json").read_text()
        edit(preprocessed / "plan.json", **{f"configurations__{CONFIGURATION[3]}__{option}": name})
        with pytest.raises(ValueError, match="--allow-code stranger"):
            train(1, CONFIGURATION[3], 1, TrainSettings(iterations=1, device="cpu", batch=1), home=home)
        (preprocessed / "plan.json").write_text(plan)
    run = fold / "run.json"
    record = run.read_text()
    edit(run, options__loss="stranger:Oracle")
    (fold / "checkpoint_final.pt").rename(home / "checkpoint.pt")
    settings = TrainSettings(network="oracle_home:Oracle", iterations=3, device="cpu", batch=1)
    with pytest.raises(ValueError, match="run.json.*--allow-code stranger"):
        train(1, CONFIGURATION[3], 0, settings, home=home)
    run.write_text(record)
    (home / "checkpoint.pt").rename(fold / "checkpoint_final.pt")
    for change in ({"rule": "stranger:Oracle"}, {"metric": "stranger:Oracle"}):
        edit(results / "choice.json", **change)
        write_json(results / "choice.json", read_json(results / "choice.json", Choice))  # with a digest, which a stranger can make, too
        with pytest.raises(ValueError, match="--allow-code stranger"):
            write_report(1, home=home, cases=0) if "metric" in change else choose_anew(home)
        find_best_configuration(1, home=home)
    assert not stranger.exists()


FEATURES = [4096] * 6
HUGE = {"features": FEATURES, "strides": [[1, 1, 1], *[[2, 2, 2]] * 5], "kernel_sizes": [[3, 3, 3]] * 6, "convs_per_stage": [9] * 6}
HUGE["decoder_convs"] = [9] * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"configuration__network_options": {"features": [32, 10**9]}}, "network_options: features: .*found 1000000000"),
        ({"configuration__network_options": {"a": {"b": [1e300]}}}, r"network_options: a: .*found 1e\+300"),
        ({"configuration__patch_size": [10**6] * 3}, r"patch_size.*found \(1000000, 1000000, 1000000"),
        ({"configuration__batch_size": 10**12}, "batch_size.*1000000000000"),
        ({"configuration__batch_size": -1}, "batch_size.*-1"),
        ({"configuration__patch_size": [16, 16, "16"]}, 'patch_size: expected a whole number, got "16"'),
        ({"configuration__slices": 10**9}, "slices.*1000000000"),
        (
            {"configuration__network": "plain_unet", "configuration__network_options": {"features": [-3]}},
            "(network 'plain_unet' cannot be built|strides: expected)",
        ),
        ({"configuration__width": 1e9}, "width: .*found 1000000000"),
        (
            {"configuration__network": "plain_unet", "configuration__network_options": HUGE},
            "network 'plain_unet': expected at most .* parameters",
        ),
    ],
    ids=lambda value: next(iter(value))[15:] if isinstance(value, dict) else None,
)
def test_sizes_are_checked_before_memory_is_taken(changes: dict[str, Any], message: str, oracle_home: HomeFactory, tmp_path: Path) -> None:
    home = oracle_home()
    image, _, geometry = oracle_case(9)
    write_image(tmp_path / "x.nii.gz", image[None], geometry)
    edit(fold_of(home) / "run.json", **changes)
    with pytest.raises(ValueError, match=f"run.json: .*{message}") as found:
        predict(tmp_path / "x.nii.gz", home=home, settings=PredictSettings(allow_code=("oracle_home",), device="cpu"))
    assert "\n" not in str(found.value)
    of_plan = {name.replace("configuration__", f"configurations__{CONFIGURATION[3]}__"): value for name, value in changes.items()}
    edit(home / "preprocessed" / DATASET / "plan.json", **of_plan)
    with pytest.raises(ValueError, match=f"plan.json: .*{message}"):
        train(1, CONFIGURATION[3], 1, TrainSettings(iterations=1, device="cpu"), home=home)


def test_a_checkpoint_that_does_not_fit_is_one_line_where_a_training_resumes(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    fold = fold_of(home)
    states, meta = load_checkpoint(fold / "checkpoint_final.pt")
    states = {"network": {"weight": torch.zeros(2, 3)}, "optimizer": {}, "scaler": {}, "random": torch.get_rng_state()}
    (fold / "checkpoint_final.pt").unlink()
    for wrong in (states, {"network": {}}, states | {"network": {"weight": torch.zeros(1)}}):
        save_checkpoint(fold / "checkpoint_latest.pt", wrong, meta)
        with pytest.raises(ValueError, match=r"checkpoint_latest.pt: its states do not fit this run \(.*--restart") as found:
            train(1, CONFIGURATION[3], 0, TrainSettings(network="oracle_home:Oracle", iterations=3, device="cpu", batch=1), home=home)
        assert "\n" not in str(found.value)


def choose_anew(home: Path) -> None:
    from autoseg.pipeline.choosing import choose_again

    choose_again(1, home=home)
