"""How well the Dice of images unlike the training images is estimated: train on all groups of patients but one, predict that one.

    python benchmarks/unlike_training.py --dataset raw/Dataset027_ACDC --out OUT --groups 'patient0(0|1|20)' 'patient0(2[1-9]|3|40)' ...

Each group is a regular expression that finds its patients (cases, where the dataset names no patients) by the beginning of their names.
For each, a home in OUT gets a copy of the dataset in which the group's cases are test images; it is planned, three folds of one
configuration are trained, chosen and predict the group. An interrupted run goes on. Printed are, by organ, the true mean Dice, Spearman's
correlation of the estimated with the true Dice, the mean absolute error, and how many of the 20 worst cases are among the first 20 that
the estimate names: with a line through the expected Dice alone (as version 0.1.0 did) and with all features. Below the table stand masks
that are wholly wrong (true Dice below 0.05) with their place in the order of estimates, and good ones (above 0.7) that were given a low
estimate for where they lie.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

import autoseg
from autoseg.data.datasets import load_dataset
from autoseg.inference.manifest import MANIFEST
from autoseg.inference.organ_statistics import OrganStatistics
from autoseg.inference.uncertainty import OrganUncertainty
from autoseg.pipeline import evaluate_folders
from autoseg.runtime.serialization import from_jsonable, read_json
from autoseg.schema import Choice, DiceRegression, Plan
from autoseg.schema.settings import PlanSettings, PredictSettings, TrainSettings
from autoseg.selection.dice_regression import estimated_dice
from autoseg.selection.usual_places import possible_dice

NAME = "Dataset001_Unlike"
FOLDS = 3
WORST = 20
WHOLLY_WRONG, GOOD = 0.05, 0.7
"""True Dice below and above which masks are listed."""


@dataclass(frozen=True)
class Estimates:
    """Of one organ in the predicted cases ``(cases,)``: true Dice, the Dice estimated by a line and by all features, what place allows."""

    true: np.ndarray
    line: np.ndarray
    features: np.ndarray
    place: np.ndarray


def copy_split(dataset: Path, home: Path, group: str) -> None:
    """Copies a dataset into a home, with the cases of a group of patients as test images beside their references."""
    raw = home / "raw" / NAME
    if (raw / "dataset.json").is_file():
        return
    described = json.loads((dataset / "dataset.json").read_text())
    kept = {}
    for case in load_dataset(dataset).cases:
        patient = case.group or case.name
        part = "Ts" if re.match(group, patient) else "Tr"
        if part == "Tr":
            kept[case.name] = patient
        if case.label is None:
            raise ValueError(f"case {case.name}: expected a label map, by which its estimate is judged, found none")
        for path, folder in [*((image, f"images{part}") for image in case.images), (case.label, f"labels{part}")]:
            (raw / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, raw / folder)
    (raw / "dataset.json").write_text(json.dumps(described | {"groups": kept, "numTraining": len(kept)}))


def write_splits(home: Path) -> None:
    """Replaces the planned folds by `FOLDS` ones, each patient's cases in one of them."""
    groups = json.loads((home / "raw" / NAME / "dataset.json").read_text())["groups"]
    patients = np.random.default_rng(0).permutation(sorted(set(groups.values()))).tolist()
    parts = [set(patients[number::FOLDS]) for number in range(FOLDS)]
    splits = [
        {"train": sorted(c for c in groups if groups[c] not in part), "val": sorted(c for c in groups if groups[c] in part)}
        for part in parts
    ]
    (home / "preprocessed" / NAME / "splits.json").write_text(json.dumps(splits))


def train_and_predict(home: Path, configuration: str, seconds: float, *, mirror: bool) -> None:
    """Plans, trains, chooses, and predicts the test images into ``out``."""
    if not (home / "preprocessed" / NAME / "splits.json").is_file():
        autoseg.plan_and_preprocess(NAME, PlanSettings(configurations=(configuration,)), home=home)
        write_splits(home)
    for fold in range(FOLDS):
        autoseg.train(NAME, configuration, fold, TrainSettings(seconds=seconds), home=home)
    autoseg.find_best_configuration(NAME, home=home)
    settings = PredictSettings(dataset=NAME, mirror=mirror)
    autoseg.predict_folder(home / "raw" / NAME / "imagesTs", home / "out", settings, home=home)


def estimates_of(home: Path, name: str = NAME) -> dict[str, Estimates]:
    """Organ to the estimates of what was predicted, beside the true Dice."""
    choice = read_json(home / "results" / name / "choice.json", Choice)
    cases = read_json(home / "out" / MANIFEST, dict)["cases"].values()
    rows = [from_jsonable(row, OrganUncertainty) for case in cases for row in case["findings"]]
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    labels = read_json(home / "results" / name / "plan.json", Plan).labels
    scores = {(one.case, one.organ): one.dice for one in evaluate_folders(home / "raw" / name / "labelsTs", home / "out", labels)}
    for row in rows:
        regression = choice.dice_regression[row.organ]
        line = DiceRegression(regression.slope, regression.intercept, regression.error, regression.correlation, regression.cases)
        mask = row.statistics or OrganStatistics(row.expected_dice)
        true, usual = scores[row.case, row.organ], regression.place
        place = 1.0 if usual is None or mask.place is None else possible_dice(mask.place, usual)
        if not np.isnan(true):
            found.setdefault(row.organ, []).append((true, estimated_dice(line, mask), estimated_dice(regression, mask), place))
    return {organ: Estimates(*np.array(some).T) for organ, some in found.items()}


def describe(true: np.ndarray, estimated: np.ndarray) -> str:
    """Correlation, mean error, and how many of the worst cases are named first; without an estimate a case is named last."""
    ranks = np.where(np.isnan(estimated), 2.0, estimated)
    worst, first = (set(np.argsort(values, kind="stable")[:WORST]) for values in (true, ranks))
    error = np.nanmean(np.abs(estimated - true))
    return f"{spearmanr(ranks, true).statistic:.2f} | {error:.3f} | {len(worst & first)}"


def print_table(groups: dict[str, dict[str, Estimates]]) -> None:
    """Prints a row for each organ of each group, and of all groups together."""
    print(
        "| tested on | organ | true Dice | before: correlation | error | worst 20 | now: estimated Dice | correlation | error | worst 20 |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    pooled: dict[str, list[Estimates]] = {}
    for group, organs in groups.items():
        for organ, one in organs.items():
            pooled.setdefault(organ, []).append(one)
            print(_row(group, organ, one))
    if len(groups) > 1:
        for organ, some in pooled.items():
            joined = (np.concatenate([getattr(one, name) for one in some]) for name in ("true", "line", "features", "place"))
            print(_row("all", organ, Estimates(*joined)))


def _row(group: str, organ: str, one: Estimates) -> str:
    before, now = describe(one.true, one.line), describe(one.true, one.features)
    return f"| {group} | {organ} | {one.true.mean():.3f} | {before} | {np.nanmean(one.features):.3f} | {now} |"


def print_wholly_wrong(groups: dict[str, dict[str, Estimates]]) -> None:
    """Prints where wholly wrong masks come in the order of estimates, and how many good ones are out of place."""
    for group, organs in groups.items():
        for organ, one in organs.items():
            order = np.argsort(np.argsort(np.where(np.isnan(one.features), 2.0, one.features), kind="stable"), kind="stable") + 1
            for case in np.flatnonzero(one.true < WHOLLY_WRONG):
                print(f"{group}, {organ}: true Dice {one.true[case]:.2f}, estimated {one.features[case]:.2f}, number {order[case]}")
    good = [one.place[one.true > GOOD] for organs in groups.values() for one in organs.values()]
    lowered = sum(int((places < 1).sum()) for places in good)
    print(f"Good masks (true Dice above {GOOD}) whose estimate is lower for where they lie: {lowered} of {sum(map(len, good))}")


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="dataset folder")
    parser.add_argument(
        "--groups", nargs="+", required=True, metavar="REGEX", help="beginnings of the patients' names; each group is tested on"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for one home a group")
    parser.add_argument("-c", "--configuration", default="2d")
    parser.add_argument("--time", type=float, default=300.0, help="seconds a fold")
    parser.add_argument("--no-tta", action="store_true", help="predict without mirroring, which is faster")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = {}
    for number, group in enumerate(options.groups):
        home = options.out / str(number)
        copy_split(options.dataset, home, group)
        train_and_predict(home, options.configuration, options.time, mirror=not options.no_tta)
        found[group] = estimates_of(home)
    print_table(found)
    print_wholly_wrong(found)


if __name__ == "__main__":
    main()
