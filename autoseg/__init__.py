"""autoseg: segments organs in 3D medical images and configures itself.

The pipeline's functions are importable from here (``autoseg.plan_and_preprocess``, ``autoseg.train``, ``autoseg.predict`` ...); they are
loaded when first used, so that importing this package, and the commands' ``--help``, do not wait for torch.
"""

# ruff: noqa: F401

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_FUNCTIONS = (
    "check_dataset",
    "demo",
    "draw_overlays",
    "evaluate_folders",
    "find_best_configuration",
    "fix_dataset",
    "load_model",
    "merge",
    "plan_and_preprocess",
    "predict",
    "predict_folder",
    "run",
    "run_until",
    "train",
    "train_ensemble",
    "write_report",
    "Deadline",
    "EnsembleSettings",
    "OverlaySettings",
    "PlanSettings",
    "PredictSettings",
    "TrainSettings",
)

if TYPE_CHECKING:  # for editors, type checkers and the documentation
    from .pipeline import (
        Deadline,
        EnsembleSettings,
        OverlaySettings,
        PlanSettings,
        PredictSettings,
        TrainSettings,
        check_dataset,
        demo,
        draw_overlays,
        evaluate_folders,
        find_best_configuration,
        fix_dataset,
        load_model,
        merge,
        plan_and_preprocess,
        predict,
        predict_folder,
        run,
        run_until,
        train,
        train_ensemble,
        write_report,
    )

__all__ = ["__version__", *_FUNCTIONS]


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(import_module(".pipeline", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_FUNCTIONS})
