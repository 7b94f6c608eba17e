"""What a cascade's candidate region saves: recall and false positives against the radius, tiles, seconds and Dice with and without it.

    python benchmarks/candidate_region.py [--home HOME -d 900] [--time 120] [--cases 10] [--size 1.0] [--memory 0.05]

Without a home folder a phantom dataset is made in a temporary one, planned and preprocessed there, and both stages are trained shortly.
With one, what is trained there is taken, and what is missing is trained. The predictions with and without the region are by the same
networks, one right after the other for each held-out case of fold 0.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autoseg.data.descriptions import planned_dataset
from autoseg.data.images import read_label
from autoseg.data.labels import to_internal_values
from autoseg.data.phantom.dataset import make_phantom
from autoseg.evaluation.case_scores import score_case
from autoseg.evaluation.folders import mean_dice
from autoseg.inference.candidate_region_mask import candidate_region_mask
from autoseg.inference.export import export_labels
from autoseg.inference.logits import Logits
from autoseg.inference.predictor import Predictor
from autoseg.inference.trained_model import load_network
from autoseg.inference.volume_predictor import Volume
from autoseg.pipeline import PlanSettings, TrainSettings, plan_and_preprocess, train
from autoseg.preprocessing.storage import Store, read_array
from autoseg.runtime.hardware import choose_device
from autoseg.runtime.runs import ModelFolder
from autoseg.runtime.serialization import read_json
from autoseg.runtime.workspace import Workspace, find_workspace
from autoseg.schema import Score
from autoseg.schema.run_record import RunRecord
from autoseg.trainers.cascade.candidate_region import CandidateRegionChoice
from autoseg.trainers.cascade.trainer import CANDIDATE_REGION

TRAINER = "CascadeTrainer"
DATASET = "Dataset900_Phantom"
COARSE = (4.0, 3.0, 3.0)
"""Spacing of the phantom, coarser than planned, so that minutes are enough."""


@dataclass
class Result:
    """Sums over the held-out cases of one way to predict."""

    seconds: float = 0.0
    computed: int = 0
    skipped: int = 0
    scores: tuple[Score, ...] = ()


def prepared(options: argparse.Namespace, home: Path) -> tuple[Workspace, str]:
    """The home folder with both stages trained, and the dataset's name."""
    which = options.dataset
    if options.home is None:
        make_phantom(home / "raw" / DATASET, n_train=options.cases, n_test=0, seed=0, size=options.size)
        which = DATASET
        plan_and_preprocess(which, PlanSettings(force_lowres=True, spacing=COARSE, memory_gb=options.memory), home=home)
    settings = TrainSettings(trainer=TRAINER, seconds=options.time, device=options.device)
    train(which, "3d_cascade", 0, settings, home=home)
    workspace = find_workspace(home)
    return workspace, planned_dataset(workspace, which).name


def compare(workspace: Workspace, dataset: str, device: torch.device, step: float) -> dict[str, Result]:
    """Predicts the held-out cases of fold 0 with and without the region."""
    model = ModelFolder.named(workspace.results(dataset), "3d_cascade", TRAINER).folder
    job = read_json(model / "fold_0" / "run.json", RunRecord)
    store = Store(workspace.preprocessed(dataset) / job.configuration.data)
    previous = workspace.results(dataset) / job.previous_model / f"predicted_on_{job.configuration.data}"
    predictor = Predictor(
        [load_network(model / "fold_0", job.plan, job.configuration, device)], job.configuration, job.plan.labels, device=device, step=step
    )
    cases = {case.name: case for case in planned_dataset(workspace, dataset).cases}
    results = {"with the region": Result(), "without": Result()}
    for name in job.split.val:
        stored = store.load(name)
        image, organs = np.asarray(stored.image[:]), read_array(previous / f"{name}.b2nd")[0].astype(np.int16)
        seen = organs if job.configuration.sees_previous else None
        reference = to_internal_values(read_label(cases[name].label).array, job.plan.labels, source=name)
        for what, result in results.items():
            started = time.perf_counter()
            region = candidate_region_mask(job.configuration, image, organs) if what == "with the region" else None
            logits = predictor.logits(Volume(image, previous=seen, region=region, case=name))
            result.seconds += time.perf_counter() - started
            result.computed, result.skipped = result.computed + predictor.computed, result.skipped + predictor.skipped
            found = export_labels([Logits(logits, stored.trace)], job.plan.labels)
            result.scores += tuple(score_case(name, found, reference, job.plan.labels))
    return results


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="home folder with a planned dataset; None makes a phantom")
    parser.add_argument("-d", "--dataset", default=DATASET)
    parser.add_argument("--time", type=float, default=120.0, help="seconds a training (stage one has one a fold)")
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--size", type=float, default=1.0, help="of the phantom's volumes")
    parser.add_argument(
        "--memory",
        type=float,
        default=0.05,
        help="GB that the phantom is planned for: tiles can be skipped only if patches are small beside the volume",
    )
    parser.add_argument("--step", type=float, default=0.5)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        workspace, dataset = prepared(options, options.home or Path(folder))
        region = read_json(
            ModelFolder.named(workspace.results(dataset), "3d_cascade", TRAINER).folder / CANDIDATE_REGION, CandidateRegionChoice
        )
        print(f"{'radius':>6}{'recall':>9}{'worst':>9}{'false pos.':>12}{'share':>8}")
        for row in region.rows:
            chosen = "  <- chosen" if row.radius == region.radius else ""
            numbers = f"{row.recall:>9.4f}{row.worst_recall:>9.4f}{row.false_positive_rate:>12.4f}{row.share:>8.3f}"
            print(f"{row.radius:>6}{numbers}{chosen}")
        print(f"\n{'':<18}{'tiles':>7}{'skipped':>9}{'seconds':>9}{'mean Dice':>11}")
        for what, one in compare(workspace, dataset, choose_device(options.device), options.step).items():
            print(f"{what:<18}{one.computed:>7}{one.skipped:>9}{one.seconds:>9.2f}{mean_dice(list(one.scores)):>11.4f}", flush=True)


if __name__ == "__main__":
    main()
