"""The built-in example: from made-up raw images to scored predictions, in a number of steps that does not depend on the computer's load."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from ..data.descriptions import planned_dataset
from ..data.phantom.dataset import make_phantom
from ..evaluation.folders import evaluate_folders
from ..report.overlays import OverlaySettings, describe_problems, draw_overlays
from ..runtime.hardware import choose_device, cpu_count, processor_share
from ..runtime.outputs import SHOWN, Outputs, visible_names
from ..runtime.shown_text import duration
from ..runtime.workspace import Workspace
from ..schema import Choice, Score
from ..schema.settings import PlanSettings, PredictSettings, TrainSettings
from .choosing import describe_choice, find_best_configuration
from .predicting import predict_folder
from .preparing import plan_and_preprocess
from .total_time import clock
from .training import train

log = logging.getLogger(__name__)

DEMO_DATASET = "Dataset900_Phantom"
DEMO_SPACING = (6.0, 6.0, 6.0)
"""Coarser than the planner would choose, so that some minutes on a laptop are enough to learn something."""
DEMO_PHASE = "arterial"
"""All scans are taken in this phase, after drinking water: each organ has grey values of its own, and fewer steps tell them apart."""

EASY = TrainSettings(
    network_options={"features": [16, 32, 64, 128, 128]},
    learning_rate=2e-3,
    options={"mirror_probability": 0.0},  # all bodies lie alike: nothing is learnt from mirrored ones, nor averaged over them
)
TRAININGS: Mapping[str, TrainSettings] = MappingProxyType(
    {
        "2d": replace(EASY, iterations=1600, batch=6),
        "3d_fullres": replace(EASY, iterations=1300, batch=2, patch=(16, 32, 32)),
    }
)
"""A narrow network and small patches: many cheap steps. Their number is fixed, as a time would hold fewer where other programs compute."""

CORE_SECONDS: Mapping[str, float] = MappingProxyType({"before": 60.0, "2d": 260.0, "3d_fullres": 380.0, "after": 70.0})
"""Of a processor core, for each part of the demonstration; measured with avx512_bf16."""
USEFUL_CORES = 2
"""Cores that such small steps use well."""
BUSY = 0.8
"""Share of its cores below which other programs are said to use them ..."""
CHANGED = 0.15
"""... and the difference from which on it is said again."""


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration leaves behind.

    Attributes:
        home: Its home folder.
        pictures: Files to look at.
    """

    choice: Choice
    scores: list[Score]
    pictures: list[Path]
    home: Path


def demo(
    folder: str | Path, *, seconds: float | None = None, n_train: int = 20, n_test: int = 4, seed: int = 0, overwrite: bool = False
) -> DemoResult:
    """The main job on a built-in phantom of the abdomen: from raw images to scored predictions of cases that no training has seen.

    Args:
        folder: Home folder to make.
        seconds: Training time of each of the two configurations, 2d and 3d_fullres; None: a fixed number of steps, which learn the same
            whatever else the computer does.
        n_train: Training cases (of which a fifth validates).
        n_test: Held-out cases.
        seed: Of the phantom and of training.
        overwrite: Replace predictions and pictures in the folder that were changed since, or that others wrote; never data or models.

    Raises:
        ValueError: The folder holds other things than the demonstration, or a file of others lies where one is to be written.
    """
    home = Path(folder).resolve()
    raw = home / "raw" / DEMO_DATASET
    check_own_folder(home)
    outputs = Outputs("autoseg_demo", inputs=(), protected=Workspace(home).folders, overwrite=overwrite)
    forecast = Forecast(silent=seconds is not None)
    forecast.say("before")
    if not (raw / "dataset.json").is_file():
        log.info("Making a phantom dataset in %s", raw)
        make_phantom(raw, n_train=n_train, n_test=n_test, seed=seed, phase=DEMO_PHASE, write=outputs.write)
    plan_and_preprocess(900, PlanSettings(configurations=tuple(TRAININGS), spacing=DEMO_SPACING), home=home)
    for configuration, settings in TRAININGS.items():
        forecast.say(configuration)
        budget = settings.iterations if seconds is None else None
        train(900, configuration, 0, replace(settings, seed=seed, seconds=seconds, iterations=budget), home=home)
    forecast.say("after")
    choice = find_best_configuration(900, home=home)
    log.info("%s", describe_choice(choice))
    scores = _predict(home, overwrite=overwrite)
    return DemoResult(choice, scores, _draw(home, overwrite=overwrite), home)


def check_own_folder(home: Path) -> None:
    """Refuses (ValueError) a folder that holds something and was not made by the demonstration, whose files would lie among the others."""
    if home.exists() and not home.is_dir():
        raise ValueError(f"{home}: expected a new or empty folder, found a file; choose another one (-o FOLDER)")
    others = [] if (home / "raw" / DEMO_DATASET).is_dir() or not home.is_dir() else visible_names(home)
    if others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        found = f"{', '.join(others[:SHOWN])}{more}"
        raise ValueError(
            f"{home}: expected a new or empty folder, or one of an earlier demonstration, found {found}; "
            "nothing was written. Choose another folder (-o FOLDER)"
        )


def _predict(home: Path, *, overwrite: bool) -> list[Score]:
    """Predicts the held-out cases and scores them."""
    raw, out = home / "raw" / DEMO_DATASET, home / "predictions"
    failures = predict_folder(raw / "imagesTs", out, PredictSettings(dataset="900"), home=home, overwrite=overwrite)
    if failures:
        raise RuntimeError(f"prediction failed: {failures}")
    return evaluate_folders(raw / "labelsTs", out, planned_dataset(Workspace(home), DEMO_DATASET).labels)


def _draw(home: Path, *, overwrite: bool) -> list[Path]:
    raw = home / "raw" / DEMO_DATASET
    pictures, problems = draw_overlays(
        *(raw / "imagesTs", home / "pictures"),
        prediction=home / "predictions",
        reference=raw / "labelsTs",
        settings=OverlaySettings(dataset="900"),
        home=home,
        overwrite=overwrite,
    )
    if problems:
        raise RuntimeError("; ".join(describe_problems(problems)))
    return pictures


@dataclass
class Forecast:
    """Says when the demonstration will end, by the share of the processor that it gets; again where that has changed.

    Attributes:
        silent: Say nothing, as the trainings have a time.
        share: Of the processor, that was said last.
    """

    silent: bool = False
    share: float = 1.0

    def say(self, part: str) -> None:
        """To be called before each part of `CORE_SECONDS`."""
        if self.silent or choose_device().type != "cpu":
            return
        parts, cores = list(CORE_SECONDS), min(cpu_count(), USEFUL_CORES)
        idle = sum(CORE_SECONDS[name] for name in parts[parts.index(part) :]) / cores
        share, first = processor_share(), part == parts[0]
        if first:
            log.info("On %d idle cores of an ordinary processor this takes about %s.", cores, duration(idle))
        if share < BUSY and abs(share - self.share) > CHANGED:
            log.warning(
                "Other programs compute, too: of the processor this one gets %.0f %%. From here on it takes about %s, until about %s; as "
                "it counts steps, not seconds, it learns the same.",
                *(100 * share, duration(idle / share), clock(datetime.now(), idle / share)),
            )
            self.share = share
        elif self.share < BUSY <= share:
            log.info("The processor is free again: done by about %s.", clock(datetime.now(), idle))
            self.share = share
