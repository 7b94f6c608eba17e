"""What a short training on this machine gains from the batch, the optimiser and the number format: same fold, same time, whole-volume Dice.

    python benchmarks/short_training.py --home HOME -d 4 -c 3d_fullres --time 240 [--only batch=planned ...]

The dataset must be planned and preprocessed. Variants are trained one after the other into a temporary folder; nothing in the home changes.
Whatever else runs on the machine takes time from the variant that is just being trained: run it on an idle machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import tempfile
from pathlib import Path

from autoseg.data.descriptions import planned_dataset
from autoseg.evaluation.folders import mean_dice, summary
from autoseg.inference.predictor import Predictor
from autoseg.planners.budget import choose_budget, fit_batch
from autoseg.runtime.hardware import choose_device
from autoseg.runtime.workspace import find_workspace
from autoseg.schema.run_record import RunRecord
from autoseg.schema.training_options import TrainingOptions
from autoseg.trainers.run_options import RunFolders, default_options
from autoseg.trainers.trainer import Trainer
from autoseg.trainers.validation import validate_fold

REFERENCE = {"optimizer": "sgd", "learning_rate": 1e-2, "weight_decay": 3e-5, "schedule": "poly", "warmup": 0.0, "average_decay": 0.0}
VARIANTS = {
    "default": {},
    "batch=planned": {"batch": "planned"},
    "reference optimiser": REFERENCE,
    "no weight average": {"average_decay": 0.0},
}


def train_variant(training_spec: dict, options: argparse.Namespace, out: Path) -> tuple[int, float, dict[str, float]]:
    """Trains and validates one variant; returns iterations, mean Dice and Dice per organ."""
    workspace = find_workspace(options.home)
    dataset = planned_dataset(workspace, options.dataset)
    plan, device = workspace.plan(dataset.name), choose_device(options.device)
    configuration = plan.configurations[options.configuration]
    if training_spec.get("batch") != "planned":
        configuration, _ = fit_batch(configuration, device.type)
    budget = choose_budget(device.type, seconds=options.time)
    chosen: TrainingOptions = default_options(budget, device.type, batch=configuration.batch_size)
    chosen = dataclasses.replace(chosen, **{key: value for key, value in training_spec.items() if key != "batch"})
    split = workspace.splits(dataset.name)[0]
    job = RunRecord(plan, configuration, "0", split, budget, 0, chosen)
    folders = RunFolders(out, workspace.preprocessed(dataset.name) / configuration.data)
    trainer = Trainer(job, folders, device=device)
    scores = validate_fold(Predictor([trainer.fit()], configuration, plan.labels, device=device), job, folders, dataset)
    return trainer.iteration, mean_dice(scores), {organ: one.dice for organ, one in summary(scores).items()}


def main() -> None:
    """Prints one line a variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", required=True)
    parser.add_argument("-d", "--dataset", default="4")
    parser.add_argument("-c", "--configuration", default="3d_fullres")
    parser.add_argument("--time", type=float, default=240.0, help="seconds a variant")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    print(f"{'training_spec':<22}{'iterations':>11}{'mean Dice':>11}  per organ")
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            iterations, mean, organs = train_variant(VARIANTS[name], options, Path(folder))
        print(
            f"{name:<22}{iterations:>11}{mean:>11.4f}  " + ", ".join(f"{organ} {value:.4f}" for organ, value in organs.items()), flush=True
        )


if __name__ == "__main__":
    main()
