"""The commands, one parser tree (`tree`). Importing them is light: what they need of the rest is imported when they run."""

# ruff: noqa: F401

from .data import check, merge, plan_and_preprocess
from .prediction import overlay, predict
from .results import evaluate, find_best_configuration, report
from .training import demo, networks, run, train, train_ensemble
from .tree import main
