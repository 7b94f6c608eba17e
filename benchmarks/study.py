"""A study beside the same time split evenly by hand, on the same folds: Dice on the held-out cases that both share.

    python -m benchmarks.study DATASET --raw FOLDER --total 30m --folds 0 --out FOLDER [--device cpu]

Makes two homes below ``--out``, ``study`` and ``even``, which both find the dataset in ``--raw`` (a folder ``raw`` with it). The study is
``autoseg_run DATASET --total TIME --folds ...``. By hand: planning and preprocessing, then ``autoseg_train --time T`` for each
configuration and fold, ``T`` being an equal share of what the rest leaves: a tenth of the time is kept for validation and choice, as a
careful user would, and what these take beyond it is over the time, which the table shows. Both are judged by the cross-validation of their
choice: the chosen candidates' Dice over organs on held-out cases. Each part resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from autoseg.cli.units import duration
from autoseg.planners.configurations import selected_configurations
from autoseg.runtime.serialization import read_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Choice

KEPT = 0.1
"""Share of the time that is kept for validation and choice by hand."""


def command(words: Sequence[str], home: Path) -> float:
    """Runs a command of autoseg and gives its seconds."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "autoseg", *words, "--home", str(home)], check=False)
    return time.monotonic() - started


def prepared(home: Path, raw: Path) -> Path:
    """A home that finds the dataset in `raw`."""
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "raw").exists():
        os.symlink(raw.resolve(), home / "raw")
    return home


def study(dataset: str, home: Path, total: str, folds: Sequence[str], device: Sequence[str]) -> float:
    """Everything until one deadline; gives its seconds."""
    return command(["run", dataset, "--total", total, "--folds", *folds, *device], home)


def even(dataset: str, home: Path, total: float, folds: Sequence[str], device: Sequence[str]) -> float:
    """The same time split evenly by hand; gives its seconds."""
    spent = command(["plan_and_preprocess", "-d", dataset], home)
    name = next(path.parent.name for path in (home / "preprocessed").glob("*/plan.json"))
    plan = Workspace(home).plan(name)
    names = [one for one in selected_configurations((), plan) if plan.configurations[one].previous_stage is None]
    trainings = [(one, fold) for fold in folds for one in names]
    each = (total * (1 - KEPT) - spent) / len(trainings)
    for one, fold in trainings:
        spent += command(["train", dataset, one, fold, "--time", f"{each:.0f}s", *device], home)
    return spent + command(["find_best_configuration", dataset], home)


def dice_of(home: Path) -> dict[str, float]:
    """Organ to the mean Dice of its chosen candidate on held-out cases, and their mean."""
    choice = read_json(next((home / "results").glob("*/choice.json")), Choice)
    found = {organ: choice.table[" + ".join(members)][organ] for organ, members in choice.organs.items()}
    return {**found, "mean": sum(found.values()) / len(found)}


def main() -> None:
    """Runs both, and prints and writes what they reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--raw", type=Path, required=True, help="folder with the dataset's folder")
    parser.add_argument("--total", required=True, help="30m")
    parser.add_argument("--folds", nargs="+", default=["0"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    total, device = duration(options.total), ["--device", options.device]
    parts = {
        "study": lambda home: study(options.dataset, home, options.total, options.folds, device),
        "even": lambda home: even(options.dataset, home, total, options.folds, device),
    }
    rows = {}
    for name, part in parts.items():
        file = options.out / f"{name}.json"
        if not file.is_file():
            seconds = part(prepared(options.out / name, options.raw))
            file.write_text(json.dumps({"seconds": seconds, "dice": dice_of(options.out / name)}, indent=1))
        rows[name] = json.loads(file.read_text())
    print("| | minutes | mean Dice | by organ |\n|---|---|---|---|")
    for name, row in rows.items():
        organs = ", ".join(f"{organ} {value:.4f}" for organ, value in row["dice"].items() if organ != "mean")
        print(f"| {name} | {row['seconds'] / 60:.1f} | {row['dice']['mean']:.4f} | {organs} |")
    print(f"\nstudy minus even: {rows['study']['dice']['mean'] - rows['even']['dice']['mean']:+.4f}")


if __name__ == "__main__":
    main()
