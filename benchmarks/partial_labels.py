"""What the target adaptive loss makes of partial labels: every training case keeps one organ, and the others' are erased.

    python benchmarks/partial_labels.py --home HOME -d 4 [--iterations 1200] [--configuration 3d_fullres]

Three models see the same cases in the same order and are judged on the same, fully annotated, held-out cases of fold 0: with all labels;
with one organ a case, dealt out by chance, and `annotated` in ``dataset.json`` saying which; and with the same label maps without a
word, so that the erased organs pass for background. HOME holds the dataset, planned; the three are made and trained in HOME/partial.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from autoseg.data.descriptions import planned_dataset
from autoseg.data.images import read_label, write_label
from autoseg.evaluation.folders import mean_dice, summary
from autoseg.evaluation.statistics import wilcoxon
from autoseg.pipeline import PlanSettings, TrainSettings, plan_and_preprocess, train
from autoseg.runtime.serialization import write_json
from autoseg.runtime.workspace import find_workspace
from autoseg.schema import Case, Dataset, Score, Split

KINDS = ("full", "target adaptive", "as background")
NETWORK = {"network": "plain_unet", "network_options": {"features": [16, 32, 64, 128]}}


def dealt_out(dataset: Dataset, split: Split) -> dict[str, str]:
    """Training case to the one organ that stays annotated."""
    order = np.random.default_rng(0).permutation(len(split.train))
    names = dataset.labels.names
    return {split.train[index]: names[place % len(names)] for place, index in enumerate(order)}


def write_dataset(dataset: Dataset, split: Split, folder: Path, kind: str) -> None:
    """The dataset of one kind: images are referred to, label maps of training cases are written anew where organs are erased."""
    keeps = {} if kind == "full" else dealt_out(dataset, split)
    info = json.loads((dataset.folder / "dataset.json").read_text(encoding="utf-8"))
    entries = {}
    for case in dataset.cases:
        label = case.label
        if case.name in keeps:
            label = folder / "labelsTr" / f"{case.name}.nii.gz"
            _erase(case, dataset, keeps[case.name], label)
        entries[case.name] = {"images": [str(path) for path in case.images], "label": str(label)}
    info["dataset"] = entries
    if kind == "target adaptive":
        info["annotated"] = {name: [organ] for name, organ in keeps.items()}
    write_json(folder / "dataset.json", info)


def _erase(case: Case, dataset: Dataset, organ: str, path: Path) -> None:
    label = read_label(case.label)
    values = dataset.labels.members[dataset.labels.names.index(organ)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_label(path, np.where(np.isin(label.array, values), label.array, 0).astype(label.array.dtype), label.geometry)


def trained(options: argparse.Namespace, number: int, kind: str) -> list[Score]:
    """Scores of the held-out cases of a model of this kind; goes on where it was stopped."""
    workspace = find_workspace(options.home)
    dataset = planned_dataset(workspace, options.dataset)
    splits = workspace.splits(dataset.name)
    name = f"Dataset{number:03d}_{kind.title().replace(' ', '')}"
    home = options.home / "partial"
    if not (home / "raw" / name / "dataset.json").is_file():
        write_dataset(dataset, splits[0], home / "raw" / name, kind)
    plan_and_preprocess(name, PlanSettings(configurations=(options.configuration,)), home=home)
    write_json(home / "preprocessed" / name / "splits.json", splits)
    settings = TrainSettings(iterations=options.iterations, batch=options.batch, **NETWORK)
    return train(name, options.configuration, 0, settings, home=home)


def main() -> None:
    """Prints a row a kind, and the paired differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("-d", "--dataset", default="4")
    parser.add_argument("-c", "--configuration", default="3d_fullres")
    parser.add_argument("--iterations", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=2)
    options = parser.parse_args()
    found = {kind: trained(options, 700 + number, kind) for number, kind in enumerate(KINDS)}
    print("| labels | mean Dice | per organ | sensitivity | precision |\n|---|---:|---|---:|---:|")
    for kind, scores in found.items():
        organs = summary(scores)
        both = [float(np.mean([one.means[metric] for one in organs.values()])) for metric in ("sensitivity", "precision")]
        each = ", ".join(f"{organ} {one.dice:.4f}" for organ, one in organs.items())
        print(f"| {kind} | {mean_dice(scores):.4f} | {each} | {both[0]:.4f} | {both[1]:.4f} |")
    dice = {kind: {(one.case, one.organ): one.dice for one in scores} for kind, scores in found.items()}
    cases = sorted({case for case, _ in dice["full"]})
    per_case = {kind: np.array([np.nanmean([v for (c, _), v in one.items() if c == case]) for case in cases]) for kind, one in dice.items()}
    for other in ("full", "as background"):
        difference = per_case["target adaptive"] - per_case[other]
        print(f"target adaptive - {other}: {np.mean(difference):+.4f}, p = {wilcoxon(difference):.1g}, better in {np.sum(difference > 0)}")


if __name__ == "__main__":
    main()
