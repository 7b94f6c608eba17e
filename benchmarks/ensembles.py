"""One binary model an organ, the four ensembles of Crespi et al. (2023) over them, MOvpUNet, and the model of all organs, in one table.

    python benchmarks/ensembles.py [--home HOME] [--organs liver spleen aorta] [--folds 3] [--cases 15] [--iterations 200]

A phantom dataset is made in the home folder (a temporary one by default), planned for 2d and a coarse spacing, and everything is trained
there for a few folds; what an earlier call with the same home finished is kept. Scores are those of the folds' held-out whole volumes, as
in the paper: Dice, precision, recall, and the 95th percentile of the distance between surfaces in mm.
"""

from __future__ import annotations

import argparse
import logging
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoseg.data.label_subsets import organs_tag, subset_labels
from autoseg.data.phantom.dataset import make_phantom
from autoseg.evaluation.counts import nan_mean
from autoseg.evaluation.metrics import METRICS, value_of
from autoseg.pipeline import EnsembleSettings, PlanSettings, TrainSettings, plan_and_preprocess, train, train_ensemble
from autoseg.runtime.serialization import from_jsonable, read_json, write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Score

DATASET = "Dataset900_Phantom"
COARSE = (6.0, 5.0, 5.0)
"""Spacing of the phantom, coarser than planned, so that minutes are enough."""
COLUMNS = {"dice": "Dice", "precision": "precision", "sensitivity": "recall", "hd95_surface": "HD95, mm"}
KINDS = ("argmax", "logits", "meta", "fusion")


def prepared(options: argparse.Namespace, home: Path) -> Workspace:
    """The home folder with the phantom, planned and preprocessed."""
    folder = home / "raw" / DATASET
    if not (folder / "dataset.json").is_file():
        make_phantom(folder, n_train=options.cases, n_test=0, seed=0, size=options.size)
    settings = PlanSettings(configurations=("2d",), spacing=COARSE, memory_gb=1.0, workers=0)
    plan_and_preprocess(DATASET, settings, home=home)
    return Workspace(home)


def trained(options: argparse.Namespace, home: Path) -> tuple[list[str], str]:
    """Trains one model an organ and one of all of them; returns their folders."""
    plan = Workspace(home).plan(DATASET)
    planned = plan.configurations["2d"].network_options["features"]
    narrow = {"features": [min(options.features * 2**stage, 8 * options.features) for stage in range(len(planned))]}
    settings = TrainSettings(iterations=options.iterations, batch=options.batch, device=options.device, network_options=narrow)
    for fold in range(options.folds):
        for organ in options.organs:
            train(DATASET, "2d", fold, replace(settings, organs=(organ,)), home=home)
        train(DATASET, "2d", fold, replace(settings, organs=tuple(options.organs)), home=home)
    words = [organs_tag(subset_labels(plan.labels, organs)) for organs in ([organ] for organ in options.organs)]
    return [f"2d__Trainer__{word}" for word in words], f"2d__Trainer__{organs_tag(subset_labels(plan.labels, options.organs))}"


def stored_scores(home: Path, model: str, folds: int) -> list[Score]:
    """Of the held-out cases of all folds."""
    paths = [home / "results" / DATASET / model / f"fold_{fold}" / "validation" / "scores.json" for fold in range(folds)]
    return [score for path in paths for score in from_jsonable(read_json(path, list), list[Score])]


def compared(options: argparse.Namespace, home: Path) -> dict[str, list[Score]]:
    """Name of a way to segment all organs -> its scores."""
    binary, together = trained(options, home)
    rows = {"one model of all organs": stored_scores(home, together, options.folds)}
    asked = {"folds": tuple(map(str, range(options.folds))), "device": options.device}
    for kind in KINDS:
        iterations = options.ensemble_iterations if kind != "argmax" else None
        settings = EnsembleSettings(kind=kind, members=tuple(binary), iterations=iterations, **asked)
        rows[f"binary models, {kind}"] = _timed(settings, home)
    rows["each organ's best model, multi"] = _timed(EnsembleSettings(kind="multi", members=(*binary, together), **asked), home)
    return rows


def _timed(settings: EnsembleSettings, home: Path) -> list[Score]:
    started = time.monotonic()
    scores = [score for some in train_ensemble(DATASET, settings, home=home).values() for score in some]
    print(f"{settings.kind}: {time.monotonic() - started:.0f} s", flush=True)
    return scores


def table(rows: dict[str, list[Score]], organs: Sequence[str]) -> str:
    """Markdown: the mean over organs of each metric, then each organ's."""
    lines = []
    for metric, title in COLUMNS.items():
        lines += [f"\n{title}, {METRICS[metric].better} is better\n", f"| | mean | {' | '.join(organs)} |"]
        lines.append("|---|" + "---:|" * (len(organs) + 1))
        for name, scores in rows.items():
            means = [nan_mean(value_of(score, metric) for score in scores if score.organ == organ) for organ in organs]
            lines.append(f"| {name} | {' | '.join(_number(value, metric) for value in [nan_mean(means), *means])} |")
    return "\n".join(lines)


def _number(value: float, metric: str) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}" if METRICS[metric].unit == "mm" else f"{value:.3f}"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="folder that keeps everything (default: a temporary one)")
    parser.add_argument("--organs", nargs="+", default=["liver", "spleen", "kidney_right", "aorta"])
    parser.add_argument("--folds", type=int, default=3, help="of five, those that are trained")
    parser.add_argument("--cases", type=int, default=15)
    parser.add_argument("--size", type=float, default=0.5, help="of the phantom, against the usual one")
    parser.add_argument("--iterations", type=int, default=200, help="of each base model")
    parser.add_argument("--ensemble-iterations", type=int, help="of each ensemble (default: as the command's)")
    parser.add_argument("--features", type=int, default=16, help="of the base models' first stage; up to eight times as many below")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.home or Path(temporary)).resolve()
        prepared(options, home)
        started = time.monotonic()
        rows = compared(options, home)
        print(f"all trainings: {time.monotonic() - started:.0f} s\n{table(rows, options.organs)}")
        write_json(home / "ensembles.json", rows)


if __name__ == "__main__":
    main()
