"""The commands. Importing them is light: what they need of the rest is imported when they run."""

from .cli import check, demo, merge, networks, plan_and_preprocess, predict, run, train
from .results import evaluate, find_best_configuration, overlay, report, train_ensemble

__all__ = [
    "check",
    "demo",
    "evaluate",
    "find_best_configuration",
    "merge",
    "networks",
    "overlay",
    "plan_and_preprocess",
    "predict",
    "report",
    "run",
    "train",
    "train_ensemble",
]
