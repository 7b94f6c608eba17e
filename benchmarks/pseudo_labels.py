"""What unlabelled images add: a few labelled cases alone, and with pseudo-labels of all other training images, in the same minutes.

    python benchmarks/pseudo_labels.py --home HOME -d 4 --time 600 [--labelled 20] [--folds 0]

HOME holds the dataset, planned. Of the training cases of its fold 0 a few (drawn by chance) keep their label maps, the others lose
them. All models are judged on the held-out cases of that fold, which none of them, and no choice or calibration, has seen. In HOME/pseudo,
in this order: models of the labelled cases alone; the choice and calibration by their own cross-validation; models with pseudo-labels in
the same time; models of the labelled cases alone in twice the time, which is what both together took. The same command goes on where it
was stopped.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.data.descriptions import planned_dataset
from autoseg.data.images import ending_of
from autoseg.evaluation.folders import mean_dice, summary
from autoseg.evaluation.statistics import wilcoxon
from autoseg.pipeline import (
    PlanSettings,
    PredictSettings,
    TrainSettings,
    evaluate_folders,
    find_best_configuration,
    plan_and_preprocess,
    predict_folder,
    train,
)
from autoseg.runtime.serialization import write_json
from autoseg.runtime.workspace import find_workspace
from autoseg.schema import Case, Score

NAME = "Dataset791_FewLabels"


def write_dataset(home: Path, which: str, folder: Path, labelled: int) -> None:
    """The dataset with a few labelled cases (``imagesTr``), the others in ``imagesUn``, and the held-out ones in ``imagesTs``."""
    workspace = find_workspace(home)
    dataset = planned_dataset(workspace, which)
    split = workspace.splits(dataset.name)[0]
    cases = {case.name: case for case in dataset.cases}
    order = [split.train[index] for index in np.random.default_rng(0).permutation(len(split.train))]
    for part, names in (("Tr", order[:labelled]), ("Un", order[labelled:]), ("Ts", split.val)):
        for name in names:
            _copy(cases[name], folder, part)
    organs = dict(zip(dataset.labels.names, (list(m) if dataset.labels.regions else m[0] for m in dataset.labels.members), strict=True))
    info = {"channel_names": {str(number): name for number, name in enumerate(dataset.channels)}, "labels": {"background": 0, **organs}}
    if dataset.labels.regions:
        info["regions_class_order"] = list(dataset.labels.regions_class_order)
    write_json(folder / "dataset.json", {**info, "numTraining": labelled, "file_ending": dataset.file_ending}, digest=False)


def _copy(case: Case, folder: Path, part: str) -> None:
    for number, image in enumerate(case.images):
        target = folder / f"images{part}" / f"{case.name}_{number:04d}{ending_of(image)}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, target)
    if part != "Un" and case.label is not None:
        target = folder / f"labels{part}" / f"{case.name}{ending_of(case.label)}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(case.label, target)


def trained(options: argparse.Namespace, home: Path) -> dict[str, str]:
    """Trains what is missing; gives what is compared with the model's name."""
    common: dict[str, Any] = {"seconds": options.time, "iterations": options.iterations, "device": options.device, "batch": options.batch}
    word = ""
    if options.features:
        common |= {"network": "plain_unet", "network_options": {"features": options.features}}
        word = "__plain_unet"
    twice = {name: None if common[name] is None else 2 * common[name] for name in ("seconds", "iterations")}
    model = f"{options.configuration}__Trainer{word}"
    for fold in options.folds:
        train(NAME, options.configuration, fold, TrainSettings(**common), home=home)
    student = home / "results" / NAME / f"{model}__pseudo"
    if not student.is_dir():
        find_best_configuration(NAME, home=home)
    for fold in options.folds:
        train(NAME, options.configuration, fold, TrainSettings(**common, pseudo_labels=True), home=home)
    for fold in options.folds:
        train(NAME, options.configuration, fold, TrainSettings(**common | twice, tag="twice"), home=home)
    return {"labelled alone": model, "with pseudo-labels": f"{model}__pseudo", "labelled alone, twice the time": f"{model}__twice"}


def judged(options: argparse.Namespace, home: Path, model: str) -> list[Score]:
    """Scores of the held-out cases."""
    raw, out = home / "raw" / NAME, home / "predictions" / model
    settings = PredictSettings(dataset=NAME, model=model, folds=tuple(options.folds), device=options.device)
    failures = predict_folder(raw / "imagesTs", out, settings, home=home)
    if failures:
        raise RuntimeError(f"{model}: {failures}")
    return evaluate_folders(raw / "labelsTs", out)


def by_case(scores: list[Score]) -> np.ndarray:
    """Mean Dice of each case's organs, by the cases' names."""
    return np.array([np.nanmean([one.dice for one in scores if one.case == case]) for case in sorted({one.case for one in scores})])


def main() -> None:
    """Prints a row a model, and the paired differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("-d", "--dataset", default="4")
    parser.add_argument("-c", "--configuration", default="3d_fullres")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--time", type=float, help="seconds of each training")
    budget.add_argument("--iterations", type=int)
    parser.add_argument("--labelled", type=int, default=20)
    parser.add_argument("--folds", nargs="+", default=["0"])
    parser.add_argument("--features", nargs="+", type=int, help="of a plain U-Net, level by level; the planned network by default")
    parser.add_argument("--batch", type=int, help="as planned by default")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    home = options.home / "pseudo"
    if not (home / "raw" / NAME / "dataset.json").is_file():
        write_dataset(options.home, options.dataset, home / "raw" / NAME, options.labelled)
    plan_and_preprocess(NAME, PlanSettings(configurations=(options.configuration,)), home=home)
    found = {what: judged(options, home, model) for what, model in trained(options, home).items()}
    print("| model | mean Dice | per organ |\n|---|---:|---|")
    for what, scores in found.items():
        each = ", ".join(f"{organ} {one.dice:.4f}" for organ, one in summary(scores).items())
        print(f"| {what} | {mean_dice(scores):.4f} | {each} |")
    mean = {what: by_case(scores) for what, scores in found.items()}
    for other in ("labelled alone", "labelled alone, twice the time"):
        gain = mean["with pseudo-labels"] - mean[other]
        print(f"with pseudo-labels - {other}: {np.mean(gain):+.4f}, p = {wilcoxon(gain):.1g}, better in {np.sum(gain > 0)} of {len(gain)}")


if __name__ == "__main__":
    main()
