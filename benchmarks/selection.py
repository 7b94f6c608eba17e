"""What the choice among many models costs: ten made-up models on forty cases of CT size, all averages of two and three of them.

Run ``python benchmarks/selection.py`` (``--help`` for sizes). The models' held-out probabilities are made once: smooth organs whose borders
each model gets wrong in its own way, of a few different cases that are linked under many names (the choice reads every one of them).
They stay in ``--home`` where one is given. The choice runs in a process of its own. "Peak" is the largest resident size of one process,
the parent's or a worker's.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from autoseg import find_best_configuration
from autoseg.data.images import write_label
from autoseg.evaluation.case_scores import score_case
from autoseg.inference.export import export_labels
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import save_logits
from autoseg.pipeline import describe_choice
from autoseg.runtime.hardware import cpu_count, peak_memory
from autoseg.runtime.runs import FINAL_CHECKPOINT
from autoseg.runtime.serialization import write_json
from autoseg.schema import Budget, Choice, Configuration, Geometry, Intensity, Labels, Mirroring, Plan, RunRecord, Split, Trace
from autoseg.schema.training_options import TrainingOptions

log = logging.getLogger("benchmark")

DATASET = "Dataset001_Made"
FOLDS = 5
METRICS = ("dice", "iou", "sensitivity", "precision", "ravd", "nsd_surface", "chaos")


@dataclass(frozen=True)
class Size:
    """What is made: models, cases and how many of them differ, organs, the network's grid and the file's."""

    models: int
    cases: int
    distinct: int
    organs: int
    grid: tuple[int, int, int]
    file: tuple[int, int, int]

    @property
    def labels(self) -> Labels:
        """Organ 1, organ 2 ..."""
        return Labels(tuple(f"organ {i + 1}" for i in range(self.organs)), tuple((i + 1,) for i in range(self.organs)))

    def trace(self, case: str) -> Trace:
        """A file of 3 x 0.75 x 0.75 mm, resampled as a whole."""
        geometry = Geometry(self.file, (3.0, 0.75, 0.75), (0.0,) * 3, tuple(np.eye(3).ravel()))
        spacing = tuple(s * a / b for s, a, b in zip(geometry.spacing, self.file, self.grid, strict=True))
        return Trace(case, geometry, (0, 1, 2), self.file, tuple((0, n) for n in self.file), self.grid, spacing)


def truth(size: Size, number: int) -> torch.Tensor:
    """Logits ``(K, Z, Y, X)`` of organs as ellipsoids, background 0."""
    rng = np.random.default_rng([1, number])
    axes = [torch.linspace(0, 1, n).reshape([-1 if a == i else 1 for a in range(3)]) for i, n in enumerate(size.grid)]
    logits = torch.zeros((size.organs + 1, *size.grid))
    for channel in logits[1:]:
        centre, radius = rng.uniform(0.25, 0.75, 3), rng.uniform(0.05, 0.14, 3)
        distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radius, strict=True))
        channel[...] = (12 * (1 - distance.sqrt())).clamp_(-15, 15)
    return logits


def opinion(size: Size, logits: torch.Tensor, model: int, number: int) -> torch.Tensor:
    """What a model says: the truth with smooth errors of its own, the stronger the later the model."""
    generator = torch.Generator().manual_seed(1000 * model + number)
    coarse = [max(2, n // 12) for n in size.grid]
    noise = torch.randn((1, size.organs, *coarse), generator=generator)
    errors = torch.nn.functional.interpolate(noise, size.grid, mode="trilinear")[0]
    said = logits.clone()
    said[1:] += (1.5 + 0.1 * model) * errors
    return said


def make_home(home: Path, size: Size) -> None:
    """Writes the dataset, the plan, and the validation folders of all models; what is there is taken as it is."""
    if (home / "made.json").is_file():
        return
    raw, results = home / "raw" / DATASET, home / "results" / DATASET
    for folder in (raw / "imagesTr", raw / "labelsTr"):
        folder.mkdir(parents=True, exist_ok=True)
    named = {"background": 0} | {name: index + 1 for index, name in enumerate(size.labels.names)}
    write_json(raw / "dataset.json", {"channel_names": {"0": "CT"}, "labels": named, "numTraining": size.cases, "file_ending": ".nii.gz"})
    intensity = Intensity(0.0, 0.0, 1.0, -3.0, 3.0, -2.5, 2.5)
    plan = Plan(DATASET, ("CT",), size.labels, ".nii.gz", (0, 1, 2), (intensity,), {})
    write_json(home / "preprocessed" / DATASET / "plan.json", plan)
    names = [f"3d_fullres__Model{model}" for model in range(size.models)]
    scores = {(name, fold): [] for name in names for fold in range(FOLDS)}
    for number in tqdm(range(min(size.distinct, size.cases)), desc="making cases"):
        cases = [f"case{one:03d}" for one in range(number, size.cases, size.distinct)]
        logits = truth(size, number)
        reference = export_labels([Logits(logits, size.trace(cases[0]))], size.labels)
        first = raw / "labelsTr" / f"{cases[0]}.nii.gz"
        write_label(first, reference, size.trace(cases[0]).geometry)
        for case in cases:
            (raw / "imagesTr" / f"{case}_0000.nii.gz").touch()
            _link(first, raw / "labelsTr" / f"{case}.nii.gz")
        for model, name in enumerate(names):
            told = Logits(opinion(size, logits, model, number), size.trace(cases[0]))
            made = [results / name / f"fold_{int(case[4:]) % FOLDS}" / "validation" for case in cases]
            save_logits(made[0], cases[0], told, size.labels)
            found = export_labels([told], size.labels)
            write_label(made[0] / f"{cases[0]}.nii.gz", found, told.trace.geometry)
            own = score_case(cases[0], found, reference, size.labels, metrics=METRICS, spacing_mm=told.trace.geometry.spacing)
            for case, folder in zip(cases, made, strict=True):
                for ending in (".b2nd", ".nii.gz"):
                    _link(made[0] / f"{cases[0]}{ending}", folder / f"{case}{ending}")
                write_json(folder / f"{case}.trace.json", size.trace(case))
                scores[name, int(case[4:]) % FOLDS] += [type(one)(case, *list(vars(one).values())[1:]) for one in own]
    for model, name in enumerate(names):
        for fold in range(FOLDS):
            run = results / name / f"fold_{fold}"
            write_json(run / "validation" / "scores.json", scores[name, fold])
            write_json(run / "validation" / "timings.json", {score.case: 10.0 - model for score in scores[name, fold]})
            write_json(run / "run.json", record_of(plan, fold))
            (run / FINAL_CHECKPOINT).touch()
    write_json(home / "made.json", size)


def record_of(plan: Plan, fold: int) -> RunRecord:
    """What a run of the plan would have been started with."""
    configuration = Configuration(
        name="3d_fullres",
        dim=3,
        spacing=(1.0,) * 3,
        median_shape=(8,) * 3,
        patch_size=(8,) * 3,
        batch_size=2,
        normalization=("ct",),
        mask_normalization=(False,),
        network="plain_unet",
        network_options={},
        batch_dice=False,
        mirroring=Mirroring(),
        data="3d_fullres",
    )
    return RunRecord(plan, configuration, str(fold), Split(("others",), ()), Budget("iterations", 1, 1), 0, TrainingOptions())


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source != target:
        os.link(source, target)


def measure(home: Path, metric: str, max_members: int) -> tuple[Choice, float, float, int]:
    """The choice, seconds by the clock, seconds of the CPU with all workers, and the largest process; meant for a process of its own."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    start = time.perf_counter()
    choice = find_best_configuration(1, home=home, metric=metric, max_members=max_members)
    clock = time.perf_counter() - start
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return choice, clock, sum(one.ru_utime + one.ru_stime for one in usage), max(peak_memory(), usage[1].ru_maxrss * 1024)


def main() -> None:
    """Makes the models, chooses among them, and logs what it cost."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--distinct", type=int, default=8, help="cases that differ; the others are links to them")
    parser.add_argument("--organs", type=int, default=5)
    parser.add_argument("--grid", type=int, nargs=3, default=(100, 256, 256), metavar=("Z", "Y", "X"), help="of the networks")
    parser.add_argument("--file", type=int, nargs=3, default=(120, 512, 512), metavar=("Z", "Y", "X"), help="of the label maps")
    parser.add_argument("--max-members", type=int, default=3)
    parser.add_argument("--metric", default="dice")
    parser.add_argument("--home", type=Path, help="where the models are made and kept (default: a folder that is removed)")
    given = parser.parse_args()
    size = Size(given.models, given.cases, given.distinct, given.organs, tuple(given.grid), tuple(given.file))
    home = given.home or Path(tempfile.mkdtemp(prefix="autoseg_selection_"))
    try:
        make_home(home, size)
        shutil.rmtree(home / "results" / DATASET / "candidates", ignore_errors=True)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            choice, clock, cpu, peak = pool.apply(measure, (home, given.metric, given.max_members))
            log.info("%s\n", describe_choice(choice))
            log.info("%d models, %d candidates, %d cases, %d cores", size.models, len(choice.table), choice.cases, cpu_count())
            volume = 2 * np.prod(size.file)
            log.info("%.0f s by the clock, %.0f s of CPU", clock, cpu)
            log.info("peak %.2f GB: %.1f label maps of a case (16 bits)", peak / 1e9, peak / volume)
            again = pool.apply(measure, (home, given.metric, given.max_members))[1]
            log.info("a second choice, whose averages are known: %.0f s", again)
    finally:
        if given.home is None:
            shutil.rmtree(home)


if __name__ == "__main__":
    main()
