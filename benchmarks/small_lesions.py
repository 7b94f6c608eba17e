"""What losses and case sampling do for a lesion of 30 voxels: Dice, lesions found and false ones, three seeds each.

    python benchmarks/small_lesions.py --home HOME [--iterations 1200] [--seeds 0 1 2] [--only dice_ce dice_topk ...]

The phantom is made in HOME: noisy volumes of 16 x 32 x 32 voxels with an organ, and in one of three lesions of exactly 30 voxels each, a
little darker than the organ; bright specks, which are no lesions, are in all. All models see the same cases, and are judged on the same
held-out ones. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from autoseg.data.images import read_label, write_image, write_label
from autoseg.pipeline import PlanSettings, TrainSettings, plan_and_preprocess, train
from autoseg.runtime.runs import ModelFolder
from autoseg.runtime.serialization import write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Geometry, Split

NAME, CONFIGURATION, SHAPE, VOXELS = "Dataset790_SmallLesions", "3d_fullres", (16, 32, 32), 30
TRAINING, HELD_OUT = 24, 24
VARIANTS: dict[str, dict[str, Any]] = {
    "dice_ce": {},
    "dice_topk": {"loss": "dice_topk"},
    "dice_focal": {"loss": "dice_focal"},
    "tversky_ce": {"loss": "tversky_ce"},
    "focal_tversky": {"loss": "focal_tversky"},
    "dice_boundary_ce": {"loss": "dice_boundary_ce"},
    "rare_organs": {"case_sampling": "rare_organs"},
    "dice_topk, rare_organs": {"loss": "dice_topk", "case_sampling": "rare_organs"},
}
"""Name to training options; the first is without any of it."""


def phantom(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image ``(Z, Y, X)`` float32 and label map: organ 1, lesions 2."""
    rng = np.random.default_rng([790, number])
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    middle = [n / 2 + rng.uniform(-2, 2) for n in SHAPE]
    radii = [n * rng.uniform(0.3, 0.38) for n in SHAPE]
    distance = sum(((axis - at) / radius) ** 2 for axis, at, radius in zip(axes, middle, radii, strict=True))
    labels = (distance < 1).astype(np.uint8)
    inside, bright = np.argwhere(distance < 0.5), np.zeros(SHAPE, bool)
    for kind in ["speck"] * 3 + ["lesion"] * (2 if number % 3 == 0 else 0):
        at = inside[rng.integers(len(inside))]
        nearest = np.argsort(sum((axis - one) ** 2 for axis, one in zip(axes, at, strict=True)).ravel(), kind="stable")[:VOXELS]
        if kind == "lesion" and (labels.ravel()[nearest] == 1).all():
            labels.ravel()[nearest] = 2
        elif kind == "speck":
            bright.ravel()[nearest] = True
    image = ndimage.gaussian_filter(np.choose(labels, [0.0, 3.0, 1.9]) + 1.1 * (bright & (labels == 1)), 0.6)
    return (image + ndimage.gaussian_filter(rng.normal(0, 1.1, SHAPE), 0.5)).astype(np.float32), labels


def write_dataset(home: Path) -> None:
    """Writes the phantom, plans it, and makes one fold of the two halves of its cases."""
    folder = home / "raw" / NAME
    names = [f"case_{number:02d}" for number in range(TRAINING + HELD_OUT)]
    if not (folder / "dataset.json").is_file():
        geometry = Geometry(SHAPE, (1.0,) * 3, (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
        for number, name in enumerate(names):
            image, labels = phantom(number)
            write_image(folder / "imagesTr" / f"{name}_0000.nii.gz", image[None], geometry)
            write_label(folder / "labelsTr" / f"{name}.nii.gz", labels, geometry)
        info = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1, "lesion": 2}, "file_ending": ".nii.gz"}
        write_json(folder / "dataset.json", {**info, "numTraining": len(names)}, digest=False)
    preprocessed = Workspace(home).preprocessed(NAME)
    if not (preprocessed / "plan.json").is_file():
        plan_and_preprocess(NAME, PlanSettings(configurations=(CONFIGURATION,)), home=home)
        write_json(preprocessed / "splits.json", [Split(tuple(names[:TRAINING]), tuple(names[TRAINING:]))], digest=False)


def lesions(model: ModelFolder, home: Path) -> tuple[float, int, int, int]:
    """Mean Dice of the lesions of held-out cases that have some, lesions found (by a voxel at least), lesions there, false ones."""
    dice, found, there, false = [], 0, 0, 0
    run = model.run("0")
    for case in run.record().split.val:
        reference = home / "raw" / NAME / "labelsTr" / f"{case}.nii.gz"
        truth, predicted = (read_label(path).array == 2 for path in (reference, run.label_map(case, ".nii.gz")))
        parts, count = ndimage.label(truth)
        found += len(np.unique(parts[predicted & truth]))
        there += count
        islands, many = ndimage.label(predicted)
        false += many - len(np.unique(islands[predicted & truth]))
        if count:
            dice.append(2 * (truth & predicted).sum() / (truth.sum() + predicted.sum()))
    return float(np.mean(dice)), found, there, false


def trained(options: argparse.Namespace, tag: str, seed: int, changes: dict[str, Any]) -> tuple[float, int, int, int]:
    """Trains one model, or what is missing of it; gives `lesions`."""
    workspace = Workspace(options.home)
    planned = workspace.plan(NAME).configurations[CONFIGURATION].network_options["features"]
    small = {"network": "plain_unet", "network_options": {"features": [max(8, n // 4) for n in planned]}}
    settings = TrainSettings(iterations=options.iterations, batch=options.batch, seed=seed, tag=tag, options=changes, **small)
    train(NAME, CONFIGURATION, 0, settings, home=options.home)
    return lesions(ModelFolder.named(workspace.results(NAME), CONFIGURATION, "Trainer", ("plain_unet", tag)), options.home)


def main() -> None:
    """Trains what is missing, and prints a row a variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--iterations", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    options = parser.parse_args()
    write_dataset(options.home)
    print("| variant | Dice of lesions, seed by seed | mean | found | false lesions |\n|---|---|---:|---:|---:|", flush=True)
    for variant in options.only:
        word = variant.replace(", ", "-").replace("_", "-")
        rows = [trained(options, f"{word}-{options.iterations}-seed{seed}", seed, VARIANTS[variant]) for seed in options.seeds]
        dice, found, there, false = zip(*rows, strict=True)
        each = ", ".join(f"{one:.3f}" for one in dice)
        print(f"| {variant} | {each} | {np.mean(dice):.3f} | {sum(found)} of {sum(there)} | {sum(false)} |", flush=True)


if __name__ == "__main__":
    main()
