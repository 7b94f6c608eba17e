"""Folders from strangers: what SECURITY.md promises of results, preprocessed and dataset folders, one test a promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
    edit(run, trainer="stranger:Oracle", options__loss="stranger:Oracle")
    (fold / "checkpoint_final.pt").rename(home / "checkpoint.pt")
    settings = TrainSettings(network="oracle_home:Oracle", iterations=3, device="cpu", batch=1)
    with pytest.raises(ValueError, match="run.json.*--allow-code stranger"):
        train(1, CONFIGURATION[3], 0, settings, home=home)
    run.write_text(record)
    (home / "checkpoint.pt").rename(fold / "checkpoint_final.pt")
    for change in ({"rule": "stranger:Oracle"}, {"metric": "stranger:Oracle"}):
        edit(results / "choice.json", **change)
        with pytest.raises(ValueError, match="--allow-code stranger"):
            write_report(1, home=home, cases=0) if "metric" in change else choose_anew(home)
        find_best_configuration(1, home=home)
    assert not stranger.exists()


def choose_anew(home: Path) -> None:
    from autoseg.pipeline.choosing import choose_again

    choose_again(1, home=home)
