"""The story, one function a command:

    check_dataset            what is wrong with the data, case by case                             (checking.py)
    describe_dataset         what the dataset is, in one line
    merge                    datasets with different organs -> one that is partially labelled      (merging.py)
    plan_and_preprocess      dataset -> fingerprint -> plan -> folds -> preprocessed cases         (preparing.py)
    train                    one fold: fit, then validate on whole volumes                         (training.py)
    find_best_configuration  cross-validation scores -> the best model for each organ              (choosing.py)
    predict_folder, predict  new images -> the chosen models -> label maps                         (predicting.py)
    load_model               the same with networks that stay loaded                               (predicting.py)
    evaluate_folders         label maps against references                                         (evaluating.py)
    run                      all of it                                                             (running.py)
    run_until                all of it until one deadline                                          (studying.py)
    demo                     all of it, on made-up data                                            (demonstration.py)
    train_ensemble           trained models -> one of them all, a model like any other             (ensembles.py)
    write_report             all that is known about a dataset's models -> one HTML file           (reporting.py)
    draw_overlays            images and label maps -> pictures                                     (../report/overlays.py)
    describe_experiment      the table of a paper's experiment                                     (experiments.py)
    list_networks            what each network costs                                               (network_table.py)

Each reads the file that the former wrote, can be interrupted at any moment, and goes on where it was when it is called again. A function's
module is imported when the function is first asked for: prediction does not wait for what trains.
"""

# ruff: noqa: F401

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors, type checkers and the documentation
    from ..data.repair import fix_dataset
    from ..data.summary import describe_dataset
    from ..evaluation.folders import evaluate_folders
    from ..report.overlays import OverlaySettings, draw_overlays
    from ..schema.settings import EnsembleSettings, PlanSettings, PredictSettings, TrainSettings
    from .checking import check_dataset
    from .choosing import describe_choice, find_best_configuration
    from .demonstration import demo
    from .ensembles import train_ensemble
    from .experiments import describe_experiment
    from .merging import merge
    from .network_table import describe_networks, list_networks
    from .predicting import load_model, predict, predict_each, predict_folder
    from .preparing import plan_and_preprocess
    from .reporting import write_report
    from .running import run
    from .studying import Deadline, run_until
    from .training import train

_MODULES = {
    "fix_dataset": "..data.repair",
    "describe_dataset": "..data.summary",
    "evaluate_folders": "..evaluation.folders",
    "OverlaySettings": "..report.overlays",
    "draw_overlays": "..report.overlays",
    "EnsembleSettings": "..schema.settings",
    "PlanSettings": "..schema.settings",
    "PredictSettings": "..schema.settings",
    "TrainSettings": "..schema.settings",
    "check_dataset": ".checking",
    "describe_choice": ".choosing",
    "find_best_configuration": ".choosing",
    "demo": ".demonstration",
    "train_ensemble": ".ensembles",
    "describe_experiment": ".experiments",
    "merge": ".merging",
    "describe_networks": ".network_table",
    "list_networks": ".network_table",
    "load_model": ".predicting",
    "predict": ".predicting",
    "predict_each": ".predicting",
    "predict_folder": ".predicting",
    "plan_and_preprocess": ".preparing",
    "write_report": ".reporting",
    "run": ".running",
    "Deadline": ".studying",
    "run_until": ".studying",
    "train": ".training",
}
"""Function or class to its module."""

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        with _without_collections():
            return getattr(import_module(_MODULES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@contextmanager
def _without_collections() -> Iterator[None]:
    """Within the block Python does not look for garbage, of which imports leave little: they take a tenth less time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
